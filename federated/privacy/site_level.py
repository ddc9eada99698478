"""Site-level differential privacy: a site's whole update is clipped and noised at the site.

McMahan et al. 2018 ("Learning Differentially Private Recurrent Language Models") with the noise at
each site, as in DPResNet (arXiv 2412.00687): what is sent is clip(Δ, C) + N(0, σ²C²), where
clip(Δ, C) = Δ · min(1, C/‖Δ‖). The noise is new in every release (:mod:`federated.privacy.noise`).

With ``adaptive``, C is that of all sites and follows a private quantile of the norms of their
updates from round to round (Andrew et al. 2021): each site sends, beside its update and in the
clear, whether it was at most C long, with noise of its own. Both releases together are one Gaussian
mechanism of the noise multiplier that is planned and entered: a zero update sends +½ and a long one
−½, so the bit has sensitivity 1 (:mod:`federated.privacy.adaptive_clipping`).

Guarantee: (ε, δ) for a site as the unit, where neighbouring federations differ in one site's update
being zero, against everyone who sees what the site sends, the coordinator included; no help of
SecAgg+ or encryption is assumed. What is sent has the weight n_k / Σn applied afterwards, so that
number has to be public. Validation and test cases are not covered: statistics of them, or
predictions, are shared.
"""

from typing import ClassVar, Literal

import numpy as np

from federated.privacy.accounting import Release
from federated.privacy.adaptive_clipping import SITE_SENSITIVITY, AdaptiveClipping
from federated.privacy.base import Private
from federated.privacy.noise import SecretRandom
from federated.settings.base import Unit
from federated.update import Scalars, Vector

# The number of norms that a site counts in a round: that of its update alone.
ONE_NORM = 1.0

# A normal draw is beyond so many standard deviations with a probability below 1e-22.
MOST_DEVIATIONS = 10.0

# The scalar by which the clipping norm follows a quantile (b_i of Andrew et al. 2021), less ½.
BELOW_CLIP = "below_clip"


class SiteLevel(Private):
    """Noise on each site's update; ``clip`` is C, the largest norm that an update keeps.

    With ``adaptive`` it is the norm of the first round.
    """

    name: Literal["site_level"] = "site_level"
    adaptive: AdaptiveClipping | None = None

    unit: ClassVar[Unit | None] = "site"
    mechanism: ClassVar[str] = "gaussian"

    @property
    def scalar_names(self) -> frozenset[str]:
        """The name of the clip indicator, where the norm follows a quantile; otherwise none."""
        return frozenset({BELOW_CLIP} if self.adaptive else ())

    def sampling(self, cases: int, steps: int, batch_size: int) -> tuple[float, int]:
        """One mechanism in a round, on all that the site has."""
        return 1.0, 1

    def initial_clip(self) -> float | None:
        """The norm C where it changes, and ``None`` otherwise."""
        return self.clip if self.adaptive else None

    def largest_scalar(self, release: Release) -> float:
        """½ and as many deviations of the indicator's noise as no draw of it has."""
        if self.adaptive is None:
            return 0.0
        noise = self.adaptive.noise_of_count(release.noise_multiplier, ONE_NORM, SITE_SENSITIVITY)
        return 0.5 + MOST_DEVIATIONS * noise

    def next_clip(self, clip: float, means: Scalars) -> float:
        """The norm C after a round in which the share ½ + ``means[BELOW_CLIP]`` was at most C."""
        assert self.adaptive is not None
        return self.adaptive.next_norm(clip, means[BELOW_CLIP] + 0.5)

    def update_noise(self, release: Release, clip: float) -> float:
        """The standard deviation σC; with ``adaptive`` it is a little more.

        The count is released then too, and takes a part of the noise multiplier.
        """
        noise = release.noise_multiplier
        if self.adaptive:
            noise = self.adaptive.noise_of_sum(noise, ONE_NORM, SITE_SENSITIVITY)
        return noise * clip

    def protect_update(
        self, update: Vector, release: Release, clip: float, random: SecretRandom
    ) -> tuple[Vector, Scalars]:
        """The clipped and noised update and, if ``adaptive``, the noised clip indicator.

        The indicator is +½ before its noise if the update was at most C long, and −½ otherwise. The
        update and what replaces it are ``(parts * shared,)``.
        """
        clipped = clip_to(update, clip)
        noise = random.normal(update.shape)
        noised = (clipped + self.update_noise(release, clip) * noise).astype(np.float32)
        if self.adaptive is None:
            return noised, {}
        count_noise = self.adaptive.noise_of_count(
            release.noise_multiplier, ONE_NORM, SITE_SENSITIVITY
        )
        indicator = 0.5 if clipped is update else -0.5
        noise_of_it = count_noise * float(random.normal((1,))[0])
        return noised, {BELOW_CLIP: indicator + noise_of_it}


def finite_or_zero(update: Vector) -> Vector:
    """The update ``(n,)`` itself, or zeros where one of its values is not a finite number.

    No clipping would bound such a value, and whoever saw it would know that the update was not
    zero.
    """
    return update if np.isfinite(update).all() else np.zeros_like(update)


def clip_to(update: Vector, norm: float) -> Vector:
    """The update ``(n,)`` scaled down to at most ``norm`` in length; itself where it is no longer.

    An update that is not finite counts as zero.
    """
    update = finite_or_zero(update)
    length = float(np.linalg.norm(update.astype(np.float64)))
    return update if length <= norm else (update * (norm / length)).astype(np.float32)
