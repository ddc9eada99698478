"""Quantised sums with discrete Gaussian noise (Kairouz, Liu and Steinke 2021, arXiv 2102.06387).

Each site scales its vector to a grid, rounds it at random, and adds integer noise of its own; what
is released is the sum. A sum of n discrete Gaussians is nearly a discrete Gaussian, and how nearly
is in the bound: with each site's noise σ on the grid, and vectors of norm Δ and length d after
rounding, the sum is ½ε²-concentrated private (their Theorem 1) with

    ε = min( √(Δ²/(nσ²) + τd/2),  Δ/(√n σ) + τ√d ),   τ = 10 Σ_{j<n} exp(−2π² σ² j/(j+1)).

1/ε takes the place of the noise multiplier of a Gaussian in the accounting of Rényi divergences,
which are the same. It may not do so in PRV, which uses more of the Gaussian than that.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, exp, pi, sqrt

import numpy as np
import numpy.typing as npt

from federated.compression.quantize import largest_quantised
from federated.errors import ConsiliumError
from federated.privacy.noise import SecretRandom
from federated.update import Doubles, Quantised

# The noise is drawn by 53-bit numbers, which reach no value further out than this many standard
# deviations: those values together have a probability below 2^-53.
TAIL = 8.3
# β of conditional rounding: a bound on the chance that a rounding has to be tried again.
BETA = exp(-0.5)


@dataclass(frozen=True)
class NoisyGrid:
    """How a site's weighted vector becomes noised values; it is the same at all sites of a round.

    ``step`` is the width of the grid, in units of the weighted values. The rest is in steps of the
    grid: ``clip`` is the norm before rounding, ``norm`` the largest norm after it, and ``sigma``
    the standard deviation of a site's noise.
    """

    step: float
    clip: float
    norm: float
    sigma: float

    def quantise(self, values: Doubles, random: SecretRandom) -> Quantised:
        """The clipped, rounded and noised values ``(n,)`` of a site's weighted ones ``(n,)``."""
        scaled = values / self.step
        length = float(np.linalg.norm(scaled))
        if length > self.clip:
            scaled *= self.clip / length
        noise = discrete_normal(self.sigma, len(values), random)
        quantised: Quantised = (self._rounded(scaled, random) + noise).astype(np.int32)
        return quantised

    def _rounded(self, scaled: Doubles, random: SecretRandom) -> npt.NDArray[np.int64]:
        """Round each value to one of the two integers beside it, until the norm is in its bound.

        This is their Algorithm 2. That it is tried again makes the mean a little smaller, by
        design.
        """
        while True:
            rounded = np.floor(scaled + random.uniform(len(scaled))).astype(np.int64)
            if np.linalg.norm(rounded) <= self.norm:
                return rounded


@lru_cache(maxsize=16)
def fit_grid(
    clip: float, noise_multiplier: float, bits: int, length: int, noisy_sites: int
) -> NoisyGrid:
    """The finest grid on which quantised values hold every site's values with their noise.

    Args:
        clip: the largest norm of a site's weighted vector.
        noise_multiplier: of the sum, over ``clip``.
        bits: the bits of a quantised value.
        length: the number of values in the vector.
        noisy_sites: how many sites' noise is in the sum.

    Raises:
        ConsiliumError: there are too few bits for this much noise.
    """
    largest = largest_quantised(bits)

    def grid(clip_steps: float) -> NoisyGrid:
        norm = norm_after_rounding(clip_steps, length)
        sigma = _sigma(norm, noise_multiplier, length, noisy_sites)
        return NoisyGrid(clip / clip_steps, clip_steps, norm, sigma)

    def fits(found: NoisyGrid) -> bool:
        return found.norm + TAIL * found.sigma + 1 <= largest

    low, high = 1e-3, float(largest)
    if not fits(grid(low)):
        raise ConsiliumError(
            f"compression.bits={bits} has no room for the noise of privacy.name="
            f"site_level_distributed in a vector of {length} values: with a noise multiplier of "
            f"{noise_multiplier:.3g} from {noisy_sites} sites, a site's values reach "
            f"{grid(low).norm + TAIL * grid(low).sigma:.0f}, and the largest is {largest}. Raise "
            "compression.bits, or privacy.epsilon, or send fewer values by "
            "compression.name=shared_mask."
        )
    while high / low > 1 + 1e-6:
        middle = sqrt(low * high)
        low, high = (middle, high) if fits(grid(middle)) else (low, middle)
    return grid(low)


def norm_after_rounding(clip: float, length: int) -> float:
    """The bound Δ on the norm of a vector of norm ``clip`` after conditional rounding.

    It is their Eq. 4, on a grid of width 1; ``length`` is the number of values in the vector.
    """
    root = sqrt(length)
    conditional = clip**2 + length / 4 + sqrt(-2 * np.log(BETA)) * (clip + root / 2)
    return min(clip + root, sqrt(conditional))


def sum_noise_multiplier(norm: float, sigma: float, length: int, noisy_sites: int) -> float:
    """The noise multiplier 1/ε of the theorem: what the sum's noise is worth, over its sensitivity.

    Args:
        norm: Δ, the sensitivity, in steps of the grid.
        sigma: the standard deviation of each site's noise, in steps of the grid.
        length: d, the number of values in the vector.
        noisy_sites: n, how many sites' noise is in the sum.
    """
    tau = 10 * sum(exp(-2 * pi**2 * sigma**2 * j / (j + 1)) for j in range(1, noisy_sites))
    ideal = norm / (sqrt(noisy_sites) * sigma)
    found = min(sqrt(ideal**2 + tau * length / 2), ideal + tau * sqrt(length))
    return 1 / found


def _sigma(norm: float, noise_multiplier: float, length: int, noisy_sites: int) -> float:
    """The smallest noise of a site, to a millionth, with which the sum has the multiplier."""
    low = norm * noise_multiplier / sqrt(noisy_sites)
    if sum_noise_multiplier(norm, low, length, noisy_sites) >= noise_multiplier * (1 - 1e-12):
        return low
    high = low + 4
    while high / low > 1 + 1e-6:
        middle = (low + high) / 2
        enough = sum_noise_multiplier(norm, middle, length, noisy_sites) >= noise_multiplier
        low, high = (low, middle) if enough else (middle, high)
    return high


def discrete_normal(sigma: float, count: int, random: SecretRandom) -> npt.NDArray[np.int64]:
    """Draw ``count`` integers with probabilities in proportion to exp(−x²/(2σ²)).

    They come from the inverse of the distribution function, and are as exact as 53-bit uniform
    numbers are.
    """
    values, cumulative = _distribution(sigma)
    drawn: npt.NDArray[np.int64] = values[np.searchsorted(cumulative, random.uniform(count))]
    return drawn


@lru_cache(maxsize=4)
def _distribution(sigma: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The integers within the tail, and the probability of each or a smaller one but for the last.

    The probabilities are added up from both ends, so that each half is as exact as the other.
    """
    end = ceil(TAIL * sigma)
    values = np.arange(-end, end + 1)
    mass = np.exp(-0.5 * (values / sigma) ** 2)
    mass /= mass.sum()
    lower = np.cumsum(mass[:end])
    upper = 1 - np.cumsum(mass[:end:-1])[::-1]
    return values, np.concatenate([lower, upper])
