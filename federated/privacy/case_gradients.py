"""Gradients of single cases, clipped and summed up: by torch.func or by Opacus.

All modes give the same numbers and differ in time and memory.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from federated.objective import Objective
from federated.privacy.clipping import clip_and_sum

# torch.func on the whole network, or Opacus' three: a layer's own formula, torch.func layer by
# layer, or norms alone with a second backward pass (ghost clipping).
Mode = Literal["vmap", "hooks", "functorch", "ghost"]
# How many cases vmap has in memory at a time; 4 to 32 were tried.
CASES_AT_ONCE = 8


class CaseGradients(Protocol):
    """One way to the gradients of single cases."""

    def clipped_sum(
        self, cases: Tensor, objective: Objective, clip: float
    ) -> tuple[Sequence[Tensor], Tensor]:
        """The sum over some cases of their gradients, each clipped to norm ``clip``.

        Args:
            cases: indices, at least one.

        Returns:
            The sum for each parameter, in the optimiser's order, and the norm of each case before
            it was clipped, ``(n,)``.
        """

    def close(self) -> None:
        """Leave the model as it was."""


def case_gradients(mode: Mode, model: nn.Module, optimizer: torch.optim.Optimizer) -> CaseGradients:
    """The way of this name, for the parameters that ``optimizer`` has."""
    if mode == "vmap":
        return VmapGradients(model, optimizer)
    # Opacus takes a second to import, which only those who use it are to wait for.
    from federated.privacy.opacus_gradients import OpacusGradients

    return OpacusGradients(mode, model, parameters_of(optimizer))


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All of an optimiser's parameters, in its order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


class VmapGradients:
    """The gradient of the whole network, vectorised over cases by torch.func."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._model = model
        names = {id(value): name for name, value in model.named_parameters()}
        self._trained = {names[id(value)]: value for value in parameters_of(optimizer)}

    def clipped_sum(
        self, cases: Tensor, objective: Objective, clip: float
    ) -> tuple[Sequence[Tensor], Tensor]:
        """See :class:`CaseGradients`."""
        fixed = {
            name: value.detach()
            for name, value in (*self._model.named_parameters(), *self._model.named_buffers())
            if name not in self._trained
        }

        def loss(values: dict[str, Tensor], image: Tensor, target: Tensor) -> Tensor:
            def model(images: Tensor) -> Tensor:
                logits: Tensor = functional_call(self._model, {**fixed, **values}, (images,))
                return logits

            return objective.of(model, image.unsqueeze(0), target.unsqueeze(0))

        gradients = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")
        values = {name: value.detach() for name, value in self._trained.items()}
        sums, norms = [torch.zeros_like(value) for value in values.values()], []
        for some in torch.split(cases, CASES_AT_ONCE):
            found = gradients(values, *objective.take(some))
            parts, of_cases = clip_and_sum([found[name] for name in values], clip)
            norms.append(of_cases)
            for total, part in zip(sums, parts, strict=True):
                total += part
        return sums, torch.cat(norms)

    def close(self) -> None:
        """Nothing to undo."""
