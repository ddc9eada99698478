"""What a trained model says of files: masks in segmentation, class probabilities otherwise."""

import csv
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from federated.data.dataset import Images
from federated.data.families import Family
from federated.data.medmnist import dataset_info
from federated.data.prepared_case import prepare_volumes
from federated.data.read_volume import NIFTI, Volume, read_volume
from federated.errors import ConsiliumError
from federated.files import atomic_path
from federated.learning.classification import predict
from federated.learning.segmentation import segment
from federated.model_file import ModelHeader, load_model, read_header

NPZ = ".npz"
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp")
PROBABILITIES = "probabilities.csv"
CPU = torch.device("cpu")


def predict_files(
    model_path: Path, files: Sequence[Path], out: Path, site: str | None = None
) -> list[Path]:
    """Predict each file and write what was found into ``out``.

    In segmentation each file, NIfTI, picture or ``.npz`` with an array ``image`` ``(channels,
    *spatial)``, gives a mask of its own name, shape and affine; a picture's is PNG, with the grey
    values of the data set's masks. Where a case has several modalities, it is a folder with a NIfTI
    file ``…-MODALITY.nii.gz`` for each. In classification all files together give
    ``probabilities.csv``, a row an image; ``.npz`` holds arrays whose names end in ``images``, as
    MedMNIST's.

    Args:
        site: whose model, where sites have their own.

    Returns:
        The files written.

    Raises:
        ConsiliumError: a file cannot be read or does not fit the model, or a result would replace
            its input or another result. Files before it are written whole, the others not at all.
    """
    header = read_header(model_path)
    model = load_model(model_path, site)
    family = header.family()
    if family is None:
        return [_classify(model, header, files, out / PROBABILITIES)]
    targets = [out / _target_name(path) for path in files]
    _refuse_collisions(files, targets)
    for path, target in zip(files, targets, strict=True):
        _segment(model, family, path, target)
    return targets


def _target_name(path: Path) -> str:
    name = path.name
    if path.is_dir():
        return f"{name}.nii.gz"
    if name.endswith((*NIFTI, NPZ)):
        return name
    if path.suffix.lower() in PICTURES:
        return f"{path.stem}.png"
    raise ConsiliumError(
        f"The file {path} is of no kind that can be predicted. Give NIfTI (.nii, .nii.gz), "
        f"pictures ({', '.join(PICTURES)}) or .npz."
    )


def _refuse_collisions(files: Sequence[Path], targets: Sequence[Path]) -> None:
    inputs = {path.resolve() for path in files}
    seen: dict[Path, Path] = {}
    for path, target in zip(files, targets, strict=True):
        if target.resolve() in inputs:
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
    volumes = _volumes(family, path)
    case = prepare_volumes(family, str(path), volumes)
    mask = case.to_own_grid(segment(model, case.image, family, CPU).softmax(dim=0))
    with atomic_path(target) as temporary:
        # Writers go by the ending, which the temporary name has not.
        if target.name.endswith(NPZ):
            with temporary.open("wb") as file:
                np.savez_compressed(file, mask=mask)
        elif target.name.endswith(NIFTI):
            image = nibabel.Nifti1Image(mask, volumes[0].affine)
            content = image.to_bytes()
            temporary.write_bytes(_gzipped(content) if target.suffix == ".gz" else content)
        else:
            Image.fromarray(family.values_in_files(mask)).save(temporary, format="PNG")


def _gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def _volumes(family: Family, path: Path) -> list[Volume]:
    if path.name.endswith(NPZ):
        values = _array(path, "image")
        affine = np.eye(4) if family.dims == 3 else None
        channels = values if values.ndim == family.dims + 1 else values[np.newaxis]
        parts = channels[:, np.newaxis] if len(family.modalities) > 1 else [channels]
        return [Volume(np.asarray(part, np.float32), affine) for part in parts]
    if len(family.modalities) == 1:
        return [read_volume(path)]
    found = [sorted(path.glob(f"*-{modality}.nii*")) for modality in family.modalities]
    if not path.is_dir() or not all(found):
        raise ConsiliumError(
            f"A case of {family.name} has the modalities {', '.join(family.modalities)}, and "
            f"{path} is no folder with a NIfTI file for each, named like "
            f"NAME-{family.modalities[0]}.nii.gz."
        )
    return [read_volume(files[0]) for files in found]


def _array(path: Path, name: str) -> npt.NDArray[Any]:
    arrays = _arrays(path)
    if name not in arrays:
        raise ConsiliumError(
            f"The file {path} has no array {name!r}; it has {', '.join(arrays) or 'none'}."
        )
    return arrays[name]


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise ConsiliumError(
            f"The file {path} cannot be read ({error}). It is missing, damaged or of another kind; "
            "put a whole copy there."
        ) from error


def _classify(model: nn.Module, header: ModelHeader, files: Sequence[Path], target: Path) -> Path:
    rows: list[list[Any]] = []
    for path in files:
        for name, images in _images(path, header):
            probabilities = predict(model, images, CPU, header.classes)
            rows += [[path.name, name, i, *map(float, p)] for i, p in enumerate(probabilities)]
    classes = dataset_info(header.dataset).classes
    with atomic_path(target) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "array", "index", *classes])
        writer.writerows(rows)
    return target


def _images(path: Path, header: ModelHeader) -> list[tuple[str, Images]]:
    """Batches ``(n, channels, *spatial)`` uint8 of a file, by the name of their array."""
    if path.name.endswith(NPZ):
        arrays = {n: a for n, a in _arrays(path).items() if n.endswith("images")}
        if not arrays:
            raise ConsiliumError(f"The file {path} has no array whose name ends in `images`.")
        channels_last = header.channels > 1
        return [
            (name, _fitting(path, np.moveaxis(a, -1, 1) if channels_last else a[:, None], header))
            for name, a in arrays.items()
        ]
    _target_name(path)
    return [("", _fitting(path, read_volume(path).values[np.newaxis], header))]


def _fitting(path: Path, images: npt.NDArray[Any], header: ModelHeader) -> Images:
    wanted = (header.channels, *(header.size or 0,) * header.dims)
    if header.channels == 1 and images.ndim > 1 and images.shape[1] == 3 and header.dims == 2:
        images = images[:, :1]
    if images.shape[1:] != wanted:
        raise ConsiliumError(
            f"An image of {path} is {'x'.join(map(str, images.shape[1:]))}; the model takes "
            f"{'x'.join(map(str, wanted))}, as {header.dataset} has. Crop and resample it so."
        )
    if images.min() < 0 or images.max() > 255:
        raise ConsiliumError(
            f"The intensities of {path} lie in {images.min():g}..{images.max():g}; the model takes "
            f"0..255, as {header.dataset} has. Scale them so."
        )
    return np.asarray(np.rint(images), np.uint8)
