"""FedAvgM: momentum at the server.

Hsu et al. 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated
Visual Classification" (arXiv 1909.06335), Section 4.3: v ← β·v + Δ; w ← w + η·v.
"""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from federated.strategies.base import RECORD_AND_SITE, Participation, Server, Strategy, Units
from federated.update import Vector


class FedAvgM(Strategy):
    """FedAvg's sites, with the mean update added to what is left of the earlier ones.

    ``momentum`` is β and ``server_lr`` is η: updates that agree move the weights by η / (1 − β)
    times their length.
    """

    name: Literal["fedavgm"] = "fedavgm"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    server_lr: float = Field(default=1.0, gt=0)

    covered_by_privacy: ClassVar[Units] = RECORD_AND_SITE
    keeps_nothing: ClassVar[bool] = True

    def open_server(self, weights: Vector) -> Server:
        """The server with a velocity of 0 before the first round, for weights ``(shared,)``."""
        return Server(weights, memory={"velocity": np.zeros_like(weights)})

    def server_step(self, server: Server, mean: Vector, who: Participation) -> Server:
        """One step of momentum with the mean update ``(shared,)``."""
        velocity = self.momentum * server.memory["velocity"].astype(np.float64) + mean
        weights = server.weights + self.server_lr * velocity
        memory = {"velocity": velocity.astype(np.float32)}
        return Server(weights.astype(np.float32), server.broadcast, memory)
