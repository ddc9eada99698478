"""FedProx: a proximal term keeps each site near the global weights.

Li et al. 2020, "Federated Optimization in Heterogeneous Networks", Eq. 2:
h_k(w; w_t) = F_k(w) + (μ/2)·‖w − w_t‖². Its exact gradient μ·(w − w_t) is added to the loss's.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from pydantic import Field

from federated.strategies.strategy import Strategy


class FedProx(Strategy):
    """FedAvg with the proximal term; μ = 0 is FedAvg."""

    name: Literal["fedprox"] = "fedprox"
    mu: float = Field(default=0.01, ge=0)

    def add_gradient(
        self,
        parameters: Iterable[tuple[str, torch.nn.Parameter]],
        anchor: Mapping[str, torch.Tensor],
    ) -> None:
        """Add μ·(w − w_t) to every parameter's gradient."""
        for name, parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - anchor[name], alpha=self.mu)
