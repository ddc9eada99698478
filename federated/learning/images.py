"""What a network predicts of whole images, for every task that has one answer for each image."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from federated.data.dataset import to_float
from federated.settings.target import Target

# Makes what is predicted, ``(n, outputs, …)``, of a network's outputs in float64.
Readout = Callable[[Tensor, Target | None], Tensor]
Predicted = npt.NDArray[np.float64]

EVALUATION_BATCH = 128


def predict_images(
    model: nn.Module,
    images: npt.NDArray[Any],
    device: torch.device,
    outputs: int,
    readout: Callable[[Tensor], Tensor],
) -> Predicted:
    """What is predicted of images, ``(n, outputs)`` as float64, in evaluation mode; n may be 0.

    Args:
        model: the network, on ``device``.
        images: ``(n, channels, *spatial)`` in 0..255, of any numeric type.
        device: where the network is.
        outputs: how many the network has.
        readout: makes what is predicted of its outputs, in float64.
    """
    model.eval()
    parts = [np.zeros((0, outputs))]
    with torch.inference_mode():
        for start in range(0, len(images), EVALUATION_BATCH):
            x = torch.from_numpy(to_float(images[start : start + EVALUATION_BATCH])).to(device)
            parts.append(readout(model(x).double()).cpu().numpy())
    return np.concatenate(parts)


def probabilities(logits: Tensor, target: Target | None = None) -> Tensor:  # noqa: ARG001
    """The probabilities of classes that exclude each other, of logits ``(n, classes, …)``."""
    return logits.softmax(dim=1)


def finite_or_nan(outputs: Tensor) -> Tensor:
    """The outputs, with NaN for infinite ones: what follows would make numbers of these."""
    return torch.where(outputs.isfinite(), outputs, torch.nan)
