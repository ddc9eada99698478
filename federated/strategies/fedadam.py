"""FedAdam: Adam as the server's optimiser.

Reddi et al. 2021, "Adaptive Federated Optimization", Algorithm 2, FedAdam:
v ← β2·v + (1 − β2)·Δ².
"""

from typing import ClassVar, Literal

from pydantic import Field

from federated.strategies.adaptive_server import Hyperparameters, adaptive_step, open_moments
from federated.strategies.base import RECORD_AND_SITE, Participation, Server, Strategy, Units
from federated.update import Vector


class FedAdam(Strategy):
    """FedAvg's sites, with a server step by the first and second moments of the mean update."""

    name: Literal["fedadam"] = "fedadam"
    server_lr: float = Field(default=0.01, gt=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.99, ge=0, lt=1)
    tau: float = Field(default=1e-3, gt=0)

    covered_by_privacy: ClassVar[Units] = RECORD_AND_SITE

    def open_server(self, weights: Vector) -> Server:
        """The server with the moments before the first round, for weights ``(shared,)``."""
        return open_moments(weights, self.tau)

    def server_step(self, server: Server, mean: Vector, who: Participation) -> Server:
        """One step of Adam with the mean update ``(shared,)``."""
        settings = Hyperparameters(self.server_lr, self.beta1, self.beta2, self.tau)
        return adaptive_step(
            server,
            mean,
            settings,
            lambda v, square: self.beta2 * v + (1 - self.beta2) * square,
        )
