"""Ditto: each site also trains a model of its own, which may not go far from the global one.

Li et al. 2021, "Ditto: Fair and Robust Federated Learning Through Personalization", Algorithm 1:
the personal model descends on F_k(v) + (λ/2)·‖v − w_t‖², where w_t is the global model that the
round begins with; the global one is trained as in FedAvg. The model that a site uses is v.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from federated.strategies.base import OWN, SiteStart, Strategy
from federated.strategies.fedprox import ProximalRule
from federated.training.rule import LocalPass, LocalRule
from federated.update import Arrays, Vector


class Ditto(Strategy):
    """Personal models near the global one: ``lam`` is λ of the paper.

    The personal model is trained for ``personal_epochs`` if that is set, and otherwise for
    ``training.local_epochs``.
    """

    name: Literal["ditto"] = "ditto"
    lam: float = Field(default=0.1, ge=0)
    personal_epochs: int | None = Field(default=None, ge=1)

    def passes(self, start: SiteStart) -> Sequence[LocalPass]:
        """The pass of the personal model near the global one, and then that of the global one."""
        own = self.personal_weights(start.weights, start.layout, start.memory)
        return [
            LocalPass(
                lambda model: ProximalRule(self.lam, start.tensors(model)),
                own,
                self.personal_epochs,
            ),
            LocalPass(lambda _: LocalRule(), start.weights),
        ]

    def personal_state(
        self, ended: Sequence[Vector], rules: Sequence[LocalRule], start: SiteStart
    ) -> Arrays:
        """The weights ``(size,)`` of the personal model."""
        return {OWN: ended[0]}
