"""An image or a mask as an array with its place in the world, checked when it is made.

Every way into the library (training, validation, prediction, evaluation, joining and serving) makes
a :class:`Volume` of what it is given, so what is checked here is checked everywhere, in the same
words.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header

from federated.data.folders.dicom.source import SourceSeries
from federated.errors import ConsiliumError

# Sides of a voxel in mm; anything outside comes from a wrong unit or a damaged header.
SMALLEST, LARGEST = 0.01, 100.0
# The least ratio of a voxel's volume to the product of its sides; far below it, its axes lie in a
# plane.
LEAST_VOLUME = 1e-3
# Affines of the files of one case may differ by rounding in their headers, by so much of the
# longest side of a voxel, or of 1 mm. Near half a turn a quaternion in float32 is off by 1.2e-3.
AFFINE_TOLERANCE = 2e-3
FLOAT32 = np.dtype(np.float32)
EXACT = np.dtype(np.float64)
MOST_EXACT = 2**53
LARGEST_FLOAT32 = float(np.finfo(FLOAT32).max)

# What a result is written with, so that it lies as its image does: NIfTI's header, the EXIF
# orientation that a picture says it has, 1 to 8, or the slices of a DICOM series.
Frame = Nifti1Header | int | SourceSeries


class NotFiniteError(ConsiliumError):
    """An image has ``voxels`` values that are not finite numbers."""

    def __init__(self, message: str, voxels: int) -> None:
        super().__init__(message)
        self.voxels = voxels


@dataclass(frozen=True, eq=False)
class Volume:
    """An image or a mask ``(channels, *spatial)``, with its place in the world.

    ``affine`` ``(4, 4)`` goes from voxels to mm; it is ``None`` for a picture. Pictures are
    ``(channels, height, width)``, upright. ``name`` is that of the file, for messages, and
    ``frame`` is what a mask of the image is written with.

    Raises:
        NotFiniteError: values are NaN, infinite, or too large for 32 bits.
        ConsiliumError: there are no values, they are not numbers, or they are whole numbers above
            2^53; or ``affine`` is singular, has voxels outside of 0.01 to 100 mm or a last row that
            is not 0 0 0 1.
    """

    values: npt.NDArray[Any]
    affine: npt.NDArray[np.float64] | None
    name: str = "of an array"
    frame: Frame | None = None

    def __post_init__(self) -> None:
        check_numbers(self.values, self.name)
        if self.affine is not None:
            _check_affine(self.affine, self.name)

    @property
    def spatial(self) -> tuple[int, ...]:
        """The shape without the channels."""
        return tuple(self.values.shape[1:])


def check_numbers(values: npt.NDArray[Any], name: str, leading: int = 1) -> None:
    """Refuse an array with anything but finite numbers.

    Args:
        values: the array.
        name: the name of the image, for messages.
        leading: how many axes, such as channels, come before those that say where a voxel is.

    Raises:
        NotFiniteError: there are other values; the message says how many voxels, and where the
            first one is.
        ConsiliumError: there are no values, they are not of a numeric type, or they are whole
            numbers above 2^53.
    """
    if values.dtype.kind not in "buif":
        raise ConsiliumError(
            f"The image {name} holds values of the type {values.dtype}, which are no intensities. "
            "Save it with one real number a voxel."
        )
    if not values.size:
        raise ConsiliumError(f"The image {name} is empty: its shape is {_times(values.shape)}.")
    if values.dtype.kind != "f":
        check_digits(values, name)
        return
    wrong = ~np.isfinite(values)
    if values.dtype.itemsize > FLOAT32.itemsize:
        wrong |= np.abs(values) > LARGEST_FLOAT32
    voxels = int(wrong.sum())
    if voxels:
        first = tuple(int(index) for index in np.argwhere(wrong)[0][leading:])
        raise NotFiniteError(
            f"The image {name} has {voxels} of {values.size} voxels that are NaN, infinite or too "
            f"large for 32 bits, the first at {first} counted from 0. Every voxel has to be a "
            "number: mend the file, or set these voxels to the value of the background.",
            voxels,
        )


def check_digits(values: npt.NDArray[Any], name: str) -> None:
    """Refuse whole numbers whose last digits a real number of 64 bits would lose.

    Raises:
        ConsiliumError: there are such numbers.
    """
    if values.dtype.kind not in "ui" or values.dtype.itemsize < EXACT.itemsize:
        return
    highest, lowest = int(values.max()), int(values.min())
    if max(highest, -lowest) > MOST_EXACT:
        raise ConsiliumError(
            f"The image {name} holds whole numbers from {lowest} to {highest}; only those up to "
            f"{MOST_EXACT} (2^53) can be used without rounding. Scale them, or save it with a "
            "smaller type."
        )


def affine_gap(volumes: Iterable[Volume]) -> float:
    """The largest difference in mm of volumes' affines from the first one; 0 if it is rounding.

    A header that holds a rotation as a quaternion and one that holds it as a matrix round it
    differently, the more so the longer a voxel is.
    """
    affines = [volume.affine for volume in volumes if volume.affine is not None]
    if not affines:
        return 0.0
    first = affines[0]
    longest = max(float(np.linalg.norm(affine[:3, :3], axis=0).max()) for affine in affines)
    gap = max(float(np.abs(affine - first).max()) for affine in affines)
    return gap if gap > AFFINE_TOLERANCE * max(longest, 1.0) else 0.0


def _check_affine(affine: npt.NDArray[np.float64], name: str) -> None:
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ConsiliumError(
            f"The affine of the image {name} is {affine.tolist()}, which is no 4x4 matrix of "
            "numbers. Mend the file's header."
        )
    if affine[3].tolist() != [0, 0, 0, 1]:
        raise ConsiliumError(
            f"The last row of the affine of the image {name} is {affine[3].tolist()}; that of a "
            "map from voxels to mm is 0 0 0 1. Mend the affine; it may be transposed."
        )
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    if sides.min() < SMALLEST or sides.max() > LARGEST:
        raise ConsiliumError(
            f"The header of the image {name} says that a voxel is "
            f"{' x '.join(f'{side:.6g}' for side in sides)} mm large; sides between {SMALLEST:g} "
            f"and {LARGEST:g} mm are possible. Mend its affine (sform or qform), or its unit "
            "(xyzt_units) where the numbers are meant in another."
        )
    volume = abs(float(np.linalg.det(affine[:3, :3]))) / float(sides.prod())
    if volume < LEAST_VOLUME:
        raise ConsiliumError(
            f"The affine of the image {name} is singular: its three axes lie in a plane "
            f"({affine[:3, :3].tolist()}). Mend the file's header (sform or qform)."
        )


def _times(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))
