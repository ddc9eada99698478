"""FedBN: normalisation layers stay at the sites.

Li et al. 2021, "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization",
Algorithm 1: every tensor is averaged except those of the normalisation layers. The paper has batch
normalisation (``model.norm=batch``: scale, shift and running statistics stay); with another norm of
``model.norm`` the same rule keeps its scale and shift.
"""

from typing import ClassVar, Literal

from torch import nn

from federated.strategies.base import RECORD, Strategy, Units
from models.norm import norm_tensors


class FedBN(Strategy):
    """FedAvg on all tensors but the normalisation layers'; each site has a model of its own."""

    name: Literal["fedbn"] = "fedbn"

    covered_by_privacy: ClassVar[Units] = RECORD

    def personal(self, model: nn.Module) -> frozenset[str]:
        """The names of the tensors of the normalisation layers."""
        return norm_tensors(model)
