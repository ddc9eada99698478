"""What DICOM says of a set before anybody has described it: structures that may be labels, and CT.

Names of structures are those of the files, and say what was drawn.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from federated.data.folders.described.mask_values import AIR, some_of, spread, window_of
from federated.data.folders.dicom.frames import frames_of
from federated.data.folders.dicom.objects import DicomObject, objects_in
from federated.data.folders.dicom.quiet import quiet
from federated.data.folders.dicom.rules import STRICT, DicomRules
from federated.data.folders.dicom.series_path import split_series
from federated.data.folders.dicom.stacks import is_image, one_stack
from federated.data.folders.dicom.structures import structures_in
from federated.data.folders.read_volume import read_mask, read_volume
from federated.errors import ConsiliumError

# So many structures become labels; a person chooses among more.
MOST_STRUCTURES = 30
# So many are named.
NAMED = 12
MODALITIES = {"PT": "PET"}


def structure_labels(masks: Sequence[Path]) -> tuple[dict[str, int], str]:
    """A label from 1 on for each structure that all these files mark, and what is unsure of it.

    Those come first that are in most files. The case of letters makes no difference.

    Raises:
        ConsiliumError: a file cannot be read, or none marks anything.
    """
    counts: Counter[str] = Counter()
    written: dict[str, str] = {}
    for path in masks:
        names = [each.name.strip() or str(each.number) for each in structures_in(path)]
        for name in {name.casefold(): name for name in names}.values():
            counts[name.casefold()] += 1
            written.setdefault(name.casefold(), name)
    if not counts:
        raise ConsiliumError(
            f"None of the {len(masks)} segmentations and structure sets marks anything, as "
            f"{masks[0]}. Name files in which something is drawn."
        )
    ordered = [key for key, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    listed = ", ".join(f"{written[key]} ({counts[key]})" for key in ordered[:NAMED])
    more = f" and {len(ordered) - NAMED} others" if len(ordered) > NAMED else ""
    left = ordered[MOST_STRUCTURES:]
    said = (
        f"what is marked is called {listed}{more} in {len(masks)} files; take out what is not "
        "meant, under dicom.structures and labels"
        + (f" ({len(left)} are left out already)" if left else "")
        + (
            ". One that is spelled in several ways may have one value for all of them"
            if len(ordered) > 1
            else ""
        )
    )
    return {written[key]: place for place, key in enumerate(ordered[:MOST_STRUCTURES], 1)}, said


@quiet()
def kind_of(path: Path) -> tuple[str, bool]:
    """The modality of a series, as ``CT``, and whether it is a picture.

    Raises:
        ConsiliumError: it cannot be read, or has no image.
    """
    place, series = split_series(path)
    objects: Sequence[DicomObject] = objects_in(place)
    if series is not None:
        objects = [frame.found for frame in one_stack(str(place), objects, series).frames]
    for found in objects:
        if is_image(found):
            modality = found.text("Modality")
            return MODALITIES.get(modality, modality), frames_of(found)[0].place is None
    raise ConsiliumError(f"{path} holds no DICOM image. Name the folder of the image series.")


def dicom_window(
    pairs: Sequence[tuple[Path, Path | None]], structures: Sequence[tuple[str, int]]
) -> tuple[list[float], str]:
    """A window for CT from the marked voxels of a sample of series, or all above air.

    A series that cannot be read as it is, as one of a tilted gantry, is passed over: what to do
    about it is for ``dataset.yaml`` to say.

    Raises:
        ConsiliumError: none can be read.
    """
    rules = replace(STRICT, overlap="first", structures=tuple(structures))
    parts, first = [], None
    for image, mask in spread(pairs):
        try:
            parts.append(_marked(image, mask, rules))
        except ConsiliumError as error:
            first = first or error
    if not any(len(part) for part in parts):
        raise first or ConsiliumError(
            f"Nothing in the series is above {AIR} Hounsfield units, as {pairs[0][0]}: they show "
            "air. Name series with a patient in them."
        )
    window = window_of(parts)
    return window, (
        f"the images are CT; the window {window} holds 99 % of the marked voxels of {len(parts)} "
        "cases"
    )


def _marked(image: Path, mask: Path | None, rules: DicomRules) -> npt.NDArray[Any]:
    volume = read_volume(image, rules)
    inside = volume.values > AIR
    if mask is not None:
        inside = read_mask(mask, volume, rules).values != 0
    return some_of(volume.values, inside)
