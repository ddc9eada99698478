"""nnU-Net's raw folders (version 2) and tasks of the Decathlon, as they are.

Both have a ``dataset.json``. nnU-Net's names channels and the ending of files, and the cases are
``imagesTr/NAME_0000.nii.gz`` with ``labelsTr/NAME.nii.gz``; the Decathlon's lists them. Images for
testing have no masks there and are left alone.

Isensee et al. 2021, nnU-Net; Antonelli et al. 2022, The Medical Segmentation Decathlon.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from federated.data.folders.described.cell_path import path_fault, path_of
from federated.data.folders.families.base import CaseFiles, Listing, Source, pair
from federated.data.folders.families.file_names import (
    PICTURES,
    VOLUMES,
    entries,
    left_over,
    named,
    same_text,
    split_ending,
)
from federated.errors import ConsiliumError, why_unreadable

DATASET_JSON = "dataset.json"
# What may lie beside the cases, also what nnU-Net and its users put there.
BESIDE = (
    *(DATASET_JSON, "dataset.yaml", "imagests", "labelsts", "splits_final.json"),
    *("dataset_fingerprint.json", "*plans*.json", "*.py", "*.csv"),
)
NAMED = 8


def read_dataset_json(folder: Path) -> dict[str, Any]:
    """The keys of a description that a folder's ``dataset.json`` gives.

    Raises:
        ConsiliumError: it cannot be read, is neither nnU-Net's nor the Decathlon's, or describes
            what cannot be learned here.
    """
    path = folder / DATASET_JSON
    value = _read(path)
    if "channel_names" in value or "file_ending" in value:
        return _of_nnunet(path, value)
    if "training" in value and "modality" in value:
        return _of_decathlon(path, value)
    raise ConsiliumError(
        f"The file {path} has neither `channel_names` and `file_ending`, as nnU-Net's (version 2) "
        "have, nor `modality` and `training`, as the Decathlon's have. A folder of nnU-Net 1 is "
        "brought to version 2 by nnUNetv2_convert_old_nnUNet_dataset; or write a cases.csv and a "
        "dataset.yaml, which `consilium data init` proposes."
    )


def find_nnunet(folder: Path) -> Listing:
    """The cases of nnU-Net's raw folder; each name is another patient.

    Raises:
        ConsiliumError: as :func:`read_dataset_json` and :func:`.base.pair`.
    """
    value = _read(folder / DATASET_JSON)
    endings = (str(value.get("file_ending", "")).lower(),)
    channels = range(len(value["channel_names"]))
    found = entries(folder / "imagesTr")
    images = [named(found, endings, end=f"_{number:04d}") for number in channels]
    if endings[0] in PICTURES:
        images = images[:1]  # all colours are in one file
    masks = named(entries(folder / "labelsTr"), endings)
    return pair(folder, images, masks, Source, BESIDE)


def find_decathlon(folder: Path) -> Listing:
    """The cases that a task's ``dataset.json`` lists; each is another patient.

    Raises:
        ConsiliumError: a file of the list is not there, or its entry is not clear; the message
            names all of them.
    """
    path = folder / DATASET_JSON
    cases, faults = [], []
    for number, entry in enumerate(_read(path).get("training") or ()):
        files: list[Path] = []
        for key in ("image", "label"):
            cell = str(entry.get(key, "")) if isinstance(entry, Mapping) else ""
            said = path_fault(cell) if cell else "is not stated"
            file = None if said else path_of(folder, cell)
            if file is None:
                why = said or "is not there"
                faults.append(f"training[{number}].{key}: {cell!r:.200} {why}")
            else:
                files.append(file)
        if len(files) == 2:
            name = split_ending(same_text(files[0].name))[0]
            cases.append(CaseFiles(name, (files[0],), files[1], name))
    names = [case.name for case in cases]
    faults += [f"{name} is there twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    if faults:
        more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        raise ConsiliumError(
            f"The list `training` of {path} cannot be used: {'; '.join(faults[:NAMED])}{more}. "
            "Mend it, or put the files there."
        )
    known = [path for case in cases for path in case.paths]
    unmatched = left_over(folder, known, BESIDE)
    return Listing(tuple(sorted(cases, key=lambda case: case.name)), tuple(sorted(unmatched)))


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ConsiliumError(
            f"The file {path} is not JSON: {error.msg} (line {error.lineno}, column "
            f"{error.colno}). Mend it there."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConsiliumError(
            f"The file {path} cannot be read: {why_unreadable(error)}. Put a whole copy there."
        ) from error
    if not isinstance(value, dict):
        raise ConsiliumError(f"The file {path} holds no keys and values. Put a whole copy there.")
    return value


def _of_nnunet(path: Path, value: Mapping[str, Any]) -> dict[str, Any]:
    ending = str(value.get("file_ending", "")).lower()
    channels = _numbered(path, value, "channel_names")
    if ending not in (*VOLUMES, *PICTURES):
        raise ConsiliumError(
            f"The file {path} says that files end in {ending!r:.40}; "
            f"{', '.join((*VOLUMES, *PICTURES))} can be read. Convert them, and say so there."
        )
    pictures = ending in PICTURES
    if pictures and len(channels) not in (1, 3):
        raise ConsiliumError(
            f"The file {path} names {len(channels)} channels of pictures; grey ones have one, and "
            "colours three, in one file. Describe such a set by a cases.csv and a dataset.yaml."
        )
    labels = value.get("labels")
    if not isinstance(labels, Mapping) or any(
        type(number) is not int for number in labels.values()
    ):
        raise ConsiliumError(
            f"The file {path} has labels that are not one whole number each, as nnU-Net's regions "
            "have; they overlap, and a voxel has one class here. Give each class its own value."
        )
    if "ignore" in labels:
        raise ConsiliumError(
            f"The file {path} has the label `ignore`, of voxels that nobody has annotated, which "
            "cannot be left out of the loss here. Leave these cases out, or annotate them whole."
        )
    return _common(value, labels) | {
        "layout": "nnunet",
        "kind": "pictures" if pictures else "volumes",
        "modalities": ("picture",) if pictures else channels,
    }


def _of_decathlon(path: Path, value: Mapping[str, Any]) -> dict[str, Any]:
    modalities = _numbered(path, value, "modality")
    if len(modalities) > 1:
        raise ConsiliumError(
            f"The file {path} names the modalities {', '.join(modalities)}, which the Decathlon "
            "keeps in one file of four axes. Give each a file of its own: "
            "nnUNetv2_convert_MSD_dataset makes a folder that can be read as it is."
        )
    labels = value.get("labels")
    try:
        assert isinstance(labels, Mapping)
        by_name = {str(name): int(number) for number, name in labels.items()}
        assert len(by_name) == len(labels)
    except (AssertionError, ValueError) as error:
        raise ConsiliumError(
            f"The file {path} has labels that are not a name for each number, each once, as "
            '{"0": "background", "1": "tumour"}. Mend them there.'
        ) from error
    return _common(value, by_name) | {
        "layout": "decathlon",
        "kind": "volumes",
        "modalities": modalities,
    }


def _common(value: Mapping[str, Any], labels: Mapping[str, int]) -> dict[str, Any]:
    licence = str(value.get("licence") or value.get("license") or "not stated in dataset.json")
    return {
        "task": "segmentation",
        "labels": dict(labels),
        "title": str(value.get("name") or "")[:200],
        "source": str(value.get("reference") or "")[:500],
        "licence": licence[:200],
    }


def _numbered(path: Path, value: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The names of ``{"0": …, "1": …}`` in the order of their numbers, from 0 on."""
    given = value.get(key)
    if not isinstance(given, Mapping) or set(given) != {str(n) for n in range(len(given))}:
        raise ConsiliumError(
            f"The file {path} needs `{key}` with the numbers from 0 on and a name for each, as "
            '{"0": "T1"}. Mend it there.'
        )
    names = tuple(str(given[str(number)]) for number in range(len(given)))
    if not names or len(set(names)) < len(names):
        raise ConsiliumError(
            f"The file {path} gives no name, or one name twice, under `{key}`. Mend it there."
        )
    return names
