"""NIfTI-1 and NIfTI-2 files, plain or gzipped: arrays and what their headers say of them.

A file is read in order and to its end: the header, which says how much is to come, then no more
than that, then what is left, so that gzip's checksum is compared. Nothing is taken from a header
before it was compared with the size of the file.
"""

import gzip
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header, data_type_codes
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling

from federated.data.folders.volume import Volume, check_digits
from federated.errors import ConsiliumError, unreadable

NIFTI = (".nii", ".nii.gz")
GZIP = b"\x1f\x8b"
# The kinds of file, by the size of a header, with which a file begins.
KINDS: dict[int, Any] = {348: Nifti1Header, 540: Nifti2Header}
MOST_AXES = 7
# A byte of deflate cannot become more bytes than this.
DEFLATE = 1032
# About eight times the largest CT; float32 takes 4 GiB.
MOST_VOXELS = 2**30
# The millimetres in a unit, by NIfTI's codes of spatial units; without one it is millimetres.
MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
# NIfTI's codes of what the coordinates of a form are; 0 is for none.
FORMS = range(6)
# The fields that say how an image lies, in the file's own units.
GEOMETRY = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units"),
)


@dataclass(frozen=True)
class NiftiArray:
    """The array of a file.

    ``values`` ``(x, y, z)`` are as they are meant; ``slope`` is the one with which they were
    stored, if any. ``affine`` ``(4, 4)`` goes from voxels to mm.
    """

    values: npt.NDArray[Any]
    slope: float | None
    affine: npt.NDArray[np.float64]
    header: Nifti1Header


def is_nifti(path: Path) -> bool:
    """Whether a file is NIfTI, by the ending of its name."""
    return path.name.lower().endswith(NIFTI)


def read_nifti(path: Path) -> NiftiArray:
    """Read a volume; its affine is in mm, whatever unit the file has.

    Raises:
        ConsiliumError: the file is missing, damaged or of another kind, does not have three axes,
            or does not hold real numbers.
    """
    try:
        with _opened(path) as file:
            header = _header(path, file)
            shape, dtype = _shape(path, header), _dtype(path, header)
            raw = _data(path, file, header, prod(shape) * dtype.itemsize)
        stored = np.frombuffer(raw, dtype).reshape(shape, order="F")
        check_digits(stored, str(path))  # before they become real numbers
        slope, intercept = header.get_slope_inter()
        values = apply_read_scaling(stored, slope, intercept)
        affine = np.asarray(header.get_best_affine(), np.float64)
    except ConsiliumError:
        raise
    except Exception as error:  # whatever a decoder makes of damaged bytes
        raise unreadable(path, error) from error
    unit = _unit(path, header)
    affine[:3] *= unit
    if not header["qform_code"] and not header["sform_code"]:
        warnings.warn(
            f"The file {path} does not say how it lies (qform_code and sform_code are 0); its "
            "first axis is taken to go from right to left, as NIfTI's readers do.",
            stacklevel=2,
        )
    return NiftiArray(values, slope, affine, header)


def read_grid(path: Path) -> tuple[tuple[int, ...], npt.NDArray[np.float64]]:
    """A volume's shape and affine in mm, from its header alone.

    Raises:
        ConsiliumError: as :func:`read_nifti`, as far as the header tells.
    """
    try:
        with _opened(path) as file:
            header = _header(path, file)
        affine = np.asarray(header.get_best_affine(), np.float64)
    except ConsiliumError:
        raise
    except Exception as error:  # whatever a decoder makes of damaged bytes
        raise unreadable(path, error) from error
    affine[:3] *= _unit(path, header)
    return _shape(path, header), affine


def image_of(path: Path, array: NiftiArray) -> Volume:
    """The array as an image in float32, or in float64 where float32 would lose digits."""
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = array.values.astype(np.float32)
    exact = np.array_equal(narrow, array.values)
    values = narrow if exact else array.values.astype(np.float64)
    return Volume(values[np.newaxis], array.affine, str(path), array.header)


def nifti_bytes(mask: npt.NDArray[np.uint8 | np.float32], header: Nifti1Header) -> bytes:
    """A file with a mask or a map ``(x, y, z)`` that lies as the image of ``header`` does.

    Codes, units and every number of the geometry are the image's own; scaling and byte order are
    not.
    """
    kind: Any = nibabel.Nifti2Image if isinstance(header, Nifti2Header) else nibabel.Nifti1Image
    image = kind(mask, None)
    for name in GEOMETRY:
        image.header[name] = header[name]
    image.header["pixdim"][:4] = header["pixdim"][:4]
    return cast(bytes, image.to_bytes())


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file's content, unpacked where it is gzip, whatever its name says."""
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
        file.seek(0)
        if not packed:
            yield file
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield cast(BinaryIO, unpacked)


