"""The AUC from histograms: the exact one is always between its bounds, and mostly very near."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.special import logit as log_odds

from benchmarks.auc_of_statistics import (
    BALANCED,
    HARDLY_TRAINED,
    SHAPES,
    both,
    drawn,
    largest_error,
)
from federated.learning.classification_metrics import auc
from federated.learning.places import PLACES
from federated.learning.score_histogram import (
    BINS,
    TURN,
    WHOLE,
    score_area,
    score_histograms,
    score_steps,
    step_bins,
    step_edges,
)

CLASSES = 11
NEXT_TO = [0.0, 5e-324, 1e-300, 1e-17, 0.5, np.nextafter(0.5, 1), 1 - 1e-16, 1.0]
SCORES = st.one_of(
    st.floats(0, 1),
    st.sampled_from(NEXT_TO),
    st.floats(-45, 45).map(lambda logit: float(expit(logit))),
    st.floats(0.3, 0.3001),
)


def two_classes(scores):
    return np.stack([1 - scores, scores], axis=1)


def of_class_1(labels, scores):
    """The counts and sums of places of two classes' scores, of class 1 alone."""
    positive = np.stack([1 - labels, labels], axis=1)
    counts, sums = score_histograms(score_steps(two_classes(scores)), positive)
    return counts[1], sums[1]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), SCORES), min_size=1, max_size=40))
def test_the_exact_area_lies_between_the_bounds_whatever_the_scores_are(cases):
    labels, scores = np.array([y for y, _ in cases]), np.array([p for _, p in cases])
    found, exact = both(labels, two_classes(scores))
    assert (found is None) == (exact is None)
    if found is not None:
        assert found.low - 1e-12 <= exact <= found.high + 1e-12
        assert found.low - 1e-12 <= found.value <= found.high + 1e-12


@settings(max_examples=200, deadline=None)
@given(SCORES, SCORES, st.sampled_from([2, 3, CLASSES]))
def test_a_larger_score_never_has_a_smaller_step(one, other, classes):
    rows = np.array([[min(one, other)] * classes, [max(one, other)] * classes])
    steps = score_steps(rows)
    assert (steps[0] <= steps[1]).all()
    assert 0 <= steps.min() <= steps.max() < WHOLE * PLACES
    whole, turned = np.moveaxis(step_bins(steps), -1, 0)
    assert 0 <= whole.min() <= whole.max() < WHOLE
    assert WHOLE <= turned.min() <= turned.max() < WHOLE + TURN == BINS


