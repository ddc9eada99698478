"""FedRep: a common representation, and at each site a head that is trained before it.

Collins et al. 2021, "Exploiting Shared Representations for Personalized Federated Learning",
Algorithm 1: a site first trains its own head on the representation as it came, then the
representation under that head, and sends the representation.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from pydantic import Field
from torch import nn

from federated.strategies.base import SiteStart, Strategy
from federated.training.rule import LocalPass, LocalRule
from models.head import head_tensors, is_head


class PartRule(LocalRule):
    """Trains only the parameters for whose names ``trains`` is true."""

    def __init__(self, trains: Callable[[str], bool]) -> None:
        self.trains = trains

    def adjust_gradients(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Remove the gradients of the others, so that the optimiser leaves them as they are."""
        for name, parameter in parameters:
            if not self.trains(name):
                parameter.grad = None


class FedRep(Strategy):
    """Training of the head for ``head_epochs``, then of the rest for ``training.local_epochs``."""

    name: Literal["fedrep"] = "fedrep"
    head_epochs: int = Field(default=1, ge=1)

    def personal(self, model: nn.Module) -> frozenset[str]:
        """The names of the tensors of the head."""
        return head_tensors(model)

    def passes(self, start: SiteStart) -> Sequence[LocalPass]:
        """The pass of the head, and then that of the representation."""
        own = self.personal_weights(start.weights, start.layout, start.memory)
        return [
            LocalPass(lambda _: PartRule(is_head), own, self.head_epochs),
            LocalPass(lambda _: PartRule(lambda name: not is_head(name))),
        ]
