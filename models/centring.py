"""A layer that subtracts from features their mean over all cases."""

import torch
from torch import Tensor, nn


class Centring(nn.Module):
    """The map (x − μ) · ``scale`` for features ``x`` ``(n, width)``.

    Where all cases have nearly the same features, what they have in common is most of every
    gradient, and clipping leaves little of the rest. μ is a statistic: the buffer ``mean``
    ``(width,)``, which is zero until the sites find it in the first round. ``bound`` is the largest
    Euclidean norm with which a case counts in a private mean.
    """

    mean: Tensor

    def __init__(self, width: int, scale: float, bound: float) -> None:
        super().__init__()
        self.scale, self.bound = scale, bound
        self.register_buffer("mean", torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """The centred features ``(n, width)``."""
        return (x - self.mean) * self.scale


def centring_of(model: nn.Module) -> Centring | None:
    """The layer of a network that centres its features; ``None`` if it has no such layer."""
    return next((module for module in model.modules() if isinstance(module, Centring)), None)
