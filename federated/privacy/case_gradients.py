"""Gradients of single cases, clipped and summed up, by torch.func or by Opacus.

All modes give the same numbers and differ in time and memory.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from federated.privacy.clipping import clip_and_sum
from federated.training.objective import Objective, gradients_of_cases

# torch.func on the whole network, or Opacus' three: a layer's own formula, torch.func layer by
# layer, or norms alone with a second backward pass (ghost clipping).
Mode = Literal["vmap", "hooks", "functorch", "ghost"]
# How many cases vmap has in memory at a time; 4 to 32 were tried.
CASES_AT_ONCE = 8


class CaseGradients(Protocol):
    """One way of computing the gradients of single cases."""

    def clipped_sum(
        self, cases: Tensor, objective: Objective, clip: float
    ) -> tuple[Sequence[Tensor], Tensor]:
        """The sum over some cases of their gradients, each clipped to norm ``clip``.

        Args:
            cases: indices ``(n,)``, at least one.
            objective: the cases and the loss on them.
            clip: the clipping norm, > 0.

        Returns:
            The sum for each parameter, in their order and shapes, and the norm of each case before
            it was clipped, ``(n,)``.
        """

    def close(self) -> None:
        """Leave the model as it was."""


def case_gradients(
    mode: Mode, model: nn.Module, parameters: Sequence[nn.Parameter]
) -> CaseGradients:
    """The implementation of this mode, for the parameters that are trained."""
    if mode == "vmap":
        return VmapGradients(model, parameters)
    # Importing Opacus takes a second; only those who use it should wait for it.
    from federated.privacy.opacus_gradients import OpacusGradients

    return OpacusGradients(mode, model, parameters)


class VmapGradients:
    """The gradient of the whole network, vectorised over cases by torch.func."""

    def __init__(self, model: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
        self._model = model
        names = {id(value): name for name, value in model.named_parameters()}
        self._trained = {names[id(value)]: value for value in parameters}

    def clipped_sum(
        self, cases: Tensor, objective: Objective, clip: float
    ) -> tuple[Sequence[Tensor], Tensor]:
        """See :class:`CaseGradients`."""
        gradients = gradients_of_cases(self._model, self._trained, objective.of)
        sums, norms = [torch.zeros_like(value) for value in self._trained.values()], []
        for batch in torch.split(cases, CASES_AT_ONCE):
            found = gradients(*objective.take(batch))
            parts, of_cases = clip_and_sum([found[name] for name in self._trained], clip)
            norms.append(of_cases)
            for total, part in zip(sums, parts, strict=True):
                total += part
        return sums, torch.cat(norms)

    def close(self) -> None:
        """Do nothing, as there is nothing to undo."""
