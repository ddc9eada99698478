"""Gradients of single cases by Opacus' hooks on a network's layers."""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from opacus.grad_sample import (
    GradSampleHooks,
    GradSampleHooksFastGradientClipping,
    register_grad_sampler,
)
from opacus.grad_sample.conv import compute_conv_grad_sample
from opacus.grad_sample.functorch import ft_compute_per_sample_gradient, prepare_layer
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from federated.privacy.clipping import clip_and_sum
from federated.training.objective import Objective

# A layer's own formula, torch.func layer by layer, or norms alone with a second backward pass.
OpacusMode = Literal["hooks", "functorch", "ghost"]


def _of_conv2d(
    layer: nn.Conv2d, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    """Opacus' formula for a convolution of pictures, in whatever order their values lie.

    Its own takes features for contiguous. Those of a network with channels last are not, and what
    it read instead was no gradient; with ``ghost``, norms were none that clipping could rest on.
    """
    contiguous = [values.contiguous() for values in activations]
    found: dict[nn.Parameter, Tensor] = compute_conv_grad_sample(layer, contiguous, backprops)
    return found


register_grad_sampler(nn.Conv2d)(_of_conv2d)


class OpacusGradients:
    """See :class:`federated.privacy.case_gradients.CaseGradients`."""

    def __init__(
        self, mode: OpacusMode, model: nn.Module, parameters: Sequence[nn.Parameter]
    ) -> None:
        self._model, self._ghost = model, mode == "ghost"
        self._parameters: Sequence[Any] = parameters
        self._hooks: Any = (
            GradSampleHooksFastGradientClipping(model, loss_reduction="sum")
            if self._ghost
            else _LayerHooks(model, mode == "functorch")
        )

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
                return self._by_norms(cases, losses, objective, clip)
            torch.autograd.backward(losses.sum())
        of_cases = self._hooks.collect()
        return clip_and_sum([of_cases[parameter] for parameter in self._parameters], clip)

    def _by_norms(
        self, cases: Tensor, losses: Tensor, objective: Objective, clip: float
    ) -> tuple[Sequence[Tensor], Tensor]:
        self._hooks.max_grad_norm = clip
        # Opacus takes this for an optimiser, by which it sets gradients to zero between the passes.
        optimizer: Any = self
        DPTensorFastGradientClipping(self._hooks, optimizer, losses, "sum").backward()
        norms: Tensor = self._hooks.per_sample_gradient_norms
        sound = torch.isfinite(norms)
        if sound.all():
            return [p.grad for p in self._parameters], norms
        # No weight takes a loss that is NaN out of a sum, so it is done again without these cases.
        if not sound.any():
            return [torch.zeros_like(p) for p in self._parameters], norms
        sums, _ = self.clipped_sum(cases[sound.cpu()], objective, clip)
        return sums, norms

    def zero_grad(self) -> None:
        """Remove the gradients that there are."""
        for parameter in self._parameters:
            parameter.grad = None

    def close(self) -> None:
        """Leave the model as it was."""
        self._hooks.cleanup()


class _LayerHooks:
    """Opacus' formulas on the layers of a network that uses each layer once in a step.

    All networks here do. What a layer gives is kept as it is. Opacus' own hooks add it into zeros,
    since others might follow, and that took a quarter of a step's time and half of its memory.
    """

    def __init__(self, model: nn.Module, functorch: bool) -> None:
        self._inputs: dict[nn.Module, Tensor] = {}
        self._found: dict[nn.Parameter, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        for module in model.modules():
            if not any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
                continue
            formula: Any = GradSampleHooks.GRAD_SAMPLERS.get(type(module))
            if formula is None or functorch:
                prepare_layer(module)  # copies the layer, so before it has hooks
                formula = ft_compute_per_sample_gradient
            give = partial(self._differentiate, formula)
            self._handles.append(module.register_forward_hook(self._keep_input))
            self._handles.append(module.register_full_backward_hook(give))

    def collect(self) -> dict[nn.Parameter, Tensor]:
        """The gradients ``(n, …)`` of each parameter since they were last collected."""
        found, self._found = self._found, {}
        return found

    def cleanup(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _keep_input(self, module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        assert module not in self._inputs, f"{type(module).__name__} is used twice in a step"
        self._inputs[module] = inputs[0].detach()

    def _differentiate(self, formula: Any, module: nn.Module, _inputs: Any, outputs: Any) -> None:
        gradients = formula(module, [self._inputs.pop(module)], outputs[0].detach())
        self._found.update({p: g for p, g in gradients.items() if p.requires_grad})
