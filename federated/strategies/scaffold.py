"""SCAFFOLD: control variates take the drift out of local steps.

Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning",
Algorithm 1. A local step uses g − c_k + c in place of the gradient g (line 10); afterwards c_k
becomes the mean gradient of the site's local steps, which is Option II (line 12) for plain SGD and
is defined for every optimiser. The server moves c by the mean change of the c_k (line 17).

What is chosen here: the weights are n_k / Σn instead of equal ones, for the model and for c alike,
so that the objective is that of the other strategies and Σ_k (n_k / n)·c_k = c at all times. The
change of c_k travels with the update, which makes twice the values.
"""

from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from federated.strategies.base import (
    RECORD_AND_SITE,
    Participation,
    Server,
    SiteStart,
    Strategy,
    Units,
)
from federated.training.rule import LocalRule, LocalWork
from federated.update import Arrays, Layout, Vector

CONTROL = "control"


class ControlRule(LocalRule):
    """Adds c − c_k to the gradient, and keeps the sum of the gradients before that correction."""

    def __init__(self, correction: Mapping[str, torch.Tensor]) -> None:
        self.correction = correction
        self.sums: dict[str, torch.Tensor] = {}
        self.steps = 0

    def adjust_gradients(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Correct the gradients, in place."""
        self.steps += 1
        for name, parameter in parameters:
            if parameter.grad is None:
                continue
            if name in self.sums:
                self.sums[name].add_(parameter.grad)
            else:
                self.sums[name] = parameter.grad.detach().clone()
            parameter.grad.add_(self.correction[name])

    def mean_gradient(self, layout: Layout) -> Vector:
        """The mean gradient over the steps, ``(shared,)``; 0 where nothing was trained."""
        mean = np.zeros(layout.size, np.float32)
        for name, part in layout.split(mean).items():
            if name in self.sums:
                part[...] = (self.sums[name] / max(self.steps, 1)).float().cpu().numpy()
        return mean[layout.shared]


class Scaffold(Strategy):
    """Averaging with control variates; ``server_lr`` is η_g of the paper."""

    name: Literal["scaffold"] = "scaffold"
    server_lr: float = Field(default=1.0, gt=0)

    covered_by_privacy: ClassVar[Units] = RECORD_AND_SITE

    def sent_sizes(self, change: float) -> tuple[float, ...]:
        """Two parts: the update and the change of the control variate."""
        return change, change

    def local_rule(self, model: nn.Module, start: SiteStart) -> LocalRule:
        """The rule that corrects by c − c_k; at a site that never took part c_k is 0."""
        control = start.broadcast[CONTROL]
        difference = np.zeros(start.layout.size, np.float32)
        difference[start.layout.shared] = control - start.memory.get(CONTROL, 0)
        parameters = dict(model.named_parameters())
        return ControlRule(
            {
                name: torch.from_numpy(part.copy()).to(parameters[name].device)
                for name, part in start.layout.split(difference).items()
                if name in parameters
            }
        )

    def site_update(
        self, update: Vector, rule: LocalRule, work: LocalWork, start: SiteStart
    ) -> tuple[Vector, Arrays]:
        """The update Δ_k and the change of c_k, ``(2 * shared,)``; c_k ``(shared,)`` is kept."""
        assert isinstance(rule, ControlRule)
        control = rule.mean_gradient(start.layout)
        change = control - start.memory.get(CONTROL, np.zeros_like(control))
        return np.concatenate([update, change]), {CONTROL: control}

    def open_server(self, weights: Vector) -> Server:
        """The server with c = 0 before the first round, for weights ``(shared,)``."""
        return Server(weights, {CONTROL: np.zeros_like(weights)})

    def server_step(self, server: Server, mean: Vector, who: Participation) -> Server:
        """Apply x ← x + η_g·mean Δ and c ← c + (the sites' share of all cases)·mean change.

        ``mean`` is ``(2 * shared,)``: first the mean update, then the mean change of the control
        variates.
        """
        update, change = np.split(mean, 2)
        weights = server.weights + np.float32(self.server_lr) * update
        control = server.broadcast[CONTROL] + np.float32(who.share) * change
        return Server(weights, {CONTROL: control}, server.memory)
