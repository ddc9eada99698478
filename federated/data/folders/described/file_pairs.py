"""Images and what is to be learned of them, in a folder without a table: guessed by names."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

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
    """Images with their masks, or with the classes that their folders name, and what is unsure."""

    pairs: list[tuple[Path, Path | None]]
    classes: list[str] | None
    doubts: list[str]


def found_files(folder: Path) -> FoundFiles:
    """Pair a folder's images with masks of their names, or else with the names of their folders.

    Raises:
        ConsiliumError: there is no image, or neither masks nor folders of classes.
    """
    files = [path for _, _, found in walk(folder) for path in found]
    volumes = [path for path in files if split_ending(path.name, VOLUMES)[1]]
    pictures = [path for path in files if split_ending(path.name, PICTURES)[1]]
    data = volumes or pictures
    doubts = []
    if volumes and pictures:
        doubts.append(f"{len(pictures)} pictures beside the volumes are left out")
    series = {path.parent for path in files if path.name.lower().endswith(DICOM)}
    if series:
        doubts.append(
            f"{len(series)} folders hold DICOM files, which are left out: a cell of the column "
            "image may name the folder of a series, if this version reads DICOM"
        )
    if not data:
        raise ConsiliumError(
            f"The folder {folder} holds no NIfTI file and no picture. Name the folder of the data "
            "set, or write a cases.csv that names the files."
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
        doubts.append(f"{len(alone)} images have no mask and are left out, as {alone[0]}")
    if several:
        doubts.append(f"{len(several)} images have several masks and are left out: {several[0]}")
    if masks:
        doubts.append(f"{len(masks)} masks have no image and are left out, as {next(iter(masks))}")
    doubts.append("images and masks are paired by their names")
    return FoundFiles(pairs, None, doubts)


def _with_classes(folder: Path, images: list[Path], doubts: list[str]) -> FoundFiles:
    ordered = sorted(images)
    classes = [path.parent.name for path in ordered]
    counts = Counter(classes)
    inside = all(path.parent != folder for path in ordered)
    if len(counts) < 2 or not inside or min(counts.values()) < 2:
        raise ConsiliumError(
            f"The folder {folder} holds {len(images)} images, and nothing says what is to be "
            "learned of them: no masks of their names, and no folder for each class. Put masks "
            "into `masks/` under the names of their images, or write a cases.csv with the columns "
            "patient, image and label."
        )
    return FoundFiles([(path, None) for path in ordered], classes, doubts)
