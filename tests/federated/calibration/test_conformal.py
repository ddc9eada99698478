"""Conformal sets: what is guaranteed holds exactly, and what is told of it is right."""

from itertools import product
from math import ceil

import numpy as np
import pytest

from federated.calibration.conformal import Sets, rank, threshold_bin


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2, 1 / 3])
@pytest.mark.parametrize("cases", [0, 1, 9, 19, 29, 99, 999, 9999])
def test_the_rank_is_the_finite_sample_one_without_a_rounding(alpha, cases):
    from fractions import Fraction

    exact = Fraction(alpha).limit_denominator(1000)
    assert rank(cases, alpha) == ceil((cases + 1) * (1 - exact))


def test_the_threshold_is_the_largest_that_covers_enough():
    #                   1  2  3  4  5: places of ten cases
    of_true = np.array([1, 1, 2, 3, 3])
    # ceil(11 * 0.75) = 9 cases are in bin 1 or above.
    assert threshold_bin(of_true, 0.25) == 1
    # ceil(11 * 0.5) = 6.
    assert threshold_bin(of_true, 0.5) == 3
    # 11 * 0.95 is more than there are.
    assert threshold_bin(of_true, 0.05) == 0
    assert threshold_bin(np.zeros(4, np.int64), 0.1) == 0


@pytest.mark.parametrize("alpha", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("values", [[0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 1, 3], [2, 2, 2, 2, 2, 2]])
def test_each_case_in_turn_is_covered_by_the_others_often_enough(values, alpha):
    """Exchangeability, counted out: of n + 1 cases each is the new one once."""
    covered = 0
    for new in range(len(values)):
        others = [value for at, value in enumerate(values) if at != new]
        covered += values[new] >= threshold_bin(np.bincount(others, minlength=6), alpha)
    assert covered / len(values) >= 1 - alpha - 1e-12


def test_without_ties_no_more_is_covered_than_the_rank_asks_for():
    for alpha, cases in product((0.1, 0.3), (9, 14, 29)):
        values = np.random.default_rng(cases).permutation(cases + 1)
        covered = [
            value >= threshold_bin(np.bincount(np.delete(values, at), minlength=64), alpha)
            for at, value in enumerate(values)
        ]
        assert np.mean(covered) == pytest.approx(rank(cases, alpha) / (cases + 1))


def test_coverage_of_many_draws_is_where_it_is_said_to_be_by_chance():
    rng, inside, shares = np.random.default_rng(0), 0, []
    for _ in range(400):
        val, test = rng.integers(0, 512, 50), rng.integers(0, 512, 80)
        at = threshold_bin(np.bincount(val, minlength=512), 0.1)
        sets = Sets(0.5, 50, 0.1, 80, int((test >= at).sum()), 80)
        assert sets.by_chance is not None
        assert sets.coverage is not None
        inside += sets.by_chance[0] <= sets.coverage <= sets.by_chance[1]
        shares.append(sets.coverage)
    # 46 of 51; the standard error of the mean is 0.003.
    assert np.mean(shares) == pytest.approx(rank(50, 0.1) / 51, abs=0.01)
    assert inside / 400 >= 0.93


def test_the_interval_is_that_of_clopper_and_pearson():
    from scipy.stats import binomtest

    for covered, cases in ((0, 20), (20, 20), (45, 50), (3, 7)):
        expected = binomtest(covered, cases).proportion_ci(0.95, method="exact")
        assert Sets(0.5, 50, 0.1, cases, covered, cases).interval == pytest.approx(expected)


def test_where_all_classes_are_in_each_set_all_is_covered():
    sets = Sets(0.0, 5, 0.1, 12, 12, 24)
    assert (sets.coverage, sets.size, sets.by_chance) == (1.0, 2.0, (1.0, 1.0))


def test_without_a_test_case_nothing_is_said_of_coverage():
    told = Sets(0.4, 50, 0.1, 0, 0, 0).to_json()
    assert {k: v for k, v in told.items() if v is not None} == {
        "threshold": 0.4,
        "validation_cases": 50,
        "cases": 0,
        "covered": 0,
    }
