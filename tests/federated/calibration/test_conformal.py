"""Conformal sets: what is guaranteed holds exactly, and what is told of it is right."""

import json
from itertools import product
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from federated.calibration.conformal import Sets, rank, threshold_bin
from federated.settings.sections import MOST_MISSED, Conformal


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


ALPHAS = st.floats(min_value=1e-12, max_value=MOST_MISSED)


@given(st.integers(0, 10**6), ALPHAS)
def test_the_rank_is_the_least_that_covers_enough_and_never_none(cases, alpha):
    found = rank(cases, alpha)
    assert 1 <= found <= cases + 1
    slack = 2e-9 / (cases + 1)  # of rounding
    assert found / (cases + 1) >= 1 - alpha - slack
    assert (found - 1) / (cases + 1) < 1 - alpha


@pytest.mark.parametrize("alpha", [1 - 1e-12, 1 - 1e-15])
def test_where_none_would_have_to_be_covered_there_is_no_rank(alpha):
    with pytest.raises(ValueError, match="none of 3 cases has to be covered"):
        rank(3, alpha)


@given(st.lists(st.integers(0, 9), max_size=60), ALPHAS)
def test_a_threshold_covers_as_many_as_the_rank_asks_for_and_the_next_bin_does_not(values, alpha):
    of_true = np.bincount(values, minlength=10)
    at, wanted = threshold_bin(of_true, alpha), rank(len(values), alpha)
    if wanted > len(values):
        assert at == 0
    else:
        assert of_true[at:].sum() >= wanted
        assert of_true[at + 1 :].sum() < wanted


@given(st.integers(0, 500), st.integers(0, 200), st.floats(0, 1), ALPHAS)
def test_what_is_told_of_sets_are_numbers_between_0_and_1(fitted_on, cases, share, alpha):
    told = Sets(0.5, fitted_on, alpha, cases, round(share * cases), cases).to_json()
    for name in ("interval", "by_chance"):
        if cases:
            low, high = told[name]
            assert 0 <= low <= high <= 1, (name, low, high)
        else:
            assert told[name] is None
    assert "NaN" not in json.dumps(told)


def test_the_settings_allow_no_alpha_without_a_rank():
    assert rank(0, MOST_MISSED) == 1
    with pytest.raises(ValidationError, match=r"less than or equal to 0\.999999"):
        Conformal(alpha=1 - 1e-12)
