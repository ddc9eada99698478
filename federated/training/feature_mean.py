"""The mean of a network's features over a site's training cases, for its centring layer."""

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from federated.training.objective import Take
from models import Centring


class PrivateMean(Protocol):
    """What makes a mean private."""

    def noised_mean(
        self, batch: Tensor, vectors: Callable[[Tensor], Tensor], bound: float
    ) -> Tensor:
        """The mean of the vectors of a batch of cases, clipped to ``bound`` and noised."""


def set_mean(model: nn.Module, layer: Centring, batches: Iterable[Tensor], take: Take) -> None:
    """Set the layer's mean to that of all cases, in place.

    Args:
        batches: indices of cases.
        take: from such indices to what the network takes, first of two.
    """
    total, cases = torch.zeros_like(layer.mean, dtype=torch.float64), 0
    for batch in batches:
        total += _features(model, layer, take(batch)[0]).double().sum(dim=0)
        cases += len(batch)
    layer.mean.copy_(total / cases)


def set_private_mean(
    model: nn.Module,
    layer: Centring,
    batch: Tensor,
    take: Take,
    private: PrivateMean,
) -> None:
    """Set the layer's mean to a noised one of ``batch``, the cases of one step, in place.

    It takes that step's place, with the same noise over the layer's ``bound`` instead of the
    clipping norm, so that a round releases no more than was planned.

    Args:
        model: in which ``layer`` is.
        layer: the one that centres.
        batch: indices of the cases of one step.
        take: reads cases by their indices.
        private: what sums and noises.
    """
    found = private.noised_mean(
        batch, lambda part: _features(model, layer, take(part)[0]), layer.bound
    )
    layer.mean.copy_(found)


def _features(model: nn.Module, layer: Centring, images: Tensor) -> Tensor:
    """What reaches the layer, ``(n, width)``."""
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        with torch.no_grad():
            model(images)
    finally:
        hook.remove()
    return seen[0]
