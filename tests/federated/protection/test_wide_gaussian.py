"""Discrete Gaussian integers of any width: their probabilities, widths and tails."""

import struct
from math import erf, exp, sqrt

import numpy as np
import pytest
from scipy import stats

from federated.protection import wide_gaussian as sampler
from federated.protection.wide_gaussian import BASE, WIDEST, fresh_source, wide_gaussian, width


@pytest.mark.parametrize("sigma", [1.0, 1024.0, 5e3, 2.0**30, 2.0**45, 2.0**53])
def test_numbers_are_as_wide_as_asked_and_normal(sigma):
    drawn = wide_gaussian(sigma, 200_000, fresh_source()) / width(sigma)
    assert max(sigma, BASE) <= width(sigma) < 1.15 * max(sigma, BASE)
    assert drawn.std() == pytest.approx(1, abs=0.01)
    assert stats.kstest(drawn, "norm").pvalue > 1e-5


def test_every_remainder_is_as_likely():
    """No gaps: a Gaussian of 53-bit numbers, scaled this far, would leave many integers out."""
    drawn = wide_gaussian(2.0**45, 200_000, fresh_source())
    for modulus in (2, 7, 128, 256):
        counted = np.bincount(drawn % modulus, minlength=modulus)
        assert stats.chisquare(counted).pvalue > 1e-5
    far = np.abs(drawn) > 3 * 2.0**45
    assert stats.chisquare(np.bincount(drawn[far] % 2, minlength=2)).pvalue > 1e-5


def test_the_table_is_the_distribution_function_to_the_last_bits():
    end, high, low = sampler._table()
    values = np.arange(-end, end + 1)
    mass = np.exp(-0.5 * (values / BASE) ** 2)
    exact = np.cumsum(mass / mass.sum())[:-1]
    np.testing.assert_allclose(high / 2.0**64, exact, rtol=1e-12, atol=1e-13)
    whole = [int(one) << 64 | int(two) for one, two in zip(high, low, strict=True)]
    assert whole == sorted(whole)
    # Ratios of neighbouring probabilities, in the middle and far out, where doubles have no digits.
    for x in (1, 500, 9 * BASE):
        ratio = (whole[end - x - 1] - whole[end - x - 2]) / (whole[end - x] - whole[end - x - 1])
        assert ratio == pytest.approx(exp(-(2 * x + 1) / (2 * BASE**2)), rel=1e-9)


def test_random_bits_that_agree_with_the_table_in_their_first_half_are_told_apart_by_the_other():
    end, high, low = sampler._table()
    place = end + 3
    for second, expected in ((int(low[place]) - 1, 3), (int(low[place]), 4)):
        bits = struct.pack("<QQ", int(high[place]), second)
        assert wide_gaussian(1.0, 1, lambda count, bits=bits: bits)[0] == expected


def test_the_ends_of_the_random_bits_are_the_ends_of_the_tails():
    end, _, _ = sampler._table()
    assert wide_gaussian(1.0, 1, lambda count: bytes(count))[0] < -13 * BASE
    largest = wide_gaussian(1.0, 1, lambda count: b"\xff" * count)[0]
    assert 13 * BASE < largest <= end
    assert erf(13 / sqrt(2)) == 1.0  # what a double knows of it


def test_what_does_not_fit_64_bits_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        wide_gaussian(2 * WIDEST, 1, fresh_source())


def test_two_sources_give_different_numbers():
    one, other = (wide_gaussian(2.0**45, 10, fresh_source()) for _ in range(2))
    assert (one != other).any()
