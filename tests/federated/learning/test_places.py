"""What the number and the sum of places tell of scores in a bin."""

from itertools import product

import numpy as np
import pytest

from federated.learning.places import FEW, PLACES, lowest_and_highest, shares_of_places


def shares(count, total):
    return shares_of_places(np.array([count]), np.array([total]))[0]


def test_of_one_score_it_is_its_place_and_of_equal_extremes_theirs():
    np.testing.assert_array_equal(shares(1, 5), np.eye(PLACES)[5])
    np.testing.assert_array_equal(shares(3, 0), np.eye(PLACES)[0])
    np.testing.assert_array_equal(shares(3, 3 * (PLACES - 1)), np.eye(PLACES)[-1])


@pytest.mark.parametrize("total", [1, 7, 22, 40, 44])
def test_of_three_scores_it_is_what_counting_all_of_that_sum_gives(total):
    all_three = np.array(list(product(range(PLACES), repeat=3)))
    of_that_sum = all_three[all_three.sum(axis=1) == total]
    expected = np.bincount(of_that_sum[:, 0], minlength=PLACES) / len(of_that_sum)
    np.testing.assert_allclose(shares(3, total), expected, rtol=0, atol=1e-12)
    low, high = lowest_and_highest(np.array([3]), np.array([total]))
    assert (low[0], high[0]) == (of_that_sum.min(), of_that_sum.max())


@pytest.mark.parametrize("count", [1, 2, FEW, FEW + 1, 200, 10**6])
def test_they_sum_to_one_and_have_the_mean_that_is_told(count):
    for total in np.unique(np.linspace(0, count * (PLACES - 1), 50).astype(int)):
        found = shares(count, total)
        assert found.min() >= 0
        assert found.sum() == pytest.approx(1, abs=1e-12)
        assert found @ np.arange(PLACES) == pytest.approx(total / count, abs=1e-9)


def test_from_few_to_many_it_is_nearly_the_same():
    """One score more with the same mean changes no share by more than a fiftieth."""
    for mean in (1, 4, 7, 12):
        few, many = shares(FEW, FEW * mean), shares(FEW + 1, (FEW + 1) * mean)
        np.testing.assert_allclose(few, many, rtol=0, atol=0.02)


def test_bins_with_few_and_with_many_scores_are_answered_each_for_itself():
    counts, sums = np.array([1, 500, 2, 17]), np.array([3, 4000, 17, 20])
    found = shares_of_places(counts, sums)
    for row, count, total in zip(found, counts, sums, strict=True):
        np.testing.assert_array_equal(row, shares(count, total))
