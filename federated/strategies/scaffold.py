"""SCAFFOLD: control variates take the drift out of local steps.

Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning",
Algorithm 1. A local step uses g − c_k + c in place of the gradient g (line 10); afterwards c_k
becomes the mean gradient of the site's local steps, which is Option II (line 12) for plain SGD and
is defined for every optimiser. The server moves c by the mean change of the c_k (line 17).

Chosen here: weights n_k / Σn instead of equal ones, in the model as in c, so that the objective is
that of the other strategies and Σ_k (n_k / n)·c_k = c at all times. The change of c_k travels with
the update: twice the values.
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
    """Adds c − c_k to the gradient, and keeps the sum of the gradients before that."""

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
        """Mean gradient on the shared values; 0 where nothing was trained."""
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
        """Update and change of the control variate."""
        return change, change

    def local_rule(self, model: nn.Module, start: SiteStart) -> LocalRule:
        """Correct by c − c_k; a site that never took part has c_k = 0."""
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
        """Send Δ_k and the change of c_k; keep c_k."""
        assert isinstance(rule, ControlRule)
        control = rule.mean_gradient(start.layout)
        change = control - start.memory.get(CONTROL, np.zeros_like(control))
        return np.concatenate([update, change]), {CONTROL: control}

    def open_server(self, weights: Vector) -> Server:
        """c = 0."""
        return Server(weights, {CONTROL: np.zeros_like(weights)})

    def server_step(self, server: Server, mean: Vector, who: Participation) -> Server:
        """x ← x + η_g·mean Δ; c ← c + (their share of all cases)·mean change."""
        update, change = np.split(mean, 2)
        weights = server.weights + np.float32(self.server_lr) * update
        control = server.broadcast[CONTROL] + np.float32(who.share) * change
        return Server(weights, {CONTROL: control}, server.memory)
