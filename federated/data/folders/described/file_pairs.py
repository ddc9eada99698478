"""Images and what is to be learned of them, in a folder without a table.

Files are paired by their names, and DICOM by what it refers to.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from federated.data.folders.described.dicom_pairs import FoundDicom, FoundSeries, dicom_in
from federated.data.folders.described.doubt import with_example
from federated.data.folders.families.file_names import PICTURES, VOLUMES, split_ending, walk
from federated.errors import ConsiliumError

# Folders and endings of names that people give to masks.
MASK_FOLDER = re.compile(
    r"(?:ground[ _-]?truths?|gt|masks?|segs?|segmentations?|labels?(?:tr)?|annotations?|.*manual.*)"
)
MASK_ENDING = re.compile(
    r"[ _.-](?:mask|seg|segmentation|label|labels|gt|roi|annotation|manual\d?|1stho)$", re.I
)
DICOM = ".dcm"


@dataclass(frozen=True)
class FoundFiles:
    """Images with their masks, or with the classes that their folders name, and what is unsure.

    ``series`` are the series of the pairs, where these are DICOM.
    """

    pairs: list[tuple[Path, Path | None]]
    classes: list[str] | None
    doubts: list[str]
    series: tuple[FoundSeries, ...] = ()


def found_files(folder: Path) -> FoundFiles:
    """Pair a folder's images with masks of their names, or else with the names of their folders.

    NIfTI comes before DICOM, and DICOM before pictures.

    Raises:
        ConsiliumError: there is no image, or neither masks nor folders of classes; or a file that
            should be DICOM cannot be read.
    """
    files = [path for _, _, found in walk(folder) for path in found]
    volumes = [path for path in files if split_ending(path.name, VOLUMES)[1]]
    pictures = [path for path in files if split_ending(path.name, PICTURES)[1]]
    data = volumes or pictures
    doubts = []
    if not volumes:
        dicom = dicom_in(folder)
        if dicom.series:
            if pictures:
                doubts.append(f"{len(pictures)} pictures beside the DICOM files are left out")
            return _of_dicom(folder, dicom, [*doubts, *dicom.doubts])
    if volumes and pictures:
        doubts.append(f"{len(pictures)} pictures beside the volumes are left out")
    series = {path.parent for path in files if path.name.lower().endswith(DICOM)}
    if series:
        doubts.append(
            f"{len(series)} folders hold DICOM files, which are left out: a cell of the column "
            "image may name the folder of a series"
        )
    if not data:
        raise ConsiliumError(
            f"The folder {folder} holds no NIfTI file, no series of DICOM images in a folder of "
            "its own, and no picture. Name the folder of the data set, or write a cases.csv that "
            "names the files."
        )
    masks: dict[str, list[Path]] = {}
    images: list[Path] = []
    for path in data:
        key = _mask_of(path, folder)
        if key is None:
            images.append(path)
        else:
            masks.setdefault(key, []).append(path)
    if masks:
        return _with_masks(folder, images, masks, doubts)
    return _with_classes(folder, images, doubts)


def _mask_of(path: Path, folder: Path) -> str | None:
    """The name of the image that a mask is of; ``None`` for what is no mask."""
    stem = split_ending(path.name)[0]
    parents = path.relative_to(folder).parts[:-1]
    if MASK_ENDING.search(stem):
        return MASK_ENDING.sub("", stem)
    if any(MASK_FOLDER.fullmatch(part.lower()) for part in parents):
        return stem
    return None


def _with_masks(
    folder: Path, images: list[Path], masks: dict[str, list[Path]], doubts: list[str]
) -> FoundFiles:
    pairs: list[tuple[Path, Path | None]] = []
    alone: list[str] = []
    several: list[str] = []
    for image in sorted(images):
        found = masks.pop(split_ending(image.name)[0], [])
        if len(found) == 1:
            pairs.append((image, found[0]))
        else:
            (several if found else alone).append(image.name)
    if not pairs:
        raise ConsiliumError(
            f"The folder {folder} holds {len(images)} images and masks, and no mask has the name "
            "of an image. Write a cases.csv with the columns patient, image and mask."
        )
    if alone:
        doubts.append(with_example(f"{len(alone)} images have no mask and are left out", alone[0]))
    if several:
        doubts.append(
            with_example(f"{len(several)} images have several masks and are left out", several[0])
        )
    if masks:
        doubts.append(
            with_example(f"{len(masks)} masks have no image and are left out", next(iter(masks)))
        )
    doubts.append("images and masks are paired by their names")
    return FoundFiles(pairs, None, doubts)


def _of_dicom(folder: Path, found: FoundDicom, doubts: list[str]) -> FoundFiles:
    """Series with the one file that marks something on each, or with the class of their folder.

    Raises:
        ConsiliumError: no series has just one such file, where there are any; or there is neither.
    """
    several = [series for series, marked in found.series if len(marked) > 1]
    pairs = [(series, marked[0]) for series, marked in found.series if len(marked) == 1]
    if several:
        doubts.append(
            with_example(
                f"{len(several)} series have several segmentations or structure sets and are left "
                "out",
                several[0].path.relative_to(folder),
                ": in cases.csv name the one that is meant",
            )
        )
    if several and not pairs:
        raise ConsiliumError(
            f"In {folder} no series has just one segmentation or structure set, and nothing tells "
            f"which is meant; that in {several[0].path.relative_to(folder)} has "
            f"{len(dict(found.series)[several[0]])}. Write a cases.csv with the columns patient, "
            "image (the folder of a series) and mask (the file that is meant)."
        )
    if not pairs:
        kept = _of_one_kind([series for series, _ in found.series], doubts)
        paths = _with_classes(folder, [series.path for series in kept], doubts, MARKED)
        order = {series.path: series for series in kept}
        ordered = tuple(order[path] for path, _ in paths.pairs)
        _refuse_patients(folder, ordered, paths.classes or ())
        return FoundFiles(paths.pairs, paths.classes, doubts, ordered)
    alone = [series for series, marked in found.series if not marked]
    if alone:
        doubts.append(
            with_example(
                f"{len(alone)} series have no segmentation or structure set and are left out",
                alone[0].path.relative_to(folder),
            )
        )
    kept = _of_one_kind([series for series, _ in pairs], doubts)
    masks = dict(pairs)
    doubts.append("series are paired with what is marked on them by what that refers to")
    return FoundFiles([(each.path, masks[each]) for each in kept], None, doubts, tuple(kept))


def _refuse_patients(folder: Path, series: Sequence[FoundSeries], classes: Sequence[str]) -> None:
    """Refuse folders of which each has a patient of its own: they are no classes, and name people.

    Raises:
        ConsiliumError: they are such.
    """
    own: dict[str, set[str]] = defaultdict(set)
    for each, name in zip(series, classes, strict=True):
        own[name].add(each.patient)
    patients = [next(iter(found)) for found in own.values() if len(found) == 1]
    if "" not in patients and len(set(patients)) == len(own):
        raise ConsiliumError(
            f"The folder {folder} holds {len(series)} images, and nothing says what is to be "
            f"learned of them: {MARKED[0]}, and each folder has series of one patient, and no "
            f"other folder has any of the same, so that folders are patients and no classes. "
            f"{MARKED[1]}."
        )


def _of_one_kind(series: list[FoundSeries], doubts: list[str]) -> list[FoundSeries]:
    """The series of the commonest modality, volumes or pictures; the others are left out."""
    kinds = Counter((each.modality, each.flat) for each in series)
    (kept, _), *others = kinds.most_common()
    if others:
        listed = ", ".join(f"{modality} ({count})" for (modality, _), count in others)
        doubts.append(f"series of {kept[0]} are taken, and those of {listed} are left out")
    return [each for each in series if (each.modality, each.flat) == kept]


# What a folder lacks of which nothing can be learned.
MASKED = (
    "no masks of their names",
    "Put masks into `masks/` under the names of their images, or write a cases.csv with the "
    "columns patient, image and label",
)
MARKED = (
    "no segmentation (SEG) and no structure set (RTSTRUCT) of them",
    "Put these beside them, or write a cases.csv with the columns patient, image (the folder of a "
    "series) and label",
)


def _with_classes(
    folder: Path, images: list[Path], doubts: list[str], lacks: tuple[str, str] = MASKED
) -> FoundFiles:
    ordered = sorted(images)
    classes = [path.parent.name for path in ordered]
    counts = Counter(classes)
    inside = all(path.parent != folder for path in ordered)
    if len(counts) < 2 or not inside or min(counts.values()) < 2:
        raise ConsiliumError(
            f"The folder {folder} holds {len(images)} images, and nothing says what is to be "
            f"learned of them: {lacks[0]}, and no folder for each class. {lacks[1]}."
        )
    return FoundFiles([(path, None) for path in ordered], classes, doubts)
