"""The diagonal of the empirical Fisher information, from gradients of single cases."""

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from federated.objective import Loss

# How many cases' gradients are in memory at once. With the sum that is three models.
CASES_AT_ONCE = 2

Diagonal = dict[str, Tensor]


def zeros(model: nn.Module) -> Diagonal:
    """A diagonal of zeros, by the names of the model's parameters."""
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

    Gradients of single cases come from torch.func, a few cases at a time; the model is left as it
    is. BatchNorm, which mixes cases, has no gradient of a single one.

    Args:
        images: ``(n, channels, *spatial)``, n of at least 1, on the model's device.
        targets: ``(n, …)``, as ``loss`` takes them.
    """
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    buffers = {name: value.detach() for name, value in model.named_buffers()}

    def of_case(values: dict[str, Tensor], image: Tensor, target: Tensor) -> Tensor:
        logits = functional_call(model, (values, buffers), (image.unsqueeze(0),))
        return loss(logits.float(), target.unsqueeze(0), "mean")

    of_cases = vmap(grad(of_case), in_dims=(None, 0, 0), randomness="different")
    share = factor / len(images)
    parts = (torch.split(each, CASES_AT_ONCE) for each in (images, targets))
    for some_images, some_targets in zip(*parts, strict=True):
        gradients = of_cases(parameters, some_images, some_targets)
        for name, gradient in gradients.items():
            diagonal[name].add_(gradient.square_().sum(dim=0), alpha=share)
