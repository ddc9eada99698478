"""The AUC of few bins: its bounds always hold, and it is close for scores that are spread."""

import numpy as np
import pytest

from federated.learning.classification_metrics import auc, rank_area
from federated.learning.coarse_scores import (
    COARSE_BINS,
    coarse_area,
    coarse_bins,
    coarse_counts,
    mean_coarse_area,
)


def drawn(rng, cases, skill, scale=1.0, classes=2):
    labels = rng.integers(0, classes, cases)
    logits = scale * rng.normal(size=(cases, classes))
    logits[np.arange(cases), labels] += scale * skill
    odds = np.exp(logits)
    return labels, odds / odds.sum(axis=1, keepdims=True)


def counts_of(labels, probabilities):
    positive = (labels[:, None] == np.arange(probabilities.shape[1])).astype(np.int64)
    return coarse_counts(coarse_bins(probabilities), positive)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("scale", [0.001, 0.3, 1.0, 8.0])
def test_the_exact_auc_is_between_the_bounds(classes, scale):
    rng = np.random.default_rng(1)
    for _ in range(20):
        labels, probabilities = drawn(rng, 80, 1.0, scale, classes)
        found = mean_coarse_area(counts_of(labels, probabilities), exclusive=True)
        exact = auc(labels, probabilities)
        assert found.low - 1e-12 <= exact <= found.high + 1e-12
        assert found.low <= found.value <= found.high


def test_of_scores_that_are_spread_it_is_within_a_hundredth():
    rng = np.random.default_rng(2)
    for _ in range(50):
        labels, probabilities = drawn(rng, 100, 1.0)
        found = mean_coarse_area(counts_of(labels, probabilities), exclusive=True)
        assert found.value == pytest.approx(auc(labels, probabilities), abs=0.01)


def test_of_scores_that_bins_do_not_tell_apart_the_bounds_say_so():
    labels, probabilities = drawn(np.random.default_rng(0), 60, 1.0, 1e-6)
    found = coarse_area(counts_of(labels, probabilities)[1])
    # On either side of the uniform prediction there is a bin of its own.
    assert found.high - found.low > 0.3


def test_counts_add_up_and_each_score_is_in_one_bin():
    labels, probabilities = drawn(np.random.default_rng(0), 40, 1.0)
    counts = counts_of(labels, probabilities)
    assert counts.shape == (2, 2, COARSE_BINS)
    assert counts.sum(axis=(1, 2)).tolist() == [40, 40]
    halves = counts_of(labels[:15], probabilities[:15]) + counts_of(labels[15:], probabilities[15:])
    assert (halves == counts).all()


def test_labels_are_questions_of_their_own_and_one_without_a_pair_is_in_no_mean():
    rng = np.random.default_rng(4)
    labels = np.column_stack([rng.integers(0, 2, 50), np.ones(50, int)])
    probabilities = (labels * 0.2 + rng.uniform(0, 0.8, (50, 2))).clip(0.01, 0.99)
    counts = coarse_counts(coarse_bins(probabilities, 2), labels)
    found = mean_coarse_area(counts, exclusive=False)
    exact = rank_area(labels[:, 0] == 1, probabilities[:, 0])
    assert found.low <= exact <= found.high
    assert mean_coarse_area(counts[1:], exclusive=False) is None
