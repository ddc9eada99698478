"""Site-level differential privacy: a site's whole update is clipped and noised at the site.

McMahan et al. 2018 ("Learning Differentially Private Recurrent Language Models") with the noise at
each site, as in DPResNet (arXiv 2412.00687): what is sent is clip(Δ, C) + N(0, σ²C²), where
clip(Δ, C) = Δ · min(1, C/‖Δ‖).

Guarantee: (ε, δ) for a site as the unit, where neighbouring federations differ in one site's update
being zero, against everyone who sees what the site sends, the coordinator included; no help of
SecAgg+ or encryption is assumed. What is sent has the weight n_k / Σn applied afterwards, so that
number has to be public. Validation and test cases, of which predictions are shared, are not
covered.
"""

from typing import ClassVar, Literal

import numpy as np

from federated.privacy.accounting import Release
from federated.privacy.ledger import Unit
from federated.privacy.noise import SecretRandom
from federated.privacy.privacy import Private
from federated.update import Vector


class SiteLevel(Private):
    """``clip`` is C, the largest norm that an update keeps."""

    name: Literal["site_level"] = "site_level"

    unit: ClassVar[Unit | None] = "site"
    mechanism: ClassVar[str] = "gaussian"

    def sampling(self, cases: int, steps: int, batch_size: int) -> tuple[float, int]:
        """One mechanism a round, on all that the site has."""
        return 1.0, 1

    def update_noise(self, release: Release) -> float:
        """σC."""
        return release.noise_multiplier * self.clip

    def protect_update(self, update: Vector, release: Release, random: SecretRandom) -> Vector:
        """The clipped and noised update."""
        clipped = clip(update, self.clip)
        noise = random.normal(update.shape)
        return (clipped + self.update_noise(release) * noise).astype(np.float32)


def clip(update: Vector, norm: float) -> Vector:
    """``update`` scaled down to at most ``norm`` in length."""
    length = float(np.linalg.norm(update.astype(np.float64)))
    return update if length <= norm else (update * (norm / length)).astype(np.float32)
