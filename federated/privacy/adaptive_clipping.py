"""A clipping norm that follows a quantile of the norms it clips (Andrew et al. 2021, NeurIPS).

C ← C · exp(−η (b̃ − γ)), Eq. 2 there, with b̃ the noised share of norms that are at most C: so C
grows while that share is below γ, and falls while it is above.

The counts are released too. Where one unit more or less changes Σ (b_i − ½) by at most s, noise of
σ_b on it and of z_Δ·C on the sum of what is clipped, with z_Δ = (z⁻² − (σ_b/s)⁻²)^(−½), is together
one Gaussian mechanism of noise multiplier z (Theorem 1 there, which has s = ½). That z stands in
the plan and in the ledger, and nothing further is spent on the norm.

s is ½ where a unit is there or not, as a case is in a step: it adds ½ or −½, or nothing. It is 1
where a unit's update is zero instead, as a site's is: a zero update is at most C long and sends ½,
a long one sends −½, and the two are furthest apart in the clipped update at the same time.
"""

from math import exp, sqrt
from typing import Annotated

from pydantic import Field

from federated.errors import ConsiliumError
from federated.settings.base import Settings

# s, the most that one unit changes Σ (b_i − ½) by: a case that is there or not, a site whose update
# is zero or not.
CASE_SENSITIVITY, SITE_SENSITIVITY = 0.5, 1.0
# σ_b where none is given: this share of the expected batch, as in the paper, but at least this many
# times s·z: in a batch of a few cases a twentieth would take nearly all of z from the gradients.
COUNT_NOISE_SHARE = 0.05
LEAST_COUNT_NOISE = 4.0


class AdaptiveClipping(Settings):
    """A clipping norm that follows the quantile ``quantile`` of the norms.

    ``quantile`` is γ, the share of norms that are not clipped, and ``rate`` is η. ``count_noise``
    is σ_b, in cases or in sites. Where it is left out it is a twentieth of the expected batch, and
    at least four times z·s, which is twice z for cases and four times z for sites, so that the
    noise of what is clipped rises by no more than 3.3 %.
    """

    quantile: float = Field(default=0.5, gt=0, lt=1)
    rate: float = Field(default=0.2, gt=0)
    count_noise: Annotated[float, Field(gt=0)] | None = None

    def noise_of_count(
        self,
        noise_multiplier: float,
        expected_batch: float,
        sensitivity: float = CASE_SENSITIVITY,
    ) -> float:
        """The noise σ_b of counts that one unit changes by ``sensitivity``; 0 without any noise.

        Args:
            noise_multiplier: z, at least 0.
            expected_batch: how many norms are counted on average.
            sensitivity: s, the most that one unit changes the count by.
        """
        if noise_multiplier == 0:
            return 0.0
        if self.count_noise is not None:
            return self.count_noise
        least = LEAST_COUNT_NOISE * sensitivity * noise_multiplier
        return max(COUNT_NOISE_SHARE * expected_batch, least)

    def noise_of_sum(
        self,
        noise_multiplier: float,
        expected_batch: float,
        sensitivity: float = CASE_SENSITIVITY,
    ) -> float:
        """The noise z_Δ of what is clipped, over C, for a total of z = ``noise_multiplier``.

        Args:
            noise_multiplier: z, at least 0.
            expected_batch: how many norms are counted on average.
            sensitivity: s, as in :meth:`noise_of_count`.

        Raises:
            ConsiliumError: the counts alone would tell more than z allows.
        """
        if noise_multiplier == 0:
            return 0.0
        count_noise = self.noise_of_count(noise_multiplier, expected_batch, sensitivity)
        left = noise_multiplier**-2 - (sensitivity / count_noise) ** 2
        if left <= 0:
            raise ConsiliumError(
                f"privacy.adaptive.count_noise={count_noise:g} is too little: the counts alone "
                f"would tell more than a noise multiplier of {noise_multiplier:.3g} allows. Set it "
                f"above {sensitivity * noise_multiplier:.3g}, or leave it out."
            )
        return 1 / sqrt(left)

    def next_norm(self, norm: float, share: float) -> float:
        """C after a step in which the share b̃ of norms was at most C; b̃ may be outside [0, 1]."""
        return norm * exp(-self.rate * (share - self.quantile))
