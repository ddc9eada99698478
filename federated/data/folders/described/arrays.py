"""One's own images as arrays of a ``.npz``, as MedMNIST has them.

The arrays are ``{train,val,test}_images`` of uint8 ``(n, *spatial)``, with a last axis for three
colours, and ``{train,val,test}_labels`` of integers ``(n,)`` or ``(n, 1)``, whose values the
description names.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from federated.data.dataset import SPLITS, Dataset, DatasetInfo, Split
from federated.data.medmnist.array_file import NPZ, read_arrays
from federated.errors import ConsiliumError
from federated.settings.description import Description

WANTED = tuple(f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels"))
COLOURS = 3
# The sides that networks halve three times have to be at least so long.
LEAST_SIDE = 8


def array_path(folder: Path) -> Path:
    """The one file of arrays in a folder.

    Raises:
        ConsiliumError: there is none, or more than one.
    """
    found = sorted(
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(NPZ) and not path.name.startswith(".")
    )
    if len(found) != 1:
        said = ", ".join(path.name for path in found) or "none"
        raise ConsiliumError(
            f"The folder {folder} is described with layout=arrays, and needs one file {NPZ}; it "
            f"has {said}. Leave the one that is meant."
        )
    return found[0]


def settle_arrays(description: Description, folder: Path) -> Description:
    """The description with the arrays' own shape and colours; nothing is resized.

    Raises:
        ConsiliumError: the file cannot be read, or the description states another shape or other
            colours.
    """
    dataset = read_own_arrays(folder, folder.name, description)
    assert dataset.info.shape is not None
    own = dataset.info.shape
    if description.shape not in ("auto", own):
        raise ConsiliumError(
            f"The description of {folder} states the shape {list(description.shape)}, and the "
            f"arrays have {list(own)}. Arrays are taken as they are: leave `shape` out."
        )
    colours = dataset.info.channels
    if description.colours not in (None, colours):
        raise ConsiliumError(
            f"The description of {folder} states colours={description.colours}, and the arrays "
            f"have {colours}. Leave `colours` out."
        )
    spacing = (1.0,) * len(own) if description.kind == "volumes" else description.spacing
    settled = {"shape": own, "whole": True, "spacing": spacing, "colours": colours}
    return description.model_copy(update=settled)


def read_own_arrays(folder: Path, name: str, description: Description) -> Dataset:
    """The images and classes of a described folder with one ``.npz``.

    Raises:
        ConsiliumError: it lacks an array, has one that nobody asked for, or an array has another
            form, type or label than the description says.
    """
    path = array_path(folder)
    arrays = read_arrays(path, lambda _name: True)
    missing = [wanted for wanted in WANTED if wanted not in arrays]
    unknown = [given for given in arrays if given not in WANTED]
    if missing or unknown:
        said = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(unknown)} too"
        raise ConsiliumError(
            f"The file {path} {said}; its arrays have to be {', '.join(WANTED)} and no others, "
            "since nobody could tell what they mean."
        )
    images = {split: _images(path, split, arrays, description) for split in SPLITS}
    shapes = sorted({array.shape[1:] for array in images.values()})
    if len(shapes) > 1:
        raise ConsiliumError(
            f"In {path}, the images of the splits have the shapes "
            f"{' and '.join(map(str, shapes))}, channels first. Bring them to one."
        )
    labels = {
        split: _labels(path, split, arrays, description, len(images[split])) for split in SPLITS
    }
    info = DatasetInfo(
        name=name,
        classes=description.classes,
        dims=description.dims,
        channels=shapes[0][0],
        cases={split: len(images[split]) for split in SPLITS},
        licence=description.licence,
        shape=shapes[0][1:],
    )
    return Dataset(info, images, labels)


def _images(
    path: Path, split: Split, arrays: dict[str, npt.NDArray[Any]], description: Description
) -> npt.NDArray[np.uint8]:
    array = arrays[f"{split}_images"]
    grey = array.ndim == description.dims + 1
    coloured = array.ndim == description.dims + 2 and array.shape[-1] == COLOURS
    spatial = array.shape[1 : 1 + description.dims]
    if array.dtype != np.uint8 or not (grey or coloured) or not len(array):
        raise ConsiliumError(
            f"In {path}, {split}_images has shape {array.shape} and type {array.dtype}; "
            f"kind={description.kind} needs uint8 (n, {', '.join(['side'] * description.dims)}), "
            f"or a last axis of {COLOURS} colours, with n at least 1. Save it so."
        )
    if min(spatial) < LEAST_SIDE:
        raise ConsiliumError(
            f"In {path}, {split}_images has sides of {spatial}; networks need {LEAST_SIDE} at "
            "least. Resize them."
        )
    return np.moveaxis(array, -1, 1) if coloured else array[:, np.newaxis]


def _labels(
    path: Path,
    split: Split,
    arrays: dict[str, npt.NDArray[Any]],
    description: Description,
    cases: int,
) -> npt.NDArray[np.int64]:
    array = arrays[f"{split}_labels"]
    if array.dtype.kind not in "ui" or array.shape not in ((cases, 1), (cases,)):
        raise ConsiliumError(
            f"In {path}, {split}_labels has shape {array.shape} and type {array.dtype}; it needs "
            f"({cases},) or ({cases}, 1) of integers, one for each image. Save it so."
        )
    known = {
        str(value): index
        for index, name in enumerate(description.classes)
        for value in description.values(name)
    }
    flat = array.reshape(-1)
    unknown = sorted({int(value) for value in np.unique(flat) if str(value) not in known})
    if unknown:
        raise ConsiliumError(
            f"In {path}, {split}_labels has the values {', '.join(map(str, unknown[:5]))}, which "
            f"no class of the description has: it has {', '.join(known)}. Mend one of them."
        )
    return np.array([known[str(value)] for value in flat.tolist()], np.int64)
