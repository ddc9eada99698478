"""Structures that are marked on a series, and the mask of labels that is made of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from federated.data.folders.dicom.objects import DicomObject, objects_in
from federated.data.folders.dicom.quiet import quiet
from federated.data.folders.dicom.rules import STRICT, DicomRules
from federated.data.folders.dicom.segmentation_object import segments_of
from federated.data.folders.dicom.source import SourceSeries
from federated.data.folders.dicom.structure import Structure
from federated.data.folders.dicom.structure_set import structures_of
from federated.data.folders.volume import Volume
from federated.errors import ConsiliumError

# How many structures a message names.
NAMED = 40


@dataclass(frozen=True)
class _Chosen:
    structure: Structure
    label: int


@quiet()
def read_structures(path: Path, image: Volume, rules: DicomRules = STRICT) -> Volume:
    """Read a DICOM-SEG or RTSTRUCT as a mask ``(1, *spatial)`` of int64 on an image's grid.

    ``path`` is the file, or a folder with that file alone. Every frame and every contour is placed
    by its position in the patient; references to slices play no part but for the series that a
    segmentation says it is of.

    Raises:
        ConsiliumError: the image is no DICOM series; the file is neither, is damaged, is of another
            series or frame of reference, or marks what is outside of the image or between its
            slices; a structure that the rules name is not there, or has no closed contour; or
            structures of different labels overlap and the rules do not say which comes first.
    """
    found = _marking(path)
    source = image.frame
    if not isinstance(source, SourceSeries):
        raise ConsiliumError(
            f"The mask {path} is DICOM, which marks a series of DICOM images, and the image "
            f"{image.name} is none. Give the series that it was drawn on, or convert both."
        )
    is_segmentation = found.text("Modality") == "SEG"
    structures = (segments_of if is_segmentation else structures_of)(str(path), found)
    chosen = _chosen(str(path), structures, rules, source, is_segmentation=is_segmentation)
    values = _combined(str(path), chosen, source, rules)
    return Volume(values[np.newaxis], image.affine, str(path), source)


@quiet()
def structures_in(path: Path) -> list[Structure]:
    """What a DICOM-SEG or RTSTRUCT marks, by its numbers; nothing is drawn.

    Raises:
        ConsiliumError: the file is neither, or is damaged.
    """
    found = _marking(path)
    read = segments_of if found.text("Modality") == "SEG" else structures_of
    return read(str(path), found)


def _marking(path: Path) -> DicomObject:
    marking = [found for found in objects_in(path) if found.text("Modality") in ("SEG", "RTSTRUCT")]
    if len(marking) == 1:
        return marking[0]
    if not marking:
        raise ConsiliumError(
            f"The mask {path} is DICOM, but no segmentation (SEG) and no structure set (RTSTRUCT). "
            "Name the file of one."
        )
    listed = ", ".join(found.name for found in marking[:NAMED])
    raise ConsiliumError(
        f"The folder {path} holds {len(marking)} segmentations or structure sets: {listed}. Name "
        "the file that is meant."
    )


def _chosen(
    path: str,
    structures: Sequence[Structure],
    rules: DicomRules,
    source: SourceSeries,
    *,
    is_segmentation: bool,
) -> list[_Chosen]:
    """The structures that are meant and their labels, those that come first before others."""
    there = ", ".join(structure.described for structure in structures[:NAMED]) or "none"
    if not rules.structures:
        if is_segmentation:
            return [_Chosen(structure, structure.number) for structure in structures]
        if len(structures) != 1:
            raise ConsiliumError(
                f"The structure set {path} has {len(structures)} structures with contours, and "
                f"nothing says which are meant: {there}. Name those that are, with their labels "
                "(`structures`)."
            )
        return [_Chosen(structures[0], 1)]
    chosen = [
        _Chosen(structure, label)
        for wanted, label in rules.structures
        for structure in structures
        if structure.is_named(wanted)
    ]
    if not chosen:
        wanted = ", ".join(repr(name) for name, _ in rules.structures)
        raise ConsiliumError(
            f"The mask {path} has none of the structures {wanted}; it has {there}. Name those that "
            f"are meant of the image {source.name} as they are named there (`structures`)."
        )
    return chosen


def _combined(
    path: str, chosen: Sequence[_Chosen], source: SourceSeries, rules: DicomRules
) -> npt.NDArray[np.int64]:
    """The labels of the voxels; a voxel of two labels has the first one, where rules allow it."""
    drawn = [source.on_volume(one.structure.draw(source)) for one in chosen]
    clashes = []
    for (first, one), (second, other) in combinations(zip(drawn, chosen, strict=True), 2):
        common = int((first & second).sum()) if one.label != other.label else 0
        if common:
            names = f"{one.structure.described} and {other.structure.described}"
            clashes.append(f"{names} in {common} voxels")
    if clashes and rules.overlap == "refuse":
        raise ConsiliumError(
            f"Structures of {path} overlap, and a voxel has one label: {'; '.join(clashes)}. Name "
            "those that are meant (`structures`), or let the first of them have what they share "
            "(overlap=first)."
        )
    values: npt.NDArray[np.int64] = np.zeros(drawn[0].shape, np.int64)
    for mask, one in reversed(list(zip(drawn, chosen, strict=True))):
        values[mask] = one.label
    return values
