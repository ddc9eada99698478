"""What a trained model predicts of files: masks in segmentation, a table otherwise."""

import csv
import gzip
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header
from torch import nn

from federated.data.folders.families import Family
from federated.data.folders.nifti_file import is_nifti, nifti_bytes
from federated.data.folders.picture_file import PICTURES, UPRIGHT, orientation_of, write_picture
from federated.data.folders.prepared_case import PreparedCase, prepare_volumes
from federated.data.folders.read_volume import Volume, read_volume
from federated.data.folders.volume import Frame
from federated.data.medmnist.array_file import is_npz, read_arrays
from federated.data.medmnist.files import DATASETS, dataset_info
from federated.errors import ConsiliumError
from federated.files import atomic_path
from federated.inference.model_input import (
    case_of_array,
    class_images,
    full_range,
    predicted_images,
    segmented,
)
from federated.learning import TASKS
from federated.weights.model_file import ModelHeader, load_model, read_header


def predict_files(
    model_path: Path, files: Sequence[Path], out: Path, site: str | None = None
) -> list[Path]:
    """Predict each file and write what was found into ``out``.

    In segmentation each file gives a mask of its own name and grid. The mask of a NIfTI file has
    the codes, the unit and the affine of its image's header. The mask of a picture is PNG, with the
    grey values of the data set's masks; a photograph with an EXIF orientation is predicted upright,
    and its mask is stored as the photograph is, as TIFF with the same tag. A ``.npz`` file has an
    array ``image`` ``(channels, *spatial)``, and may have its ``affine``; without one a volume's
    voxels are of 1 mm in RAS order. A file larger than the network's field is predicted by a window
    that slides over all of it. Where a case has several modalities, it is a folder with a NIfTI
    file ``…-MODALITY.nii.gz`` for each.

    In classification all files together give ``probabilities.csv``, with a row for each image and
    a column for each class or label; in regression ``numbers.csv``, with the number. A ``.npz``
    file holds arrays whose names end in ``images``, as MedMNIST's.

    Args:
        model_path: the model's file.
        files: the files, or folders for cases of several modalities.
        out: the folder for the results.
        site: whose model it is, where sites have their own.

    Returns:
        The files that were written.

    Raises:
        ConsiliumError: a file cannot be read or does not fit the model, or a result would replace
            its input or another result. In segmentation the masks of all other files are written,
            and all that cannot be read are named; of a table nothing is written.
    """
    header = read_header(model_path)
    model = load_model(model_path, site)
    family = header.family()
    if family is None:
        return [_tabulate(model, header, files, out)]
    targets = [out / _target_name(path) for path in files]
    _refuse_collisions(files, targets)
    refused: dict[Path, ConsiliumError] = {}
    for path, target in zip(files, targets, strict=True):
        try:
            _segment(model, family, path, target)
        except ConsiliumError as error:
            if len(files) == 1:
                raise
            refused[path] = error
    if refused:
        others = f"; those of the others are in {out}" if len(refused) < len(files) else ""
        listed = " ".join(dict.fromkeys(map(str, refused.values())))
        raise ConsiliumError(f"{len(refused)} of {len(files)} files have no mask{others}. {listed}")
    return targets


def _target_name(path: Path) -> str:
    name = path.name
    if path.is_dir():
        return f"{path.resolve().name}.nii.gz"  # of `.` too
    if is_nifti(path) or is_npz(path):
        return name
    if path.suffix.lower() in PICTURES:
        return f"{path.stem}.{'png' if orientation_of(path) == UPRIGHT else 'tif'}"
    raise ConsiliumError(
        f"The file {path} is of no kind that can be predicted. Give NIfTI (.nii, .nii.gz), "
        f"pictures ({', '.join(PICTURES)}) or .npz."
    )


def _refuse_collisions(files: Sequence[Path], targets: Sequence[Path]) -> None:
    inputs = {Path(os.path.realpath(path)) for path in files}
    seen: dict[Path, Path] = {}
    for path, target in zip(files, targets, strict=True):
        if target.is_dir():
            raise ConsiliumError(
                f"The mask of {path} would be {target}, which is a folder. Name another one with "
                "--out."
            )
        if Path(os.path.realpath(target)) in inputs:
            raise ConsiliumError(
                f"The mask of {path} would replace an input, {target}. Name another folder with "
                "--out."
            )
        if target in seen:
            raise ConsiliumError(
                f"The masks of {seen[target]} and {path} would both be {target}. Predict them one "
                "after the other, into different folders."
            )
        seen[target] = path


