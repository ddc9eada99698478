"""What local training minimises."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

# From logits, what is to be predicted, and torch's ``mean`` or ``none``, to the loss.
Loss = Callable[[Tensor, Tensor, str], Tensor]


@dataclass(frozen=True)
class Objective:
    """A site's cases and the loss on them.

    ``take`` gives network inputs and what is to be predicted, from indices of cases, on the
    network's device; the network runs under ``autocast``, the loss in float32.
    """

    take: Callable[[Tensor], tuple[Tensor, Tensor]]
    loss: Loss
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def of(
        self,
        model: Callable[[Tensor], Tensor],
        images: Tensor,
        targets: Tensor,
        reduction: str = "mean",
    ) -> Tensor:
        """The loss of a batch, or with ``none`` of each of its cases, ``(n,)``."""
        with self.autocast():
            logits = model(images).float()
        return self.loss(logits, targets, reduction)
