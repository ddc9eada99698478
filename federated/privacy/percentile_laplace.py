"""Laplace noise at a percentile of the update's own values, as ADP-FL has it (arXiv 2604.06518).

The paper clips updates at a threshold that follows a percentile of gradient norms and adds Laplace
noise scaled to that threshold. What is chosen where it leaves things open: C is the
``percentile``-th percentile of |Δ_i| over the values of a site's update, and at most ``clip``; what
is sent is max(−C, min(C, Δ_i)) + Lap(z·C) for every value i.

Guarantee: none. C is found from the update itself and used without noise, so that the noise's own
width tells of the data. Were C public, one value of one round had ε = 1/z (neighbours differ in the
value being zero), and d values over T rounds d·T/z, which is no bound worth the name where d is in
the thousands. The mechanism is here to be compared with; its entries in the ledger compose to no ε,
and a site with a budget does not take part. ``site_level`` with ``adaptive`` stands in its place.
"""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from federated.privacy.accounting import UNACCOUNTED, Release
from federated.privacy.base import Private
from federated.privacy.noise import SecretRandom
from federated.settings.base import Unit
from federated.update import Scalars, Vector


class PercentileLaplace(Private):
    """Laplace noise without a guarantee.

    ``clip`` is the largest threshold; ``noise_multiplier`` is z, the scale of the noise over C;
    ``percentile`` is in (0, 100].
    """

    name: Literal["percentile_laplace"] = "percentile_laplace"
    percentile: float = Field(default=95.0, gt=0, le=100)

    unit: ClassVar[Unit | None] = "site"
    mechanism: ClassVar[str] = UNACCOUNTED

    @model_validator(mode="after")
    def _no_target(self) -> "PercentileLaplace":
        if self.noise_multiplier is None:
            raise ValueError(
                "percentile_laplace has no guarantee that composes, so no epsilon can be asked of "
                "it. Set noise_multiplier, or use site_level with adaptive"
            )
        return self

    def sampling(self, cases: int, steps: int, batch_size: int) -> tuple[float, int]:
        """One mechanism in a round, on all that the site has."""
        return 1.0, 1

    def update_noise(self, release: Release, clip: float) -> float:
        """The standard deviation of the noise at the largest threshold, √2·z·C."""
        return float(np.sqrt(2)) * release.noise_multiplier * clip

    def protect_update(
        self, update: Vector, release: Release, clip: float, random: SecretRandom
    ) -> tuple[Vector, Scalars]:
        """The update ``(parts * shared,)`` clipped at its percentile, with noise on each value."""
        threshold = min(clip, float(np.percentile(np.abs(update), self.percentile)))
        # The inverse of Laplace's distribution function, at uniform numbers.
        centred = random.uniform(update.size) - 0.5
        noise = -np.sign(centred) * np.log1p(-2 * np.abs(centred))
        scale = release.noise_multiplier * threshold
        noised = np.clip(update, -threshold, threshold) + scale * noise
        return noised.astype(np.float32), {}

    def warnings(self, cases: int, sites: int) -> list[str]:
        """The warning that there is no guarantee, and what else a person should know."""
        found = (
            "privacy.name=percentile_laplace gives no guarantee that composes: the threshold comes "
            "from the update itself, without noise. No epsilon is reported"
        )
        return [found, *super().warnings(cases, sites)]
