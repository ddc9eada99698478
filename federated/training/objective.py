"""What local training minimises, and its gradients case by case."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

# From indices of cases to network inputs and what is to be predicted.
Take = Callable[[Tensor], tuple[Tensor, Tensor]]
# From logits, what is to be predicted, and torch's ``mean`` or ``none``, to the loss.
Loss = Callable[[Tensor, Tensor, str], Tensor]


@dataclass(frozen=True)
class Objective:
    """A site's cases and the loss on them.

    ``take`` gives network inputs and what is to be predicted, from indices of cases, on the
    network's device; the network runs under ``autocast``, the loss in float32.
    """

    take: Take
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


def gradients_of_cases(
    model: nn.Module,
    trained: Mapping[str, Tensor],
    loss: Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor],
    vectorised: bool = True,
) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
    """The gradient of each case, by torch.func; the model is left as it is.

    Both ways are float32 to within rounding of the same gradient. Where a value before a ReLU or
    within a max-pooling is nearer to the kink than its rounding error, which side it falls on, and
    so up to some per cent of that case's gradient, depends on the kernels and the processor.

    BatchNorm, which mixes cases, has no gradient of a single one. A layer that draws at random
    would draw by a case's place, and raises RuntimeError.

    Args:
        trained: the parameters that gradients are wanted of, by their names.
        loss: from the network and a batch of a single case to its loss.
        vectorised: whether cases are computed together, by vmap, or one after the other.

    Returns:
        From images ``(n, channels, *spatial)`` and targets ``(n, …)`` to ``(n, …)`` for each
        parameter in ``trained``, in its order.
    """
    everything = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    fixed = {name: value.detach() for name, value in everything.items() if name not in trained}
    values = {name: value.detach() for name, value in trained.items()}

    def of_case(values: dict[str, Tensor], image: Tensor, target: Tensor) -> Tensor:
        def network(images: Tensor) -> Tensor:
            logits: Tensor = functional_call(model, {**fixed, **values}, (images,))
            return logits

        return loss(network, image.unsqueeze(0), target.unsqueeze(0))

    of_one = grad(of_case)
    several = vmap(of_one, in_dims=(None, 0, 0), randomness="error")

    def together(images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = several(values, images, targets)
        return found

    def in_turn(images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        found = [
            of_one(values, image, target) for image, target in zip(images, targets, strict=True)
        ]
        return {name: torch.stack([each[name] for each in found]) for name in values}

    return together if vectorised else in_turn