def _segment(model: nn.Module, family: Family, path: Path, target: Path) -> None:
    case, frame = _case(family, path)
    mask = case.to_own_grid(segmented(model, family, case))
    with atomic_path(target) as temporary:
        if isinstance(frame, Nifti1Header):
            content = nifti_bytes(mask, frame)
            # Without a time stamp: the same mask is the same bytes.
            packed = target.name.lower().endswith(".gz")
            temporary.write_bytes(gzip.compress(content, mtime=0) if packed else content)
        elif isinstance(frame, int):
            write_picture(temporary, family.values_in_files(mask), frame)
        else:
            # By a file: the writer goes by the ending, which the temporary name has not.
            with temporary.open("wb") as file:
                np.savez_compressed(file, mask=mask)


def _case(family: Family, path: Path) -> tuple[PreparedCase, Frame | None]:
    """A case that is prepared, and what its mask is written with; ``None`` for an array."""
    if is_npz(path):
        arrays = read_arrays(path, ("image", "affine").__contains__)
        if "image" not in arrays:
            raise ConsiliumError(f"The file {path} has no array `image`, but an `affine`.")
        affine = arrays.get("affine", np.eye(4))
        if affine.dtype.kind not in "uif":
            raise ConsiliumError(
                f"The array `affine` of the file {path} is of the type {affine.dtype}; 4x4 real "
                "numbers are expected. Save it so, or leave it out."
            )
        affine = np.asarray(affine, np.float64)
        flat = family.dims == 2
        return case_of_array(family, arrays["image"], str(path), None if flat else affine), None
    volumes = _volumes(family, path)
    frame = volumes[0].frame
    return prepare_volumes(family, str(path), volumes), UPRIGHT if frame is None else frame


def _volumes(family: Family, path: Path) -> list[Volume]:
    if len(family.modalities) == 1:
        return [read_volume(path)]
    found = [_modality(path, modality) for modality in family.modalities]
    if not path.is_dir() or not all(found):
        raise ConsiliumError(
            f"A case of {family.name} has the modalities {', '.join(family.modalities)}, and "
            f"{path} is no folder with a NIfTI file for each, named like "
            f"NAME-{family.modalities[0]}.nii.gz."
        )
    twice = next((files for files in found if len(files) > 1), None)
    if twice:
        raise ConsiliumError(
            f"The folder {path} has more than one file of a modality: "
            f"{', '.join(file.name for file in twice)}. Leave one of them there."
        )
    return [read_volume(files[0]) for files in found]


def _modality(folder: Path, modality: str) -> list[Path]:
    """The files of a modality; a file whose name begins with a dot is not data."""
    return sorted(
        path
        for path in folder.glob(f"*-{modality}.*")
        if is_nifti(path) and not path.name.startswith(".")
    )


def _tabulate(model: nn.Module, header: ModelHeader, files: Sequence[Path], out: Path) -> Path:
    """Write what is predicted of all images of all files into one table."""
    target = out / str(TASKS[header.goal()].results)
    names = dataset_info(header.dataset).classes if header.dataset in DATASETS else ()
    if len(names) != header.classes:
        raise ConsiliumError(
            f"The model says that it was trained on {header.dataset}, of which {header.classes} "
            f"outputs are not known by name. Give a model of one of {', '.join(DATASETS)}, or of a "
            "segmentation set."
        )
    rows: list[list[Any]] = []
    for path in files:
        for name, images in _images(path, header):
            found = predicted_images(model, images, header)
            rows += [[path.name, name, i, *map(float, p)] for i, p in enumerate(found)]
    with atomic_path(target) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "array", "index", *names])
        writer.writerows(rows)
    return target


def _with_channel(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Grey images with an axis of channels; a single number becomes one that fits no shape."""
    return images[:, np.newaxis] if images.ndim else images[np.newaxis]


def _images(path: Path, header: ModelHeader) -> list[tuple[str, npt.NDArray[Any]]]:
    """Batches ``(n, channels, *spatial)`` of a file, with the name of the array each is from."""
    if is_npz(path):
        arrays = read_arrays(path, lambda name: name.endswith("images"))
        channels_last = header.channels > 1
        return [
            (
                name,
                class_images(
                    np.moveaxis(a, -1, 1) if channels_last and a.ndim > 1 else _with_channel(a),
                    header,
                    f"{name} of {path}",
                ),
            )
            for name, a in arrays.items()
        ]
    _target_name(path)
    values = full_range(read_volume(path).values, str(path))
    if header.channels == 1 and len(values) == 3 and header.dims == 2:
        if (values != values[:1]).any():
            raise ConsiliumError(
                f"The picture {path} is coloured; the model takes grey ones, as {header.dataset} "
                "has. Save it grey."
            )
        values = values[:1]
    return [("", class_images(values[np.newaxis], header, str(path)))]
