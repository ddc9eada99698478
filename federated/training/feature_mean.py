"""The mean of a network's features over a site's training cases, for its centring layer."""

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from federated.training.objective import Take
from models import Centring


class PrivateMean(Protocol):
    """What makes a mean over cases private."""

    def noised_mean(
        self, batch: Tensor, vectors: Callable[[Tensor], Tensor], bound: float
    ) -> Tensor:
        """The mean ``(width,)`` of a vector of each case of a batch, clipped and noised.

        Args:
            batch: indices of cases, ``(n,)``; there may be none.
            vectors: maps such indices to the vectors, ``(n, width)``.
            bound: the norm that each vector is clipped to, > 0.
        """


def set_mean(model: nn.Module, layer: Centring, batches: Iterable[Tensor], take: Take) -> None:
    """Set the layer's mean ``(width,)`` to that of all cases, in place.

    Args:
        model: the network that ``layer`` is in.
        layer: the layer that centres.
        batches: indices of cases, ``(n,)`` each.
        take: maps such indices to network inputs and targets, of which only the inputs are used.
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
    """Set the layer's mean ``(width,)`` to a noised one of the cases of one step, in place.

    It takes the place of that step, and has the same noise with the layer's ``bound`` for the
    clipping norm, so that a round releases no more than was planned.

    Args:
        model: the network that ``layer`` is in.
        layer: the layer that centres.
        batch: indices of the cases of one step, ``(n,)``.
        take: maps indices to network inputs and targets, of which only the inputs are used.
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
