"""Images and masks from NIfTI and picture files, as arrays with an affine."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from PIL import Image, UnidentifiedImageError

from federated.errors import ConsiliumError

NIFTI = (".nii", ".nii.gz")


@dataclass(frozen=True)
class Volume:
    """``values`` ``(channels, *spatial)``, and ``affine`` from voxels to mm; ``None`` of a picture.

    Pictures are ``(channels, height, width)``, with the values 0 to 255 of each colour.
    """

    values: npt.NDArray[Any]
    affine: npt.NDArray[np.float64] | None

    @property
    def spatial(self) -> tuple[int, ...]:
        """The shape without the channels."""
        return tuple(self.values.shape[1:])


def read_volume(path: Path) -> Volume:
    """Read an image: float32 for NIfTI, uint8 with one or three channels for a picture.

    Raises:
        ConsiliumError: the file is missing, damaged or of another kind.
    """
    return _nifti(path, np.float32) if _is_nifti(path) else _picture(path, "RGB")


def read_mask(path: Path) -> Volume:
    """Read a mask, one channel of integers; a picture's values are its grey values.

    Raises:
        ConsiliumError: as :func:`read_volume`, or a value that is no integer.
    """
    if not _is_nifti(path):
        return _picture(path, "L")
    volume = _nifti(path, np.float64)
    labels = np.rint(volume.values)
    if not np.array_equal(labels, volume.values):
        raise ConsiliumError(
            f"The mask {path} has values that are no whole numbers, for example "
            f"{volume.values[labels != volume.values][0]:g}. It has to hold a label in each voxel; "
            "probabilities and resampled masks have to be rounded first."
        )
    return Volume(labels.astype(np.int32), volume.affine)


def _is_nifti(path: Path) -> bool:
    return path.name.endswith(NIFTI)


def _nifti(path: Path, dtype: type[np.floating[Any]]) -> Volume:
    try:
        image: Any = nibabel.load(path)
        values = np.asarray(image.dataobj, dtype=dtype)
        affine = np.asarray(image.affine, np.float64)
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise _unreadable(path, error) from error
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise ConsiliumError(
            f"The file {path} has {values.ndim} axes, {'x'.join(map(str, values.shape))}; a volume "
            "has three. Save each modality or time point as a file of its own."
        )
    return Volume(values[np.newaxis], affine)


def _picture(path: Path, mode: str) -> Volume:
    try:
        with Image.open(path) as picture:
            values = np.asarray(picture.convert(mode))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise _unreadable(path, error) from error
    channels_first = np.moveaxis(values, -1, 0) if values.ndim == 3 else values[np.newaxis]
    return Volume(channels_first, None)


def _unreadable(path: Path, error: Exception) -> ConsiliumError:
    reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
    return ConsiliumError(
        f"The file {path} cannot be read ({reason}). It is missing, damaged or of another kind; "
        "put a whole copy there."
    )
