"""What a trained model is given, made of arrays: the checks of every entrance that takes some.

``consilium predict`` on files and the registered model both go through these, so that neither lets
in what the other refuses.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from federated.data.folders.families import Family
from federated.data.folders.prepared_case import PreparedCase, prepare_volumes
from federated.data.folders.volume import Volume, check_numbers
from federated.errors import ConsiliumError
from federated.learning import TASKS
from federated.learning.flip_variance import flip_variance
from federated.learning.images import predict_images
from federated.learning.segmentation import segment
from federated.weights.model_file import ModelHeader

WHITE = 255
# The bits of a value that pictures come in; one is taken to use the least that holds it.
DEPTHS = (8, 10, 12, 14, 16, 24, 32)
# Real numbers above 1 whose largest is not above this may be of either range.
DARKEST = 16.0
CPU = torch.device("cpu")


def class_images(images: npt.NDArray[Any], header: ModelHeader, name: str) -> npt.NDArray[Any]:
    """Images ``(n, channels, *spatial)`` for a model of whole images: uint8 or float32 in 0..255.

    Integers are taken as they are, truth values and real numbers up to 1 as shares of 255, and
    other real numbers up to 255 as they are, without rounding.

    Raises:
        ConsiliumError: the shape is not the model's, a value is not a finite number, the range is
            another or not clear, or an image has one value everywhere.
    """
    wanted = header.image_shape()
    if images.shape[1:] != wanted:
        raise ConsiliumError(
            f"An image {name} is {_times(images.shape[1:])}; the model takes {_times(wanted)}, as "
            f"{header.dataset} has. Crop and resample it so."
        )
    if not len(images):
        return np.asarray(images, np.uint8)
    check_numbers(images, name, leading=0)
    scaled = _to_255(images, header, name)
    flat = scaled.reshape(len(scaled), -1)
    constant = np.flatnonzero(flat.min(axis=1) == flat.max(axis=1))
    if constant.size:
        raise ConsiliumError(
            f"The image {name} has one value everywhere, in {constant.size} of {len(images)}, the "
            f"first number {int(constant[0])} counted from 0. Put the right images there, or leave "
            "these out."
        )
    return scaled


def full_range(values: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """A picture's values with white as 255; itself where it has eight bits or real numbers.

    Integers of more bits are scaled by the least of 8, 10, 12, 14, 16, 24 and 32 bits that holds
    the brightest, because 12 bits are kept in 16.

    Raises:
        ConsiliumError: it has negative integers.
    """
    if values.dtype == np.uint8 or values.dtype.kind not in "ui":
        return values
    brightest = int(values.max())
    if values.min() < 0:
        raise ConsiliumError(
            f"The image {name} has negative values, down to {int(values.min())}; the model takes "
            "0..255. Scale them so."
        )
    white = next(2**depth - 1 for depth in DEPTHS if brightest < 2**depth)
    return np.asarray(values.astype(np.float64) * (WHITE / white), np.float32)


def case_of_array(
    family: Family,
    values: npt.NDArray[Any],
    name: str,
    affine: npt.NDArray[np.float64] | None = None,
) -> PreparedCase:
    """An array ``(channels, *spatial)`` as a prepared case; one modality may lack its first axis.

    Args:
        family: the data set's.
        values: the array.
        name: the name of the case, for messages.
        affine: of a volume, ``(4, 4)`` from voxels to mm. Without one its axes go towards right,
            anterior and superior, and its voxels are those of the family.

    Raises:
        ConsiliumError: it does not fit the family, or fails the checks of :class:`Volume`.
    """
    channels = values if values.ndim == family.dims + 1 else values[np.newaxis]
    if family.dims == 3:
        own = np.diag([*(family.spacing or (1.0,) * 3), 1.0])
        affine = own if affine is None else affine
    many = len(family.modalities) > 1 and channels.ndim == family.dims + 1
    parts = list(channels[:, np.newaxis]) if many else [channels]
    if not parts:
        check_numbers(channels, name)
    return prepare_volumes(family, name, [Volume(part, affine, name) for part in parts])


def predicted_images(
    model: nn.Module, images: npt.NDArray[Any], header: ModelHeader
) -> npt.NDArray[np.float64]:
    """What a model predicts of whole images, ``(n, outputs)``: probabilities, or a number.

    Images are ``(n, channels, *spatial)`` in 0..255, as :func:`class_images` gives them.

    Raises:
        ConsiliumError: it predicts no finite numbers.
    """
    task, target = TASKS[header.goal()], header.target()
    found = predict_images(
        model, images, CPU, header.classes, lambda outputs: task.readout(outputs, target)
    )
    if not np.isfinite(found).all():
        raise _no_numbers(header.dataset)
    return found


def calibrated(found: npt.NDArray[np.float64], header: ModelHeader) -> npt.NDArray[np.float64]:
    """What :func:`predicted_images` gave, at the model's temperature where it has one."""
    return found if header.calibration is None else header.calibration.scaled(found)


def segmented(model: nn.Module, family: Family, case: PreparedCase) -> Tensor:
    """Class probabilities ``(classes, *spatial)`` on the whole of a prepared case.

    Raises:
        ConsiliumError: they are no finite numbers, of which a mask would be background everywhere.
    """
    found = segment(model, case.whole, family, CPU).softmax(dim=0)
    if not found.isfinite().all():
        raise _no_numbers(family.name)
    return found


def uncertain(model: nn.Module, family: Family, case: PreparedCase) -> Tensor:
    """The variance of class probabilities over flips ``(*spatial)`` on the whole of a case."""
    return flip_variance(
        lambda image: segment(model, image, family, CPU).softmax(dim=0), case.whole
    )


def _no_numbers(dataset: str) -> ConsiliumError:
    """The error for a model whose outputs are no finite numbers, which the caller raises."""
    return ConsiliumError(
        f"The model, which was trained on {dataset}, predicts no numbers: its weights are damaged, "
        "or its training diverged. Give another one."
    )


def _to_255(images: npt.NDArray[Any], header: ModelHeader, name: str) -> npt.NDArray[Any]:
    if images.dtype.kind == "b":
        return images.astype(np.uint8) * np.uint8(WHITE)
    low, high = float(images.min()), float(images.max())
    said = f"The intensities {name} lie in {low:g}..{high:g}; the model takes 0..255, as "
    if low < 0 or high > WHITE:
        raise ConsiliumError(f"{said}{header.dataset} has. Scale them so.")
    if images.dtype.kind in "ui":
        if high == 1:
            raise ConsiliumError(
                f"{said}{header.dataset} has, and integers of 0 and 1 would be black. Save them as "
                "truth values, or scale them so."
            )
        return images.astype(np.uint8)
    if high <= 1:
        return (images.astype(np.float64) * WHITE).astype(np.float32)
    if high <= DARKEST and not np.array_equal(images, np.rint(images)):
        raise ConsiliumError(
            f"{said}{header.dataset} has, or real numbers up to 1, and these could be either. "
            "Scale them so."
        )
    return images.astype(np.float32)


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
