"""The files of a predicted mask: their names, and their content by what its image was."""

import gzip
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header

from federated.data.folders.dicom.algorithm import Algorithm
from federated.data.folders.dicom.source import SourceSeries
from federated.data.folders.families import Family
from federated.data.folders.families.file_names import split_ending
from federated.data.folders.nifti_file import is_nifti, nifti_bytes
from federated.data.folders.picture_file import (
    PICTURES,
    UPRIGHT,
    orientation_of,
    write_picture,
    write_real_picture,
)
from federated.data.folders.read_volume import is_dicom
from federated.data.folders.volume import Volume
from federated.data.medmnist.array_file import is_npz
from federated.errors import ConsiliumError
from federated.files import atomic_path, cannot_write

DICOM = (".dcm", ".dicom", ".ima")
# NIfTI's code of scanner coordinates.
SCANNER = 1


def mask_names(path: Path, family: Family | None = None) -> tuple[str, ...]:
    """The names of the files that a mask of an image becomes.

    That of a DICOM series is a DICOM-SEG and a NIfTI file, or a picture in a family of pictures.

    Raises:
        ConsiliumError: the file is of no kind that can be predicted.
    """
    name = path.name
    if is_dicom(path):
        stem = path.resolve().name if path.is_dir() else split_ending(name, DICOM)[0]
        flat = family is not None and family.dims == 2
        return f"{stem}.dcm", f"{stem}.png" if flat else f"{stem}.nii.gz"
    if path.is_dir():
        return (f"{path.resolve().name}.nii.gz",)  # of `.` too
    if is_nifti(path) or is_npz(path):
        return (name,)
    if path.suffix.lower() in PICTURES:
        return (f"{path.stem}.{'png' if orientation_of(path) == UPRIGHT else 'tif'}",)
    raise ConsiliumError(
        f"The file {path} is of no kind that can be predicted. Give NIfTI (.nii, .nii.gz), a DICOM "
        f"series (its folder), pictures ({', '.join(PICTURES)}) or .npz."
    )


def write_mask(
    family: Family,
    mask: npt.NDArray[np.uint8],
    image: Volume | None,
    targets: Sequence[Path],
    algorithm: Algorithm,
) -> list[Path]:
    """Write a mask that lies as its image does; ``None`` is an array, whose mask is one too.

    All contents are made before the first file is written.

    Args:
        family: the data set's, with the names of the labels.
        mask: the labels on the image's grid.
        image: the first image of the case.
        targets: the files, as :func:`mask_names` has named them.
        algorithm: the model, for a DICOM-SEG.

    Returns:
        The files that were written; no DICOM-SEG where the first image of several is not DICOM.

    Raises:
        ConsiliumError: the headers of a DICOM series do not allow a DICOM-SEG.
    """
    contents = {targets[-1]: _beside(family, mask, image, targets[-1])}
    if image is not None and isinstance(image.frame, SourceSeries):
        # Importing what writes DICOM takes a moment.
        from federated.data.folders.dicom.segmentation_writer import segmentation_bytes

        made = segmentation_bytes(mask, image.frame, family.labels, algorithm)
        contents = {targets[0]: made, **contents}
    for target, content in contents.items():
        _write(target, content)
    return list(contents)


def map_path(mask: Path) -> Path:
    """The file of the map of uncertainty beside a mask's file.

    It is NIfTI beside NIfTI, TIFF beside a picture and an array beside an array.
    """
    if is_nifti(mask):
        stem = split_ending(mask.name, (".nii.gz", ".nii"))[0]
        return mask.with_name(f"{stem}_uncertainty.nii.gz")
    ending = ".npz" if is_npz(mask) else ".tif"
    return mask.with_name(f"{mask.stem}_uncertainty{ending}")


def write_map(variance: npt.NDArray[np.float32], image: Volume | None, target: Path) -> Path:
    """Write a map of uncertainty that lies as its image does; ``None`` is an array.

    Args:
        variance: on the image's grid, ``(x, y, z)`` or of a picture ``(height, width)``, upright.
        image: the first image of the case.
        target: the file, as :func:`map_path` has named it.

    Returns:
        The file.
    """
    file = BytesIO()
    if image is None:
        np.savez_compressed(file, uncertainty=variance)
    elif image.affine is None:
        orientation = image.frame if isinstance(image.frame, int) else UPRIGHT
        write_real_picture(file, variance, orientation)
    else:
        header = image.frame if isinstance(image.frame, Nifti1Header) else _header(image.affine)
        file.write(gzip.compress(nifti_bytes(variance, header), mtime=0))
    _write(target, file.getvalue())
    return target


def _write(target: Path, content: bytes) -> None:
    """Write a result.

    Raises:
        ConsiliumError: the folder cannot be written to, or its disk is full.
    """
    try:
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise cannot_write(target.parent, error, "--out") from error


def _beside(
    family: Family, mask: npt.NDArray[np.uint8], image: Volume | None, target: Path
) -> bytes:
    """The content of the file that everything can read."""
    file = BytesIO()
    if image is None:
        np.savez_compressed(file, mask=mask)
    elif image.affine is None:
        orientation = image.frame if isinstance(image.frame, int) else UPRIGHT
        write_picture(file, family.values_in_files(mask), orientation)
    else:
        header = image.frame if isinstance(image.frame, Nifti1Header) else _header(image.affine)
        content = nifti_bytes(mask, header)
        # Without a time stamp: the same mask is the same bytes.
        packed = target.name.lower().endswith(".gz")
        file.write(gzip.compress(content, mtime=0) if packed else content)
    return file.getvalue()


def _header(affine: npt.NDArray[np.float64]) -> Nifti1Header:
    """The header of an image in mm of the scanner, as DICOM's positions are."""
    image = nibabel.Nifti1Image(np.zeros((1, 1, 1), np.uint8), affine)
    image.set_sform(affine, SCANNER)
    image.set_qform(affine, SCANNER)
    image.header.set_xyzt_units("mm")
    return image.header
