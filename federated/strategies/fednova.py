"""FedNova: sites that take more steps do not pull harder.

Wang et al. 2020, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated
Optimization", Eqs. 6 and 7: a site sends d_k = Δ_k / ‖a_k‖₁, and the server applies w ← w + τ_eff·Σ
p_k·d_k with τ_eff = Σ p_k·‖a_k‖₁. For plain SGD ‖a_k‖₁ is the number of local steps; for momentum ρ
it is (τ − ρ(1 − ρ^τ)/(1 − ρ)) / (1 − ρ) (Section 4). The paper leaves AdamW open; the number of
steps is chosen here.

The server knows each site's steps from its number of cases, which the weights n_k / Σn tell too.
"""

from typing import ClassVar, Literal

import numpy as np

from federated.strategies.base import (
    RECORD_AND_SITE,
    Participation,
    Server,
    SiteStart,
    Strategy,
    Units,
)
from federated.training.rule import LocalRule, LocalWork
from federated.update import Arrays, Vector


def accumulated(work: LocalWork) -> float:
    """The norm ‖a_k‖₁: how often a gradient of constant size enters the update."""
    rho, tau = work.momentum, work.steps
    return (tau - rho * (1 - rho**tau) / (1 - rho)) / (1 - rho)


class FedNova(Strategy):
    """Averaging of normalised updates."""

    name: Literal["fednova"] = "fednova"

    covered_by_privacy: ClassVar[Units] = RECORD_AND_SITE
    keeps_nothing: ClassVar[bool] = True

    def site_update(
        self, update: Vector, rule: LocalRule, work: LocalWork, start: SiteStart
    ) -> tuple[Vector, Arrays]:
        """The normalised update Δ_k / ‖a_k‖₁, ``(shared,)``, and nothing to keep."""
        return update / np.float32(accumulated(work)), {}

    def server_step(self, server: Server, mean: Vector, who: Participation) -> Server:
        """Apply w ← w + τ_eff·mean, with the mean of the normalised updates ``(shared,)``."""
        total = sum(who.weights.values())
        effective = sum(p * accumulated(who.work[site]) for site, p in who.weights.items()) / total
        weights = server.weights + np.float32(effective) * mean
        return Server(weights, server.broadcast, server.memory)
