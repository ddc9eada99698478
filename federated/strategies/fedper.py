"""FedPer: each site has a head of its own on a common backbone.

Arivazhagan et al. 2019, "Federated Learning with Personalization Layers" (arXiv 1912.00818),
Algorithm 1: base layers are averaged, personalisation layers stay, and both are trained together.
Here the personalisation layers are the network's head.
"""

from typing import ClassVar, Literal

from torch import nn

from federated.strategies.base import RECORD, Strategy, Units
from models.head import head_tensors


class FedPer(Strategy):
    """FedAvg on all tensors but the head's; each site has a model of its own."""

    name: Literal["fedper"] = "fedper"

    covered_by_privacy: ClassVar[Units] = RECORD

    def personal(self, model: nn.Module) -> frozenset[str]:
        """The names of the tensors of the head."""
        return head_tensors(model)
