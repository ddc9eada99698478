"""Local training only, in which no site sends anything.

It is the baseline that a federation must beat to be worth it.
"""

from typing import ClassVar, Literal

from torch import nn

from federated.strategies.base import Strategy


class Local(Strategy):
    """Every site trains a model of its own, from common initial weights."""

    name: Literal["local"] = "local"
    sends_updates: ClassVar[bool] = False

    def personal(self, model: nn.Module) -> frozenset[str]:
        """The names of all tensors."""
        return frozenset(model.state_dict())
