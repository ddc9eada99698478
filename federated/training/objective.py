"""What local training minimises, and its gradients case by case."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

# Maps indices of cases ``(n,)`` to inputs ``(n, channels, *spatial)`` and targets ``(n, …)``.
Take = Callable[[Tensor], tuple[Tensor, Tensor]]
# Maps logits, targets and torch's ``mean`` or ``none`` to the loss, a scalar or ``(n,)``.
Loss = Callable[[Tensor, Tensor, str], Tensor]


@dataclass(frozen=True)
class Objective:
    """A site's cases and the loss on them.

    ``take`` maps indices of cases to network inputs and targets, on the network's device. The
    network runs under ``autocast``, the loss is computed in float32.
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
        """The loss of a batch, or with ``reduction="none"`` that of each of its cases, ``(n,)``.

        Args:
            model: the network, or what stands for it.
            images: its inputs, ``(n, channels, *spatial)``.
            targets: what it should predict, ``(n, …)``.
            reduction: torch's ``mean`` or ``none``.
        """
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

    Both ways give the same gradient in float32 to within rounding. Where a value before a ReLU or
    within a max-pooling is nearer to the kink than its rounding error, the kernels and the
    processor decide on which side it falls, and with it up to some per cent of that case's
    gradient.

    BatchNorm mixes cases, so there is no gradient of a single one. A layer that draws at random
    would draw by a case's place in the batch, and raises RuntimeError.

    Args:
        model: the network.
        trained: the parameters that gradients are wanted of, by their names.
        loss: maps the network and a batch of a single case to the loss.
        vectorised: whether cases are computed together, by vmap, or one after the other.

    Returns:
        A function from images ``(n, channels, *spatial)`` and targets ``(n, …)`` to the gradients
        ``(n, …)`` of each parameter in ``trained``, in its order.
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
