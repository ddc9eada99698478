"""Whole numbers in digits: sums are exact, and what is no sum of numbers is refused."""

import numpy as np
import pytest

from federated.compression.quantize import largest_quantised
from federated.errors import ConsiliumError
from federated.protection.digits import (
    LARGEST_BOUND,
    Bounds,
    digit_base,
    digits_of_one,
    summed_numbers,
    to_digits,
)

BOUNDS = Bounds(((3, 0), (2, 1), (4, 127), (5, 128), (2, 10**6), (2, LARGEST_BOUND)))


def drawn(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.integers(0, most + 1, count) for count, most in BOUNDS.parts])


@pytest.mark.parametrize("bits", [2, 8, 12, 16])
def test_the_sum_of_digits_is_the_sum_of_numbers(bits):
    base = digit_base(bits)
    # Three sites at most for the largest bound: more would not fit in 62 bits.
    vectors = [drawn(seed) for seed in range(3)]
    digits = [to_digits(vector, BOUNDS, base) for vector in vectors]
    assert {each.shape for each in digits} == {(BOUNDS.digits(base),)}
    assert all(each.min() >= 0 and each.max() < base for each in digits)
    total = sum(each.astype(np.float64) for each in digits)
    np.testing.assert_array_equal(summed_numbers(total, BOUNDS, base, 3), sum(vectors))


def test_how_many_digits_a_number_has_follows_from_its_bound_alone():
    assert [digits_of_one(most, 128) for most in (0, 1, 127, 128, 128**2 - 1, 128**2)] == [
        *(1, 1, 1, 2, 2, 3),
    ]
    assert BOUNDS.digits(2) == 3 + 2 + 4 * 7 + 5 * 8 + 2 * 20 + 2 * 61


def test_the_base_is_what_quantised_values_reach_and_no_more():
    assert [digit_base(bits) - 1 for bits in (2, 8, 16)] == list(map(largest_quantised, (2, 8, 16)))


def test_bounds_one_after_the_other_are_those_of_both_vectors():
    both = Bounds(((2, 5),)) + Bounds(((0, 1), (3, 7)))
    assert both == Bounds(((2, 5), (0, 1), (3, 7)))
    assert both.length == 5


@pytest.mark.parametrize("wrong", [-1, 2])
def test_a_number_beyond_its_bound_is_not_written(wrong):
    with pytest.raises(ValueError, match="from 0 to 1"):
        to_digits(np.array([wrong]), Bounds(((1, 1),)), 128)
    with pytest.raises(ValueError, match="for 1 numbers"):
        to_digits(np.array([1, 1]), Bounds(((1, 1),)), 128)


@pytest.mark.parametrize("bounds", [((-1, 1),), ((1, -1),), ((1, LARGEST_BOUND + 1),)])
def test_bounds_that_are_none_are_refused(bounds):
    with pytest.raises(ValueError, match="a bound is none"):
        Bounds(bounds)


@pytest.mark.parametrize(
    ("digits", "said"),
    [
        ([1.5, 0.0], "no whole number"),
        ([np.nan, 0.0], "no whole number"),
        ([-1.0, 0.0], "a digit is not from 0 to 381"),
        ([382.0, 0.0], "a digit is not from 0 to 381"),
        ([381.0, 5.0], "a number is not from 0 to 600"),
        ([0.0, 381.0], "a number is not from 0 to 600"),
    ],
)
def test_what_is_no_sum_of_three_sites_numbers_is_refused(digits, said):
    """Each of at most 200, in two digits of 7 bits."""
    bounds = Bounds(((1, 200),))
    assert summed_numbers(np.array([88.0, 4.0]), bounds, 128, 3) == 600
    with pytest.raises(ConsiliumError, match=f"A sum over the sites is refused: .*{said}"):
        summed_numbers(np.array(digits), bounds, 128, 3)


def test_digits_that_would_not_fit_into_64_bits_are_refused():
    bounds = Bounds(((1, LARGEST_BOUND),))
    many = np.full(bounds.digits(128), 127.0 * 1000)
    with pytest.raises(ConsiliumError, match="a number is not from 0 to 4611686018427387904"):
        summed_numbers(many, bounds, 128, 1000)


def test_a_sum_of_another_length_is_refused():
    with pytest.raises(ValueError, match="digits"):
        summed_numbers(np.zeros(3), Bounds(((1, 1),)), 128, 3)
