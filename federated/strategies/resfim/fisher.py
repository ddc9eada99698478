"""The diagonal of the empirical Fisher information, from gradients of single cases."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from federated.training.objective import Loss, gradients_of_cases

# How many cases' gradients are in memory at once. With the sum that is three models.
CASES_AT_ONCE = 2

Diagonal = dict[str, Tensor]


def zeros(model: nn.Module) -> Diagonal:
    """A diagonal of zeros, by the names of the model's parameters and in their shapes."""
    return {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}


def add_fisher(
    diagonal: Diagonal,
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    loss: Loss,
    factor: float = 1.0,
) -> None:
    """Add ``factor`` · mean over the cases of (∂L/∂θ)² to ``diagonal``, in place.

    The gradients of single cases are computed a few at a time, and the model is left as it is.

    Args:
        diagonal: what is added to, by the names of the parameters and in their shapes.
        model: the network.
        images: ``(n, channels, *spatial)`` on the model's device, with n at least 1.
        targets: ``(n, …)``, as ``loss`` takes them.
        loss: maps logits, targets and torch's ``mean`` or ``none`` to the loss L.
        factor: any number; −1 subtracts.
    """

    def of_case(network: Callable[[Tensor], Tensor], image: Tensor, target: Tensor) -> Tensor:
        return loss(network(image).float(), target, "mean")

    # Volumes together, pictures one by one, which was the faster: to a step on a batch of two, 1.2
    # times its time against 1.6 for volumes, and 1.1 against 1.0 for pictures.
    volumes = images.ndim == 5
    of_cases = gradients_of_cases(model, dict(model.named_parameters()), of_case, volumes)
    share = factor / len(images)
    parts = (torch.split(each, CASES_AT_ONCE) for each in (images, targets))
    for some_images, some_targets in zip(*parts, strict=True):
        gradients = of_cases(some_images, some_targets)
        for name, gradient in gradients.items():
            diagonal[name].add_(gradient.square_().sum(dim=0), alpha=share)
