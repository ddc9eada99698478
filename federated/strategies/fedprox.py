"""FedProx: a proximal term keeps each site near the global weights.

Li et al. 2020, "Federated Optimization in Heterogeneous Networks", Eq. 2: h_k(w; w_t) = F_k(w) +
(μ/2)·‖w − w_t‖². The exact gradient of the term, μ·(w − w_t), is added to that of the loss.
"""

from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from federated.strategies.base import RECORD_AND_SITE, SiteStart, Strategy, Units
from federated.training.rule import LocalRule


class ProximalRule(LocalRule):
    """Adds μ·(w − w_t) to every parameter's gradient; ``anchor`` has w_t by parameter names."""

    def __init__(self, mu: float, anchor: Mapping[str, torch.Tensor]) -> None:
        self.mu, self.anchor = mu, anchor

    def adjust_gradients(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Add the proximal gradient, in place."""
        for name, parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - self.anchor[name], alpha=self.mu)


class FedProx(Strategy):
    """FedAvg with the proximal term; ``mu`` is μ, and with μ = 0 it is FedAvg."""

    name: Literal["fedprox"] = "fedprox"
    mu: float = Field(default=0.01, ge=0)

    covered_by_privacy: ClassVar[Units] = RECORD_AND_SITE
    keeps_nothing: ClassVar[bool] = True

    def local_rule(self, model: nn.Module, start: SiteStart) -> LocalRule:
        """The proximal term around the weights that ``model`` holds."""
        return ProximalRule(self.mu, {n: p.detach().clone() for n, p in model.named_parameters()})