@pytest.mark.parametrize("classes", [2, 3, CLASSES])
def test_bins_meet_at_the_uniform_prediction(classes):
    level = step_edges(classes)
    assert level.shape == (WHOLE * PLACES - 1,)
    assert (np.diff(level) >= 0).all()
    assert level[WHOLE * PLACES // 2 - 1] == 1 / classes
    below, above = score_steps(np.array([[1 / classes], [np.nextafter(1 / classes, 1)]]), classes)
    assert step_bins(above)[0, 0] == step_bins(below)[0, 0] + 1 == WHOLE // 2


@pytest.mark.parametrize("classes", [2, CLASSES])
@pytest.mark.parametrize("logit", [-20, -5, -1, 0, 1, 5, 20])
def test_what_is_told_of_a_lone_case_is_its_score_to_a_sixteenth_of_a_fiftieth(classes, logit):
    """In logits from the uniform prediction: so statistics of few cases hide little."""
    uniform = -np.log(classes - 1)
    step = score_steps(np.full((1, classes), expit(logit + uniform)))[0, 1]
    low, high = (log_odds(step_edges(classes)[k]) - uniform for k in (step - 1, step))
    assert low <= logit + 1e-6
    assert logit - 1e-6 <= high
    assert high - low < (0.024 * abs(logit) + 0.013) / PLACES


@pytest.mark.parametrize("name", SHAPES)
def test_it_is_within_a_thousandth_where_scores_differ(name):
    labels, scores = drawn(name, 3000, 0)
    found, exact = both(labels, two_classes(scores))
    assert abs(found.value - exact) < 1e-3
    assert found.low <= exact <= found.high


@pytest.mark.parametrize("name", SHAPES)
def test_of_a_thousand_cases_it_is_within_a_thousandth_in_these_draws(name):
    """Of other draws about two of a thousand are not: docs/results.md has how many."""
    assert largest_error(name, 1000, 30)[0] < 1e-3


@pytest.mark.parametrize("name", BALANCED)
def test_of_300_cases_it_is_within_a_thousandth_where_one_of_four_is_positive(name):
    """And the model has been trained; in these draws, and in 997 of 1000 others."""
    assert largest_error(name, 300, 30)[0] < 1e-3


@pytest.mark.parametrize(("cases", "most"), [(1000, 0.001), (300, 0.002), (100, 0.004)])
def test_of_fewer_cases_it_is_off_by_more(cases, most):
    """A pair of cases that nothing tells apart is a larger share of the pairs."""
    worst = max(largest_error(name, cases, 20)[0] for name in {**BALANCED, **HARDLY_TRAINED})
    assert 0.0004 < worst < most


@pytest.mark.parametrize("name", ["saturated at 0", "saturated at 1", "sure"])
def test_bins_of_equal_width_would_not_do(name):
    """Of scores in such bins the AUC counts ties half."""
    labels, scores = drawn(name, 3000, 0)
    bins = np.floor(scores * BINS)
    assert abs(auc(labels, two_classes(bins)) - auc(labels, two_classes(scores))) > 1e-3


@pytest.mark.parametrize("name", ["saturated at 0", "saturated at 1"])
def test_it_would_not_be_within_a_thousandth_without_the_places(name):
    """With all scores taken to be in the middle of their bins, it is off by more in some draw."""
    errors = []
    for seed in range(30):
        labels, scores = drawn(name, 300, seed)
        counts, _ = of_class_1(labels, scores)
        middle = score_area(counts, (counts[:, :WHOLE] * (PLACES - 1)) // 2)
        errors.append(abs(middle.value - auc(labels, two_classes(scores))))
    assert max(errors) > 1e-3


def test_where_all_scores_share_a_step_it_is_a_half_and_may_be_anything():
    labels = np.array([0, 0, 1, 1])
    scores = 0.3 + 1e-6 * np.array([0, 1, 2, 3])
    found, exact = both(labels, two_classes(scores))
    assert exact == 1.0
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)


def test_no_bins_that_know_nothing_of_the_model_do_for_scores_within_a_thousandth_of_a_logit():
    """So it is said how far off it may be."""
    rng = np.random.default_rng(0)
    labels = (rng.random(3000) < 0.25).astype(int)
    scores = expit(-6 + 0.0004 * (rng.normal(size=3000) + 1.2 * labels))
    found, exact = both(labels, two_classes(scores))
    assert abs(found.value - exact) > 1e-3
    assert found.low <= exact <= found.high
    assert found.high - found.low > 0.1


@pytest.mark.parametrize("first", [0, 1, 511, 4000, 7000, WHOLE * PLACES - 60])
def test_the_turn_tells_the_order_wherever_it_begins(first):
    """A score in each of 60 steps: in bins of the whole range several are together."""
    steps = first + np.arange(60)[:, None]
    labels = (np.arange(60) >= 45).astype(int)
    (counts,), (sums,) = score_histograms(steps, labels[:, None])
    found = score_area(counts, sums)
    assert (found.low, found.value, found.high) == (1.0, 1.0, 1.0)
    assert counts[:, :WHOLE].max() > 1


@pytest.mark.parametrize("apart", [1, 15, 16, 17, 300, TURN - 1, TURN, TURN + 1, 3 * TURN, 5000])
def test_two_scores_that_are_steps_apart_are_told_apart_within_a_turn_and_beyond(apart):
    for first in (0, 7, 1000):
        steps = np.array([[first], [first + apart]])
        (counts,), (sums,) = score_histograms(steps, np.array([[0], [1]]))
        assert score_area(counts, sums).low == 1.0
        (counts,), (sums,) = score_histograms(steps, np.array([[1], [0]]))
        assert score_area(counts, sums).high == 0.0


def test_statistics_of_several_sites_add_up_to_those_of_all_cases():
    labels, scores = drawn("useful", 400, 1)
    whole = of_class_1(labels, scores)
    parts = [of_class_1(labels[k::4], scores[k::4]) for k in range(4)]
    for number, array in enumerate(whole):
        np.testing.assert_array_equal(sum(part[number] for part in parts), array)


def test_places_that_no_scores_have_are_taken_for_the_nearest_that_some_have():
    """Over sites they are summed under encryption, where nobody sees which site lies."""
    labels, scores = drawn("useful", 400, 1)
    counts, sums = of_class_1(labels, scores)
    found = score_area(counts, sums + 10**6)
    assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize("sharpness", [0.1, 0.3, 1, 4, 15])
def test_of_many_classes_it_is_the_mean_of_those_that_occur(sharpness):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, CLASSES - 1, 600)  # none of the last class
    logits = sharpness * (rng.normal(size=(600, CLASSES)) + 1.5 * np.eye(CLASSES)[labels])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found, exact = both(labels, probabilities)
    assert abs(found.value - exact) < 1e-3
    assert found.low <= exact <= found.high


def test_of_one_class_there_is_none():
    labels = np.zeros(3, int)
    assert both(labels, two_classes(np.array([0.1, 0.2, 0.3]))) == (None, None)


def test_ties_count_half_as_in_the_exact_one():
    labels = np.array([0, 1, 0, 1])
    found, exact = both(labels, two_classes(np.array([0.4, 0.4, 0.2, 0.9])))
    assert found.value == exact == 0.875
