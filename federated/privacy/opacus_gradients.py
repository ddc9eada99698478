"""Gradients of single cases by Opacus' hooks on a network's layers."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from opacus.grad_sample import GradSampleHooks, GradSampleHooksFastGradientClipping
from opacus.grad_sample.functorch import ft_compute_per_sample_gradient
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from torch import Tensor, nn

from federated.objective import Objective
from federated.privacy.clipping import clip_and_sum

# A layer's own formula, torch.func layer by layer, or norms alone with a second backward pass.
OpacusMode = Literal["hooks", "functorch", "ghost"]


class OpacusGradients:
    """See :class:`federated.privacy.case_gradients.CaseGradients`."""

    def __init__(
        self, mode: OpacusMode, model: nn.Module, parameters: Sequence[nn.Parameter]
    ) -> None:
        self._model, self._ghost = model, mode == "ghost"
        self._parameters: Sequence[Any] = parameters
        kind: Any = GradSampleHooksFastGradientClipping if self._ghost else _UsedOnce
        self._hooks = kind(model, loss_reduction="sum", force_functorch=mode == "functorch")

    def clipped_sum(
        self, cases: Tensor, objective: Objective, clip: float
    ) -> tuple[Sequence[Tensor], Tensor]:
        """See :class:`federated.privacy.case_gradients.CaseGradients`."""
        self.zero_grad()
        with warnings.catch_warnings():
            # The images need no gradient, which is as it should be.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            losses = objective.of(self._model, *objective.take(cases), "none")
            if self._ghost:
                return self._by_norms(losses, clip)
            torch.autograd.backward(losses.sum())
        found = clip_and_sum([parameter.grad_sample for parameter in self._parameters], clip)
        for parameter in self._parameters:
            parameter.grad_sample = None
        return found

    def _by_norms(self, losses: Tensor, clip: float) -> tuple[Sequence[Tensor], Tensor]:
        self._hooks.max_grad_norm = clip
        # What it takes for an optimiser sets gradients to zero between the two passes.
        optimizer: Any = self
        DPTensorFastGradientClipping(self._hooks, optimizer, losses, "sum").backward()
        return [p.grad for p in self._parameters], self._hooks.per_sample_gradient_norms

    def zero_grad(self) -> None:
        """Forget the gradients there are."""
        for parameter in self._parameters:
            parameter.grad = None

    def close(self) -> None:
        """Leave the model as it was."""
        self._hooks.cleanup()


class _UsedOnce(GradSampleHooks):  # type: ignore[misc] # opacus has no types
    """Opacus' hooks for networks that use each layer once in a step, as all here do.

    What a layer gives is kept as it is. Opacus adds it into zeros, since others might follow, and
    that took a quarter of a step's time and half of its memory.
    """

    def capture_backprops_hook(
        self,
        module: nn.Module,
        _forward_input: Any,
        forward_output: Any,
        loss_reduction: str,
        batch_first: bool,
    ) -> None:
        """Leave the gradients of a layer's cases in ``grad_sample`` of its parameters."""
        activations, backprops = self.rearrange_grad_samples(
            module=module,
            backprops=forward_output[0].detach(),
            loss_reduction=loss_reduction,
            batch_first=batch_first,
        )
        assert not module.activations, f"{type(module).__name__} is used twice in a step"
        sampler = self.GRAD_SAMPLERS.get(type(module), ft_compute_per_sample_gradient)
        if self.force_functorch:
            sampler = ft_compute_per_sample_gradient
        for parameter, gradients in sampler(module, activations, backprops).items():
            if parameter.requires_grad:
                parameter.grad_sample = gradients
        del module.max_batch_len