def _header(path: Path, file: BinaryIO) -> Nifti1Header:
    start = file.read(4)
    sizes = {order: struct.unpack(f"{order}i", start.ljust(4))[0] for order in "<>"}
    order = next((order for order, size in sizes.items() if size in KINDS), None)
    if order is None:
        raise ValueError("it does not begin as NIfTI does")
    size = sizes[order]
    kind = KINDS[size]
    block = start + file.read(size - 4)
    if len(block) < size:
        raise EOFError("it ends within its header")
    magic = block[4:8] if kind is Nifti2Header else block[344:348]
    if magic[:2] == b"ni":
        raise ConsiliumError(
            f"The file {path} is one of a pair of a header and an image (.hdr and .img). Save both "
            "as one file, .nii or .nii.gz."
        )
    if magic[:2] != b"n+":
        raise ValueError("it has not NIfTI's mark; it may be Analyze 7.5, which does not say left")
    # nibabel's own check mends what is wrong and tells a log of it: a code that it does not know
    # becomes 0, and a valid affine is gone with it. It also takes the order of bytes from dim[0].
    header: Nifti1Header = kind(block, endianness=order, check=False)
    _check_forms(path, header)
    return header


def _check_forms(path: Path, header: Nifti1Header) -> None:
    """Refuse what leaves open how the image lies."""
    for name in ("sform_code", "qform_code"):
        code = int(header[name])
        if code not in FORMS:
            raise ConsiliumError(
                f"The header of the file {path} has the {name} {code}; NIfTI knows 0 to "
                f"{FORMS[-1]}, 0 where there is no such form. How the image lies cannot be told. "
                "Mend the header."
            )
    by_qform = header["qform_code"] and not header["sform_code"]
    mirror = float(header["pixdim"][0])
    if by_qform and mirror not in (-1, 0, 1):
        raise ConsiliumError(
            f"The header of the file {path} has pixdim[0] = {mirror:g}, which says whether the "
            "third axis is mirrored: -1 if it is, else 1 or 0. Mend the header."
        )
    header["pixdim"][0] = -1 if mirror == -1 else 1
    header["pixdim"][1:4] = np.abs(header["pixdim"][1:4])


def _shape(path: Path, header: Nifti1Header) -> tuple[int, ...]:
    axes = int(header["dim"][0])
    if not 1 <= axes <= MOST_AXES:
        raise ConsiliumError(
            f"The header of the file {path} says that it has {axes} axes (dim[0]); NIfTI knows 1 "
            f"to {MOST_AXES}. It is damaged; put a whole copy there."
        )
    shape = [int(side) for side in header.get_data_shape()]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    said = "x".join(map(str, shape))
    if len(shape) != 3 and min(shape) > 0:
        remedy = (
            "Save each modality or time point as a file of its own."
            if len(shape) > 3
            else "Save all slices of the image as one file."
        )
        raise ConsiliumError(
            f"The file {path} has {len(shape)} axes, {said}; a volume has three. {remedy}"
        )
    if min(shape) < 1 or prod(shape) > MOST_VOXELS:
        raise ConsiliumError(
            f"The header of the file {path} says that it has {said} voxels; from 1 to "
            f"{MOST_VOXELS} in all can be read. It is damaged, or has to be cropped."
        )
    return tuple(shape)


def _dtype(path: Path, header: Nifti1Header) -> np.dtype[Any]:
    code = int(header["datatype"])
    dtype: np.dtype[Any] | None = None
    label = "unknown"
    with suppress(KeyError, HeaderDataError):
        dtype, label = header.get_data_dtype(), str(data_type_codes.label[code])
    if dtype is None or dtype.kind not in "uif" or not dtype.itemsize:
        raise ConsiliumError(
            f"The file {path} has NIfTI's data type {code} ({label}); integers and real numbers "
            "can be read. Save it with one real number a voxel."
        )
    return dtype


def _data(path: Path, file: BinaryIO, header: Nifti1Header, size: int) -> bytes:
    """The bytes of the voxels; the file is read to its end."""
    offset = float(header["vox_offset"])
    at = file.tell()
    on_disk = path.stat().st_size
    most = on_disk * DEFLATE if isinstance(file, gzip.GzipFile) else on_disk
    # Four bytes after the header say whether it is extended.
    if not offset.is_integer() or not at + 4 <= offset <= offset + size <= most:
        raise ConsiliumError(
            f"The header of the file {path} says that {size} bytes of voxels begin at byte "
            f"{offset:.16g}, but the file has {on_disk}. It is truncated or damaged; put a whole "
            "copy there."
        )
    skipped = int(offset) - at
    if len(file.read(skipped)) < skipped:
        raise EOFError("it ends before its voxels")
    raw = file.read(size)
    if len(raw) < size:
        raise EOFError(f"it ends after {len(raw)} of {size} bytes of voxels")
    while file.read(2**20):
        pass
    return raw


def _unit(path: Path, header: Nifti1Header) -> float:
    """The millimetres in the unit of the file's affine."""
    code = int(header["xyzt_units"]) & 7
    if code not in MILLIMETRES:
        raise ConsiliumError(
            f"The header of the file {path} has the unit of length {code} (xyzt_units); NIfTI "
            "knows 1 for metres, 2 for millimetres and 3 for micrometres. Mend the header."
        )
    return MILLIMETRES[code]
