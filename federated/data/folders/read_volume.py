"""Images and masks from NIfTI, DICOM and picture files, as arrays with an affine."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from federated.data.folders.dicom.rules import STRICT, DicomRules
from federated.data.folders.dicom.series_path import split_series
from federated.data.folders.nifti_file import NIFTI, image_of, is_nifti, read_nifti
from federated.data.folders.picture_file import PICTURES, read_picture
from federated.data.folders.volume import NotFiniteError, Volume, check_numbers
from federated.errors import ConsiliumError

__all__ = ["NIFTI", "NotFiniteError", "Volume", "is_dicom", "read_mask", "read_volume"]

# How far from a whole number a label may be that was written as a real number.
ROUNDING = 1e-4
# With a coarser slope neighbouring labels could not be told apart.
COARSEST_SLOPE = 0.5
MOST_LABEL = np.iinfo(np.int32).max
COLOURS = 3


def is_dicom(path: Path) -> bool:
    """Whether a file, or something in a folder, is DICOM, by its content."""
    if is_nifti(path) or path.suffix.lower() in PICTURES:
        return False
    # Importing what reads DICOM takes a moment.
    from federated.data.folders.dicom.objects import is_dicom as begins_so

    return begins_so(split_series(path)[0])


def read_volume(path: Path, dicom: DicomRules = STRICT) -> Volume:
    """Read an image; ``dicom`` says how a DICOM series is read, in a folder or a file.

    NIfTI gives float32 ``(1, x, y, z)``, or float64 where float32 would lose digits, and its affine
    in mm whatever its unit. A picture gives ``(3, height, width)``, upright and with the range that
    it has: uint8, 16 bits, 32 bits or real numbers; a grey one has three equal channels. For DICOM
    see :func:`.dicom.series.read_series`; a projection is a picture, and ``FOLDER#SERIES`` names
    one series of several.

    Raises:
        ConsiliumError: the file is missing, damaged or of another kind, cannot be read without
            changing its values, or fails the checks of :class:`Volume`.
    """
    if is_nifti(path):
        return image_of(path, read_nifti(path))
    if is_dicom(path):
        from federated.data.folders.dicom.series import read_series

        place, named = split_series(path)
        return _coloured(read_series(place, replace(dicom, series=named) if named else dicom))
    picture = read_picture(path)
    check_numbers(picture.values, str(path))  # before voxels are counted three times
    return _coloured(Volume(picture.values, None, str(path), picture.orientation))


def read_mask(path: Path, image: Volume | None = None, dicom: DicomRules = STRICT) -> Volume:
    """Read a mask ``(1, *spatial)`` of int64; a picture's values are its grey values.

    A DICOM-SEG or RTSTRUCT is drawn on the slices of its ``image``, with the labels that ``dicom``
    has for its structures; see :func:`.dicom.structures.read_structures`.

    Raises:
        ConsiliumError: as :func:`read_volume` and ``read_structures``; or a value is not a whole
            number to within half of the slope with which it was stored; or a picture's colours
            differ, or its compression has changed its values.
    """
    if is_nifti(path):
        array = read_nifti(path)
        slope = abs(array.slope or 0.0)
        # A little more than half: the slope is rounded too.
        half = 0.501 * slope if slope < COARSEST_SLOPE else 0.0
        volume = Volume(array.values[np.newaxis], array.affine, str(path), array.header)
        labels = _whole(path, volume.values, max(half, ROUNDING))
        return Volume(labels, array.affine, str(path), array.header)
    if is_dicom(path):
        from federated.data.folders.dicom.structures import read_structures

        if image is None:
            raise ConsiliumError(
                f"The mask {path} is DICOM, which says what it marks by positions in the patient. "
                "Give the series that it was drawn on with it."
            )
        return read_structures(path, image, dicom)
    picture = read_picture(path)
    check_numbers(picture.values, str(path))  # NaN is equal to nothing, and would pass for a colour
    grey = picture.values[:1]
    if (picture.values != grey).any():
        raise ConsiliumError(
            f"The mask {path} is coloured, so its labels cannot be told from its grey values. Save "
            "it grey, with a label or 0 and 255 in each pixel."
        )
    if picture.lossy and not np.isin(grey, (0, 255)).all():
        raise ConsiliumError(
            f"The mask {path} is compressed as JPEG, which has changed its values: it has "
            f"{len(np.unique(grey))} different ones. Save the mask as PNG from where it was made."
        )
    volume = Volume(grey, None, str(path), picture.orientation)
    return Volume(_whole(path, volume.values, ROUNDING), None, str(path), picture.orientation)


def _coloured(volume: Volume) -> Volume:
    """A picture with three channels, which are equal where it is grey; a volume as it is."""
    if volume.affine is not None or volume.values.shape[0] == COLOURS:
        return volume
    return Volume(np.repeat(volume.values, COLOURS, axis=0), None, volume.name, volume.frame)


def _whole(path: Path, values: npt.NDArray[Any], tolerance: float) -> npt.NDArray[np.int64]:
    if values.dtype.kind in "bui":
        _refuse_labels(path, values, values > MOST_LABEL)
        return np.asarray(values, np.int64)
    labels = np.rint(values)
    wrong = (np.abs(labels - values) > tolerance) | (np.abs(labels) > MOST_LABEL)
    _refuse_labels(path, values, wrong)
    return np.asarray(labels, np.int64)


def _refuse_labels(path: Path, values: npt.NDArray[Any], wrong: npt.NDArray[np.bool_]) -> None:
    if not wrong.any():
        return
    first = tuple(int(index) for index in np.argwhere(wrong)[0])
    raise ConsiliumError(
        f"The mask {path} has {int(wrong.sum())} values that are no labels, for example "
        f"{values[first].item()!r} at {first[1:]} counted from 0. It has to hold a whole number in "
        "each voxel; probabilities and resampled masks have to be rounded first."
    )
