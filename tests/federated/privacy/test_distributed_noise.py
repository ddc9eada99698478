"""Shares of discrete noise whose sum is private."""

from dataclasses import replace
from math import log, sqrt

import numpy as np
import pytest
from scipy import stats

from federated.compression import CompressionContext, NoCompression, SharedMask
from federated.errors import ConsiliumError
from federated.privacy import DistributedSiteLevel
from federated.privacy.accounting import Release, epsilon
from federated.privacy.composition import spent
from federated.privacy.discrete_gaussian import (
    TAIL,
    discrete_normal,
    fit_grid,
    norm_after_rounding,
    sum_noise_multiplier,
)
from federated.privacy.ledger import Spending
from federated.privacy.noise import SecretRandom
from federated.update import ModelUpdate

KEY = bytes(range(32))


def pmf(sigma: float, end: int = 400) -> np.ndarray:
    mass = np.exp(-0.5 * (np.arange(-end, end + 1) / sigma) ** 2)
    return mass / mass.sum()


@pytest.mark.parametrize("sigma", [0.6, 2.5, 40.0])
def test_noise_has_the_probabilities_of_the_discrete_gaussian(sigma):
    drawn = discrete_normal(sigma, 200_000, SecretRandom(KEY))
    edge = int(2.5 * sigma)
    inside = np.clip(drawn, -edge - 1, edge + 1) + edge + 1
    seen = np.bincount(inside, minlength=2 * edge + 3)
    mass = pmf(sigma)
    middle = len(mass) // 2
    expected = np.concatenate(
        [
            [mass[: middle - edge].sum()],
            mass[middle - edge : middle + edge + 1],
            [mass[middle + edge + 1 :].sum()],
        ]
    )
    assert stats.chisquare(seen, expected * len(drawn)).pvalue > 1e-3
    assert np.abs(drawn).max() <= TAIL * sigma + 1


def test_rounding_stays_within_its_bound_and_has_the_mean_of_what_it_rounds():
    grid = fit_grid(1.0, 1.0, 16, 50, 4)
    coarse = type(grid)(step=0.5, clip=2.0, norm=norm_after_rounding(2.0, 50), sigma=1e-3)
    random, values = SecretRandom(KEY), np.full(50, 0.1)
    rounded = np.array([coarse.quantise(values, random) for _ in range(4000)])
    assert np.linalg.norm(rounded, axis=1).max() <= coarse.norm
    # 0.1 is a fifth of a level; trying again takes some of it away.
    assert 0.15 < rounded.mean() < 0.2


@pytest.mark.parametrize("length", [1, 1000, 100_000])
@pytest.mark.parametrize("noise_multiplier", [0.5, 3.0])
@pytest.mark.parametrize("noisy", [1, 4, 50])
def test_a_grid_has_room_for_every_level_and_noise_enough(length, noise_multiplier, noisy):
    grid = fit_grid(0.7, noise_multiplier, 16, length, noisy)
    assert grid.norm + TAIL * grid.sigma < 2**15
    found = sum_noise_multiplier(grid.norm, grid.sigma, length, noisy)
    assert noise_multiplier * 0.999_99 < found < noise_multiplier * 1.01
    assert grid.step * grid.clip == pytest.approx(0.7)
    random = SecretRandom(KEY)
    quantised = grid.quantise(np.full(length, 100.0), random)
    assert np.abs(quantised).max() < 2**15


def test_too_few_bits_are_refused_with_the_reason():
    with pytest.raises(ConsiliumError, match=r"compression\.bits=4 has no room for the noise"):
        fit_grid(1.0, 3.0, 4, 90_000, 5)


@pytest.mark.parametrize(("sigma", "sites"), [(0.55, 2), (0.8, 3), (2.0, 5)])
def test_the_sum_is_as_private_as_the_theorem_says(sigma, sites):
    """Against the Rényi divergences of the very distribution of the sum, in one dimension."""
    mass = pmf(sigma, 60)
    total = mass
    for _ in range(sites - 1):
        total = np.convolve(total, mass)
    for shift in (1, 2):
        multiplier = sum_noise_multiplier(shift, sigma, 1, sites)
        for alpha in (1.5, 2.0, 8.0):
            p, q = total[shift:], total[:-shift]
            both = (p > 1e-280) & (q > 1e-280)
            powers = alpha * np.log(p[both]) + (1 - alpha) * np.log(q[both])
            divergence = np.log(np.exp(powers).sum()) / (alpha - 1)
            assert divergence <= alpha / (2 * multiplier**2) * (1 + 1e-6)
    # The correction matters: without it the smallest noise would claim too much.
    assert sum_noise_multiplier(1, 0.3, 1, 2) < 0.9 * 0.3 * sqrt(2)


