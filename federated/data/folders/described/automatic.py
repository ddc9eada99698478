"""What ``auto`` in a description becomes: spacing and shape that follow from the images' headers.

The spacing is the median of the cases' along each axis (Isensee et al. 2021, nnU-Net, section
"target spacing", without its rule for anisotropic images). Where all cases are small they pass
whole, in a shape that holds the largest; otherwise a network sees patches. All cases count, of
every site and split: of a private set, state the numbers instead.
"""

from collections.abc import Sequence
from math import ceil, prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from federated.data.folders.described.sizes import (
    LONGEST_PICTURE,
    LONGEST_VOLUME,
    MOST_VOXELS,
)
from federated.data.folders.dicom.rules import STRICT, DicomRules
from federated.data.folders.families.base import CaseFiles
from federated.data.folders.geometry import CaseGrid
from federated.data.folders.nifti_file import is_nifti, read_grid
from federated.data.folders.picture_file import PICTURES, upright_shape
from federated.data.folders.read_volume import read_volume
from federated.data.folders.volume import LARGEST, SMALLEST
from federated.errors import ConsiliumError
from federated.settings.description import MULTIPLE, Description

Grids = npt.NDArray[np.float64]


def case_grid(path: Path, dicom: DicomRules = STRICT) -> CaseGrid:
    """The grid of an image, by its header alone where that tells; ``dicom`` is how DICOM is read.

    Raises:
        ConsiliumError: the file cannot be read.
    """
    if path.name.lower().endswith(PICTURES) and not path.is_dir():
        return CaseGrid.of(upright_shape(path), None)
    if not is_nifti(path):
        volume = read_volume(path, dicom)
        return CaseGrid.of(volume.spatial, volume.affine)
    shape, affine = read_grid(path)
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    if not SMALLEST <= sides.min() <= sides.max() <= LARGEST:
        read_volume(path)  # which says why no volume can be so
    return CaseGrid.of(shape, affine)


def settle(description: Description, cases: Sequence[CaseFiles]) -> Description:
    """The description with numbers in place of ``auto``, from the first image of each case.

    Raises:
        ConsiliumError: there is no case, a file cannot be read, or an image has not the axes that
            ``kind`` says.
    """
    if description.settled:
        return description
    grids = [case_grid(case.images[0], case.dicom) for case in cases]
    wrong = [
        case.images[0]
        for case, grid in zip(cases, grids, strict=True)
        if len(grid.shape) != description.dims
    ]
    if wrong or not grids:
        said = f"{wrong[0]} is none" if wrong else "there is no case"
        raise ConsiliumError(
            f"A description with kind={description.kind} is to take its shape from the images, but "
            f"{said}. Mend kind, or the table, or state shape and spacing as numbers."
        )
    shapes = np.array([grid.shape for grid in grids], np.float64)
    spacings = np.array([grid.spacing for grid in grids], np.float64)
    if description.kind == "pictures":
        return description.model_copy(update=_of_pictures(description, shapes))
    return description.model_copy(update=_of_volumes(description, shapes, spacings))


def _of_pictures(description: Description, shapes: Grids) -> dict[str, object]:
    """Pictures pass whole, resized to about the median's form."""
    shape = description.shape
    if shape == "auto":
        median = np.median(shapes, axis=0)
        scale = min(1.0, LONGEST_PICTURE / float(median.max()))
        shape = tuple(max(MULTIPLE, MULTIPLE * round(side * scale / MULTIPLE)) for side in median)
    return {"shape": shape, "whole": description.whole is not False}


def _of_volumes(description: Description, shapes: Grids, spacings: Grids) -> dict[str, object]:
    if description.spacing == "auto":
        spacing = tuple(float(f"{side:.4g}") for side in np.median(spacings, axis=0))
        if not description.segments:
            # A class needs no finer voxels than a whole image of that many has.
            reach = float(np.median(shapes * spacings, axis=0).max())
            spacing = tuple(max(side, float(f"{reach / LONGEST_VOLUME:.4g}")) for side in spacing)
    else:
        spacing = description.spacing
    sides = np.ceil(shapes * spacings / np.array(spacing) - 1e-3).astype(int)
    if description.shape != "auto":
        return {
            "spacing": spacing,
            "shape": description.shape,
            "whole": description.passes_whole,
        }
    largest = tuple(MULTIPLE * ceil(side / MULTIPLE) for side in sides.max(axis=0))
    small = prod(largest) <= MOST_VOXELS
    whole = (small or not description.segments) if description.whole is None else description.whole
    if whole:
        return {"spacing": spacing, "shape": _at_most(largest), "whole": True}
    median = [max(MULTIPLE, MULTIPLE * round(side / MULTIPLE)) for side in np.median(sides, axis=0)]
    while prod(median) > MOST_VOXELS:
        median[int(np.argmax(median))] -= MULTIPLE
    return {"spacing": spacing, "shape": _at_most(median), "whole": False}


def _at_most(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape within what a description can have."""
    return tuple(min(side, 1024) for side in shape)
