"""What a folder of somebody's data looks like: a description, a table, and what nobody can tell.

Nothing here decides. What is proposed is for a person to read, and whatever was guessed is said.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from federated.data.folders.described.cell_path import path_fault, path_of
from federated.data.folders.described.dataset_json import DATASET_JSON, read_dataset_json
from federated.data.folders.described.dicom_pairs import numbered, pseudonyms
from federated.data.folders.described.dicom_values import dicom_window, kind_of, structure_labels
from federated.data.folders.described.doubt import Doubt
from federated.data.folders.described.file_pairs import FoundFiles, found_files
from federated.data.folders.described.mask_values import ct_window, mask_labels
from federated.data.folders.described.proposed_labels import (
    MOST_CLASSES,
    could_be_class,
    proposed_labels,
)
from federated.data.folders.described.table_roles import ATTRIBUTES, CASES, DESCRIPTION
from federated.data.folders.families.file_names import ENDINGS, VOLUMES, entries, split_ending
from federated.data.folders.families.side_table import any_lines
from federated.data.folders.read_volume import is_dicom
from federated.data.medmnist.array_file import is_npz, read_arrays
from federated.errors import ConsiliumError
from federated.secrets.pseudonyms import pseudonym_secret

Table = list[dict[str, str]]
# Names that people give to columns, by what they mean.
ROLE_NAMES: Mapping[str, Sequence[str]] = {
    "patient": ("patient", "patient_id", "patientid", "subject", "subject_id", "pid"),
    "site": ("site", "hospital", "centre", "center", "institution", "clinic"),
    "split": ("split", "subset"),
    "case": ("case", "case_id", "id", "name", "study", "study_id"),
    "label": ("label", "class", "diagnosis", "target", "finding"),
}
MASK_NAME = re.compile(r"mask|seg|roi|annotation|contour|ground.?truth|label.?map")
COULD_BE_LABEL = "it could be a label for a classification (task: classification, columns.label)"
LICENCE = "not stated (say who may use these data, and for what)"


@dataclass(frozen=True)
class Proposal:
    """What is proposed for a folder.

    ``description`` has the keys of ``dataset.yaml``, ``table`` the rows of ``cases.csv``, ``None``
    where there is one or none is needed, and ``doubts`` what a person has to look at.
    """

    description: dict[str, Any]
    table: Table | None = None
    doubts: list[str] = field(default_factory=list)
    sites: int = 0


def propose(folder: Path, secret: Callable[[], bytes] = pseudonym_secret) -> Proposal:
    """Look at a folder and propose what describes it.

    Args:
        folder: the folder of a data set.
        secret: gives the site's secret, by which the patients of DICOM series are named; asked for
            only where there are some.

    Raises:
        ConsiliumError: it holds no images, or nothing that says what is to be learned of them; or a
            file in it cannot be read.
    """
    if not folder.is_dir():
        raise ConsiliumError(f"There is no folder {folder}. Name the one with the images.")
    if (folder / DATASET_JSON).is_file():
        return _of_dataset_json(folder)
    if (folder / CASES).is_file():
        return _of_table(folder)
    arrays = [path for path in entries(folder) if is_npz(path)]
    if len(arrays) == 1:
        return _of_arrays(arrays[0])
    return _of_files(folder, found_files(folder), secret)


def _of_dataset_json(folder: Path) -> Proposal:
    base = read_dataset_json(folder)
    description: dict[str, Any] = {key: base[key] for key in ("layout", "task", "kind")}
    doubts = [
        "every image is taken for another patient: a dataset.json does not tell whose they are",
        "it does not tell of sites either: use sites.partition=iid",
    ]
    if "ct" in (name.lower() for name in base["modalities"]):
        found = entries(folder / "imagesTr")
        files = [path for path in found if split_ending(path.name, VOLUMES)[1]]
        description["window"], said = ct_window([(path, None) for path in files])
        doubts.append(said)
    if base["licence"].startswith("not stated"):
        description["licence"] = LICENCE
        doubts.append("the licence is not stated")
    return Proposal(description, None, doubts)


def _of_arrays(path: Path) -> Proposal:
    arrays = read_arrays(path, lambda name: name == "train_images" or name.endswith("_labels"))
    images = arrays.get("train_images")
    if images is None:
        raise ConsiliumError(
            f"The file {path} has no array train_images, as MedMNIST's have. Save the arrays "
            "{train,val,test}_images and {train,val,test}_labels, or images as files."
        )
    volumes = images.ndim == 4 and images.shape[-1] != 3
    values = sorted(
        {int(v) for key, a in arrays.items() if key.endswith("_labels") for v in a.flat}
    )
    description = {
        "task": "classification",
        "kind": "volumes" if volumes else "pictures",
        "layout": "arrays",
        "labels": {f"class-{value}": value for value in values},
        "licence": LICENCE,
    }
    doubts = [
        "the classes have no names but their numbers",
        "arrays do not tell whose images they are: a patient may be in two splits",
        "the licence is not stated",
    ]
    return Proposal(description, None, doubts)


def _of_table(folder: Path) -> Proposal:
    header, lines = any_lines(folder / CASES)
    columns = {name: [cells[at] for _, cells in lines] for at, name in enumerate(header)}
    if not lines:
        raise ConsiliumError(f"The table {folder / CASES} has no case. Give each case a line.")
    doubts: list[str] = []
    files = {name: _first_file(folder, cells) for name, cells in columns.items()}
    with_files = [name for name, path in files.items() if path is not None]
    masks = [name for name in with_files if MASK_NAME.search(name)]
    images = [name for name in with_files if name not in masks]
    if not images:
        raise ConsiliumError(
            f"No column of {folder / CASES} names files of images that are there, as seen from "
            f"{folder}; its columns are {', '.join(header)}. {_images_missing(columns)}"
        )
    roles = {role: _role(role, columns, with_files) for role in ROLE_NAMES}
    if len(masks) > 1:
        doubts.append(f"{masks[0]} is taken for the mask, and {', '.join(masks[1:])} is ignored")
    named = {name for name in roles.values() if name}
    left = [name for name in header if name not in (*named, *images, *masks)]
    segments = bool(masks)
    labels = None if segments else proposed_labels(roles["label"], columns, left)
    if not segments and labels is None:
        raise ConsiliumError(
            f"No column of {folder / CASES} names masks, none has from 2 to {MOST_CLASSES} values "
            "that could be classes, and none other numbers, so there is nothing to learn. Add a "
            f"column `mask` or `label`.{_of_attributes(header)}"
        )
    doubts += labels.doubts if labels else ()
    if segments:
        doubts += [
            Doubt(
                f"the column {name} has {_counts(columns[name])}: {COULD_BE_LABEL}",
                f"the column {name} has few values: {COULD_BE_LABEL}",
            )
            for name in [roles["label"], *left]
            if name and name not in ATTRIBUTES and could_be_class(columns[name])
        ]
    given: dict[str, Any] = {
        role: roles[role] for role in ("case", "patient", "site", "split") if roles[role]
    }
    learned = {"label": labels.label} if labels else {"mask": masks[0]}
    given |= {"images": images} | learned
    taken = labels.columns if labels else ()
    attributes = [name for name in [*left, roles["label"]] if name and name not in taken]
    if attributes:
        given["attributes"] = attributes
    if masks[1:]:
        given["ignored"] = masks[1:]
    if not roles["patient"]:
        doubts.append("no column tells whose the images are: each is taken for another patient")
    image = files[images[0]]
    assert image is not None
    kind = _kind(image)
    pairs = _pairs(folder, columns[images[0]], columns[masks[0]] if segments else None)
    description = _described(kind, segments, pairs, doubts)
    if labels:
        description |= {"task": labels.task, **labels.keys}
    if len(images) > 1:
        description["modalities"] = images
    description["columns"] = given
    sites = len(set(columns[roles["site"]])) if roles["site"] else 0
    return Proposal(description, None, doubts, sites)


def _images_missing(columns: Mapping[str, Sequence[str]]) -> str:
    """What to do where no column names an image that is there."""
    cells = [cell for cell in columns.get("image", ()) if cell]
    if cells:
        return (
            f"Its column `image` names {cells[0]!r:.200}: put the files there, or mend the paths."
        )
    return "Add a column `image`, with the path of each case's image."


def _of_attributes(header: Sequence[str]) -> str:
    """How columns are learned that are taken for attributes of the patient, if there are any."""
    found = [name for name in header if name in ATTRIBUTES]
    if not found:
        return ""
    task = "regression" if found[0] == "age" else "classification"
    more = "`target: {low: 0, high: 120}`" if found[0] == "age" else "`labels`, a value for each"
    return (
        f" The columns {', '.join(ATTRIBUTES)} are taken for attributes, which are counted and not "
        f"learned: to learn {found[0]}, call its column `label`, or write {DESCRIPTION} with "
        f"`task: {task}`, `columns: {{label: {found[0]}}}` and {more}, as in docs/own-data.md."
    )


def _of_files(folder: Path, found: FoundFiles, secret: Callable[[], bytes]) -> Proposal:
    doubts = list(found.doubts)
    kind = _kind(found.pairs[0][0])
    segments = found.classes is None
    description = _described(kind, segments, found.pairs, doubts)
    table: Table = []
    for place, (image, mask) in enumerate(found.pairs):
        name = split_ending(image.name)[0]
        row = {"patient": name, "image": image.relative_to(folder).as_posix()}
        if mask is not None:
            row["mask"] = mask.relative_to(folder).as_posix()
        if found.classes is not None:
            row["label"] = found.classes[place]
        table.append(row)
    if found.classes is not None:
        description["labels"] = {name: name for name in sorted(set(found.classes))}
        doubts.append("the folders of the images are taken for their classes")
    if found.series:
        # Folders and files are often named after patients, and a case is named in reports.
        patients = pseudonyms(found.series, secret, doubts)
        names = zip(numbered(patients), patients, table, strict=True)
        table = [{"case": name} | row | {"patient": patient} for name, patient, row in names]
        doubts.append("nothing tells which site an image comes from: add a column site if you know")
        return Proposal(description, table, doubts)
    doubts.append(
        "every image is taken for another patient: give images of one patient one name in the "
        "column patient, or they may be in training and in test"
    )
    starts = Counter(re.split(r"[\d_\-. ]", row["patient"])[0] for row in table)
    if 1 < len(starts) < len(table) / 2 and all(starts):
        listed = ", ".join(f"{start} ({count})" for start, count in starts.most_common(5))
        said = "if these are sites, add a column site"
        doubts.append(
            Doubt(f"names begin with {listed}: {said}", f"names have few beginnings: {said}")
        )
    else:
        doubts.append("nothing tells which site an image comes from: add a column site if you know")
    return Proposal(description, table, doubts)


def _described(
    kind: str,
    segments: bool,
    pairs: Sequence[tuple[Path, Path | None]],
    doubts: list[str],
) -> dict[str, Any]:
    """The keys that do not depend on a table."""
    description: dict[str, Any] = {
        "task": "segmentation" if segments else "classification",
        "kind": kind,
    }
    structures: dict[str, int] = {}
    masks = [mask for _, mask in pairs if mask is not None]
    if segments and masks and is_dicom(masks[0]):
        structures, said = structure_labels(masks)
        description |= {"labels": {"background": 0} | structures}
        description["dicom"] = {"structures": structures}
        doubts.append(said)
    elif segments:
        description["labels"], said = mask_labels(masks)
        doubts.append(said)
    if kind == "volumes":
        window, said, modality = _window(pairs, structures)
        if window:
            doubts.append(said)
        if modality:
            description["modalities"] = [modality]
        if window:
            description["window"] = window
        description["spacing"] = "auto"
    description |= {"shape": "auto", "mirrored": [], "licence": LICENCE}
    doubts.append("the licence is not stated")
    doubts.append("mirrored is empty: name the axes along which a mirrored case could be real")
    return description


def _kind(image: Path) -> str:
    """Whether an image is one of ``volumes`` or of ``pictures``."""
    if is_dicom(image):
        return "pictures" if kind_of(image)[1] else "volumes"
    return "volumes" if split_ending(image.name, VOLUMES)[1] else "pictures"


def _window(
    pairs: Sequence[tuple[Path, Path | None]], structures: Mapping[str, int]
) -> tuple[list[float] | None, str, str | None]:
    """The window of CT and what is unsure of it, and the modality where it is known."""
    if not pairs or not is_dicom(pairs[0][0]):
        window, said = ct_window(pairs)
        return window, said, "CT" if window else None
    modality, _ = kind_of(pairs[0][0])
    if modality != "CT":
        return None, "", modality or None
    return *dicom_window(pairs, tuple(structures.items())), modality


def _first_file(folder: Path, cells: Sequence[str]) -> Path | None:
    """The first image that a column's cells name, or the folder of a series."""
    for cell in cells[:50]:
        if not cell or path_fault(cell):
            continue
        path = path_of(folder, cell)
        if path is not None and (path.is_dir() or split_ending(path.name, (*ENDINGS, ".dcm"))[1]):
            return path
    return None


def _pairs(
    folder: Path, images: Sequence[str], masks: Sequence[str] | None
) -> list[tuple[Path, Path | None]]:
    result = []
    for place, cell in enumerate(images):
        image = None if not cell or path_fault(cell) else path_of(folder, cell)
        other = masks[place] if masks else ""
        mask = None if not other or path_fault(other) else path_of(folder, other)
        if image is not None:
            result.append((image, mask))
    return result


def _role(role: str, columns: Mapping[str, Sequence[str]], taken: Sequence[str]) -> str | None:
    for name in ROLE_NAMES[role]:
        cells = columns.get(name)
        if cells is None or name in taken:
            continue
        if role == "case" and len(set(cells)) < len(cells):
            continue
        if role == "split" and not {c.lower() for c in cells} <= {"train", "val", "test"}:
            continue
        return name
    return None


def _counts(cells: Sequence[str]) -> str:
    return ", ".join(f"{value} ({count})" for value, count in Counter(cells).most_common(5))
