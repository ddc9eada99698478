"""Local training of some of the values; the gradients of the others are zero."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from federated.training.rule import LocalRule
from federated.update import Flags, Layout


class MaskedRule(LocalRule):
    """Applies ``rule``, and then sets gradients to zero wherever ``trained`` ``(size,)`` is false.

    An optimiser that starts with the round then leaves those values as they are, but for weight
    decay.
    """

    def __init__(self, rule: LocalRule, layout: Layout, trained: Flags) -> None:
        self._rule = rule
        masks = layout.split(trained.astype(np.float32))
        self._masks = {name: torch.from_numpy(mask) for name, mask in masks.items()}

    def adjust_gradients(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Let the rule adjust the gradients, then mask them."""
        named = list(parameters)
        self._rule.adjust_gradients(named)
        for name, parameter in named:
            if parameter.grad is not None:
                # Brought to a GPU once, and not in every step.
                mask = self._masks[name] = self._masks[name].to(parameter.grad.device)
                parameter.grad.mul_(mask)
