"""A clipping norm that follows a quantile of the norms it clips (Andrew et al. 2021, NeurIPS).

C ← C · exp(−η (b̃ − γ)), Eq. 2 there, with b̃ the noised share of norms that are at most C: so C
grows while that share is below γ, and falls while it is above.

The counts are released too. A case changes Σ (b_i − ½) by at most ½, so that noise of σ_b on it and
of z_Δ·C on the sum of gradients, with z_Δ = (z⁻² − (2σ_b)⁻²)^(−½), is together one Gaussian
mechanism of noise multiplier z (Theorem 1 there). That z stands in the plan and in the ledger, and
nothing further is spent on the norm.
"""

from math import exp, sqrt
from typing import Annotated

from pydantic import Field

from federated.configuration.settings import Settings
from federated.errors import ConsiliumError

# σ_b where none is given: this share of the expected batch, as in the paper, but at least so many
# times z: in a batch of a few cases a twentieth would take nearly all of z from the gradients.
COUNT_NOISE_SHARE = 0.05
LEAST_COUNT_NOISE = 2.0


class AdaptiveClipping(Settings):
    """``quantile`` is γ, the share of norms that are not clipped; ``rate`` is η.

    ``count_noise`` is σ_b, in cases. It is a twentieth of the expected batch where it is left out,
    and at least twice z, so that the gradients' own noise rises by no more than 3.3 %.
    """

    quantile: float = Field(default=0.5, gt=0, lt=1)
    rate: float = Field(default=0.2, gt=0)
    count_noise: Annotated[float, Field(gt=0)] | None = None

    def noise_of_count(self, noise_multiplier: float, expected_batch: float) -> float:
        """σ_b; 0 without any noise."""
        if noise_multiplier == 0:
            return 0.0
        if self.count_noise is not None:
            return self.count_noise
        return max(COUNT_NOISE_SHARE * expected_batch, LEAST_COUNT_NOISE * noise_multiplier)

    def noise_of_sum(self, noise_multiplier: float, expected_batch: float) -> float:
        """z_Δ, the gradients' noise over C, for a total of z = ``noise_multiplier``.

        Raises:
            ConsiliumError: the counts alone would tell more than z allows.
        """
        if noise_multiplier == 0:
            return 0.0
        count_noise = self.noise_of_count(noise_multiplier, expected_batch)
        left = noise_multiplier**-2 - (2 * count_noise) ** -2
        if left <= 0:
            raise ConsiliumError(
                f"privacy.adaptive.count_noise={count_noise:g} is too little: the counts alone "
                f"would tell more than a noise multiplier of {noise_multiplier:.3g} allows. Set it "
                f"above {noise_multiplier / 2:.3g}, or leave it out."
            )
        return 1 / sqrt(left)

    def next_norm(self, norm: float, share: float) -> float:
        """C after a step in which the share b̃ of norms was at most C; b̃ may leave [0, 1]."""
        return norm * exp(-self.rate * (share - self.quantile))
