"""Adaptive server optimisers, which take the mean update for a gradient.

Reddi et al. 2021, "Adaptive Federated Optimization", Algorithm 2: m ← β1·m + (1 − β1)·Δ; v by the
optimiser's own rule; x ← x + η·m / (√v + τ). As there, m starts at 0, v starts at τ², and there is
no bias correction.
"""

from abc import abstractmethod

import numpy as np
import numpy.typing as npt
from pydantic import Field

from federated.strategies.base import Participation, Server, Strategy
from federated.update import Vector

Moment = npt.NDArray[np.float64]


class AdaptiveServer(Strategy):
    """FedAvg's sites, with a server step by the first and second moments of the mean update.

    ``server_lr``, ``beta1``, ``beta2`` and ``tau`` are the paper's η, β1, β2 and τ.
    """

    server_lr: float = Field(default=0.01, gt=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.99, ge=0, lt=1)
    tau: float = Field(default=1e-3, gt=0)

    @abstractmethod
    def second_moment(self, before: Moment, square: Moment) -> Moment:
        """The new v from the old one and Δ², all ``(shared,)`` and float64."""

    def open_server(self, weights: Vector) -> Server:
        """The server with weights ``(shared,)``, the first moment 0 and the second moment τ²."""
        moments = {"m": np.zeros_like(weights), "v": np.full_like(weights, self.tau**2)}
        return Server(weights, memory=moments)

    def server_step(self, server: Server, mean: Vector, who: Participation) -> Server:
        """One step with the mean update Δ ``(shared,)``; the moments lie in the server's memory."""
        delta = mean.astype(np.float64)
        m = self.beta1 * server.memory["m"] + (1 - self.beta1) * delta
        v = self.second_moment(server.memory["v"].astype(np.float64), delta**2)
        weights = server.weights + self.server_lr * m / (np.sqrt(v) + self.tau)
        memory = {"m": m.astype(np.float32), "v": v.astype(np.float32)}
        return Server(weights.astype(np.float32), server.broadcast, memory)
