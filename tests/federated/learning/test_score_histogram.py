"""The AUC from histograms: the exact one is always between its bounds, and mostly very near."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.special import logit as log_odds

from federated.learning.classification_metrics import auc
from federated.learning.score_histogram import (
    BINS,
    SCALES,
    WHOLE,
    area,
    macro_area,
    ordered,
    score_bins,
    whole_edges,
)

CLASSES = 11
NEXT_TO = [0.0, 5e-324, 1e-300, 1e-17, 0.5, np.nextafter(0.5, 1), 1 - 1e-16, 1.0]
SCORES = st.one_of(
    st.floats(0, 1),
    st.sampled_from(NEXT_TO),
    st.floats(-45, 45).map(lambda logit: float(expit(logit))),
    st.floats(0.3, 0.3001),
)


def histograms(labels, probabilities):
    classes = probabilities.shape[1]
    found = np.zeros((classes, 2, BINS), np.int64)
    for column in range(classes):
        for positive in (0, 1):
            chosen = probabilities[(labels == column) == bool(positive)]
            bins = score_bins(chosen)[:, column].ravel()
            found[column, positive] = np.bincount(bins, minlength=BINS)
    return found


def two_classes(scores):
    return np.stack([1 - scores, scores], axis=1)


def both(labels, probabilities):
    return macro_area(histograms(labels, probabilities)), auc(labels, probabilities)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), SCORES), min_size=1, max_size=40))
def test_the_exact_area_lies_between_the_bounds_whatever_the_scores_are(cases):
    labels, scores = np.array([y for y, _ in cases]), np.array([p for _, p in cases])
    found, exact = both(labels, two_classes(scores))
    assert (found is None) == (exact is None)
    if found is not None:
        assert found.low - 1e-12 <= exact <= found.high + 1e-12
        assert found.value == pytest.approx((found.low + found.high) / 2)
        assert abs(found.value - exact) <= (found.high - found.low) / 2 + 1e-12


@settings(max_examples=200, deadline=None)
@given(SCORES, SCORES, st.sampled_from([2, 3, CLASSES]))
def test_a_larger_score_never_has_a_smaller_bin(one, other, classes):
    rows = np.array([[min(one, other)] * classes, [max(one, other)] * classes])
    bins = score_bins(rows)
    assert (bins[0, :, 0] <= bins[1, :, 0]).all()
    starts = [0, *(scale.start for scale in SCALES), BINS]
    for number, (start, end) in enumerate(pairwise(starts)):
        assert start <= bins[..., number].min()
        assert bins[..., number].max() < end


@pytest.mark.parametrize("classes", [2, 3, CLASSES])
def test_bins_meet_at_the_uniform_prediction(classes):
    level = whole_edges(classes)
    assert level.shape == (WHOLE - 1,)
    assert (np.diff(level) >= 0).all()
    assert level[WHOLE // 2 - 1] == 1 / classes


@pytest.mark.parametrize("classes", [2, CLASSES])
@pytest.mark.parametrize("logit", [-20, -5, -1, 0, 1, 5, 20])
def test_a_bin_with_one_case_tells_its_score_to_a_fiftieth_of_its_distance(classes, logit):
    """In logits from the uniform prediction: so statistics of few cases hide little."""
    uniform = -np.log(classes - 1)
    score = expit(logit + uniform)
    bin_ = score_bins(np.full((1, classes), score))[0, 1, 0]
    low, high = (log_odds(whole_edges(classes)[k]) - uniform for k in (bin_ - 1, bin_))
    assert low <= logit + 1e-6
    assert logit - 1e-6 <= high
    assert high - low < 0.021 * abs(logit) + 0.012


def drawn(name, cases=3000, seed=0):
    """Labels, and scores of class 1."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(cases) < 0.25).astype(int)
    noise, shift = rng.normal(size=cases), 1.2 * (labels - 0.5)
    scores = {
        "uniform": rng.random(cases),
        "useful": expit(shift + noise),
        "one class is rare": expit(-1.3 + 0.3 * (shift + noise)),
        "sure": expit(12 * (shift + noise)),
        "saturated at 0": expit(-14 + 3 * (shift + noise)),
        "saturated at 1": expit(14 + 3 * (shift + noise)),
        "hardly trained": expit(-1.3 + 0.07 * (shift + noise)),
        "hardly trained, of many classes": expit(-2.4 + 0.06 * (shift + noise)),
        "not trained": expit(0.3 + 0.03 * (shift + noise)),
        "rounded": np.round(expit(shift + noise), 2),
        "perfect": np.where(labels == 1, 0.9, 0.1) + 0.05 * rng.random(cases),
        "the wrong way round": expit(-shift + noise),
    }
    return labels, scores[name]


SHAPES = [
    *("uniform", "useful", "one class is rare", "sure", "saturated at 0", "saturated at 1"),
    *("hardly trained", "hardly trained, of many classes", "not trained"),
    *("rounded", "perfect", "the wrong way round"),
]


@pytest.mark.parametrize("name", SHAPES)
def test_it_is_within_a_thousandth_where_scores_differ(name):
    labels, scores = drawn(name)
    found, exact = both(labels, two_classes(scores))
    assert abs(found.value - exact) < 1e-3
    assert found.low <= exact <= found.high


@pytest.mark.parametrize(("cases", "most"), [(1000, 0.0013), (300, 0.0031), (100, 0.005)])
def test_of_fewer_cases_it_is_off_by_more_and_never_by_more_than_is_told(cases, most):
    """Each tie of a bin is a larger share of the pairs. What is off depends on the shape."""
    worst = 0.0
    for name in SHAPES:
        for seed in range(20):
            labels, scores = drawn(name, cases, seed)
            found, exact = both(labels, two_classes(scores))
            error = abs(found.value - exact)
            assert error <= (found.high - found.low) / 2 + 1e-12
            worst = max(worst, error)
    assert 0.001 < worst < most


@pytest.mark.parametrize("name", ["saturated at 0", "saturated at 1", "sure"])
def test_bins_of_equal_width_would_not_do(name):
    labels, scores = drawn(name)
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    flat = np.stack([np.bincount(bins[labels == y], minlength=BINS) for y in (0, 1)])
    exact = auc(labels, two_classes(scores))
    assert abs(area(flat).value - exact) > 1e-3


def test_where_all_scores_share_a_bin_it_is_a_half_and_may_be_anything():
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


@pytest.mark.parametrize("turn", [-3.0, -0.02, 0.0, 0.7, 12.3])
def test_a_scale_tells_the_order_wherever_its_turn_begins(turn):
    """Scores 0.0031 logits apart, in order: each is in a bin of its own on the finest scale."""
    scores = expit(turn + 0.0031 * np.arange(60))
    labels = (np.arange(60) >= 45).astype(int)
    counts = histograms(labels, two_classes(scores))[1]
    found = ordered(counts, 2)
    assert found.shape == (2, SCALES[-1].turn)
    assert found.max() == 1
    assert area(found).low == 1.0
    assert counts[:, :WHOLE].max() > 1


def test_scores_beyond_a_turn_are_told_by_the_next_scale_and_at_last_by_the_whole_range():
    labels = np.array([0, 1])
    sizes = []
    for apart in (0.01, 0.6, 3.0, 9.0):
        counts = histograms(labels, two_classes(expit(np.array([0.0, apart]))))[1]
        assert area(ordered(counts, 2)).low == 1.0
        sizes.append(ordered(counts, 2).shape[1])
    assert sizes == [256, 256, 256, WHOLE]


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
