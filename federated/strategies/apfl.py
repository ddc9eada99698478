"""APFL: each site's model is a mixture of its own and the global one.

Deng et al. 2020, "Adaptive Personalized Federated Learning" (arXiv 2003.13461), Algorithm 1: a site
uses v̄ = α·v + (1 − α)·w, trains v on the loss of v̄ and w on its own loss, and with ``adapt``
moves α against ⟨v − w, ∇f(v̄)⟩ (Eq. 10).

What is chosen here: the optimiser of the experiment moves v̄ itself, around the w that the round
begins with, and v = (v̄ − (1 − α)·w) / α follows. α moves once a round, by the mean of its
gradients, and stays in [0.05, 1], where v is defined.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from pydantic import Field
from torch import nn

from federated.strategies.base import OWN, SiteStart, Strategy
from federated.training.rule import LocalPass, LocalRule
from federated.update import Arrays, Layout, Vector

ALPHA = "alpha"
LEAST = 0.05


class MixtureRule(LocalRule):
    """Leaves the gradients as they are and sums up ⟨v̄ − w, ∇f(v̄)⟩ over the steps."""

    def __init__(self, start: SiteStart, model: nn.Module) -> None:
        self.anchor = start.tensors(model)
        self.sum, self.steps = 0.0, 0

    def adjust_gradients(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Add this step's product."""
        self.steps += 1
        for name, parameter in parameters:
            if parameter.grad is not None:
                away = parameter.detach() - self.anchor[name]
                self.sum += float((away * parameter.grad).sum())


class APFL(Strategy):
    """Mixing with the weight ``alpha`` at the start and, if it adapts, the rate ``alpha_lr``."""

    name: Literal["apfl"] = "apfl"
    alpha: float = Field(default=0.5, ge=LEAST, le=1)
    adapt: bool = True
    alpha_lr: float = Field(default=0.01, gt=0)

    def personal_weights(self, weights: Vector, layout: Layout, memory: Arrays) -> Vector:
        """The mixture v̄ ``(size,)`` once the site has a v, and the global weights before that."""
        if OWN not in memory:
            return weights
        alpha = np.float32(memory[ALPHA][0])
        mixed: Vector = alpha * memory[OWN] + (1 - alpha) * weights
        return mixed

    def passes(self, start: SiteStart) -> Sequence[LocalPass]:
        """The pass of the mixture, and then that of the global model."""
        own = self.personal_weights(start.weights, start.layout, start.memory)
        return [
            LocalPass(lambda model: MixtureRule(start, model), own),
            LocalPass(lambda _: LocalRule(), start.weights),
        ]

    def personal_state(
        self, ended: Sequence[Vector], rules: Sequence[LocalRule], start: SiteStart
    ) -> Arrays:
        """The site's own model v ``(size,)`` and its α ``(1,)``."""
        rule = rules[0]
        assert isinstance(rule, MixtureRule)
        alpha = float(start.memory[ALPHA][0]) if ALPHA in start.memory else self.alpha
        own = (ended[0] - np.float32(1 - alpha) * start.weights) / np.float32(alpha)
        if self.adapt:
            # v̄ − w is α·(v − w).
            slope = rule.sum / max(rule.steps, 1) / alpha
            alpha = min(1.0, max(LEAST, alpha - self.alpha_lr * slope))
        return {OWN: own, ALPHA: np.array([alpha], np.float32)}
