"""FedAdam: Adam as the server's optimiser.

Reddi et al. 2021, "Adaptive Federated Optimization", Algorithm 2, FedAdam:
v ← β2·v + (1 − β2)·Δ².
"""

from typing import ClassVar, Literal

from federated.strategies.adaptive_server import AdaptiveServer, Moment
from federated.strategies.base import RECORD_AND_SITE, Units


class FedAdam(AdaptiveServer):
    """FedAvg's sites, with a server step of Adam."""

    name: Literal["fedadam"] = "fedadam"

    covered_by_privacy: ClassVar[Units] = RECORD_AND_SITE
    keeps_nothing: ClassVar[bool] = True

    def second_moment(self, before: Moment, square: Moment) -> Moment:
        """Adam's v from the old one and Δ², all ``(shared,)``."""
        return self.beta2 * before + (1 - self.beta2) * square