class TestSum:
    LENGTH, SITES, BITS = 4000, 6, 16

    def rounds(self, privacy, update, compression):
        """The mean of one round in which every site has the same update."""
        release = privacy.plan(100, 7, 16, 20)
        count = compression.count(self.LENGTH)
        grid = privacy.grid(release, self.SITES, self.BITS, count)
        context = CompressionContext(0, 1, (self.LENGTH,), {}, grid.step)
        total = np.zeros(count)
        kept = {}
        for site in range(self.SITES):
            random = SecretRandom(bytes([site]) * 32)
            sent, kept = compression.compress(
                ModelUpdate(f"site-{site}", 1, 100, update),
                1 / self.SITES,
                context,
                {},
                lambda values, random=random: grid.quantise(values, random),
            )
            total += sent.numbers
        mean, _ = compression.expand(total, 1.0, context)
        return mean, kept, context

    def test_the_mean_has_the_clipped_update_and_the_noise_of_one(self):
        update = np.full(self.LENGTH, 1.0, np.float32)
        privacy = DistributedSiteLevel(clip=3.0, noise_multiplier=0.05, missing=0)
        mean, kept, _ = self.rounds(privacy, update, NoCompression(bits=self.BITS))
        assert mean.mean() == pytest.approx(3.0 / sqrt(self.LENGTH), rel=0.05)
        # σC/K, where noise of each for itself would be σC/√K.
        assert mean.std() == pytest.approx(0.05 * 3.0 / self.SITES, rel=0.05)
        assert kept == {}

    def test_shares_are_larger_where_some_may_be_missing(self):
        update = np.zeros(self.LENGTH, np.float32)
        privacy = DistributedSiteLevel(clip=3.0, noise_multiplier=0.5, missing=2)
        mean, _, _ = self.rounds(privacy, update, NoCompression(bits=self.BITS))
        assert mean.std() == pytest.approx(0.25 * sqrt(6 / 4), rel=0.05)
        privacy.refuse_too_little_noise(6, 4)
        with pytest.raises(ConsiliumError, match=r"3 of 6 sites has less noise.*missing=2 may"):
            privacy.refuse_too_little_noise(6, 3)

    def test_what_stays_at_a_site_knows_nothing_of_the_noise(self):
        """A residual that did would take the noise back in the next round."""
        update = np.full(self.LENGTH, 1e-4, np.float32)
        privacy = DistributedSiteLevel(clip=3.0, noise_multiplier=0.5)
        compression = SharedMask(density=0.1, bits=self.BITS)
        mean, kept, context = self.rounds(privacy, update, compression)
        positions = compression.positions(context)
        expected = update.copy()
        expected[positions] = 0
        np.testing.assert_allclose(kept["residual"], expected, atol=1e-10)
        assert np.count_nonzero(np.delete(mean, positions)) == 0


def test_sites_that_tell_others_their_noise_count_among_the_missing():
    """The attack: of ten sites six tell the coordinator their noise, which it takes off the sum."""

    rounds = 20

    def against(colluders: int, missing: int) -> float:
        privacy = DistributedSiteLevel(clip=1.0, epsilon=8.0, delta=1e-5, missing=missing)
        release = privacy.plan(100, 7, 16, rounds)
        grid = privacy.grid(release, 10, 16, 4000)
        left = sum_noise_multiplier(grid.norm, grid.sigma, 4000, 10 - colluders)
        return epsilon([replace(release, noise_multiplier=left)] * rounds, 1e-5, "rdp")

    assert against(colluders=6, missing=6) <= 8.001
    assert against(colluders=1, missing=1) <= 8.001
    assert against(colluders=6, missing=1) > 12


def test_epsilon_is_by_renyi_divergences_whatever_is_asked():
    """A bound on those does not make it a Gaussian for PRV."""
    entry = Spending("distributed discrete gaussian", "site", 4.0, 1.0, 1, 1.0, 1, "r", "e", "s")
    assert spent([entry], "site", 1e-5, "prv") == epsilon([Release(4.0, 1.0, 1)], 1e-5, "rdp")
    # ρ = 1/(2·16), and ε ≤ ρ + 2√(ρ log(1/δ)).
    assert spent([entry], "site", 1e-5, "prv") < 1 / 32 + 2 * sqrt(log(1e5) / 32)
