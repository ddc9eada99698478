"""FedYogi: Yogi as the server's optimiser.

Reddi et al. 2021, "Adaptive Federated Optimization", Algorithm 2, FedYogi:
v ← v − (1 − β2)·Δ²·sign(v − Δ²).
"""

from typing import ClassVar, Literal

import numpy as np

from federated.strategies.adaptive_server import AdaptiveServer, Moment
from federated.strategies.base import RECORD_AND_SITE, Units


class FedYogi(AdaptiveServer):
    """FedAvg's sites, with a server step of Yogi."""

    name: Literal["fedyogi"] = "fedyogi"

    covered_by_privacy: ClassVar[Units] = RECORD_AND_SITE
    keeps_nothing: ClassVar[bool] = True

    def second_moment(self, before: Moment, square: Moment) -> Moment:
        """Yogi's v from the old one and Δ², all ``(shared,)``."""
        return before - (1 - self.beta2) * square * np.sign(before - square)
