"""Curves and intervals that follow from shared statistics, against what single cases give."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from federated.data.dataset import DatasetInfo
from federated.learning import task_of
from federated.learning.statistics import EvaluationStatistics
from federated.report.curves import mean_interval, reliabilities, roc_curves, wilson
from federated.report.epsilon import meaning_of, power
from federated.report.intervals import intervals_of
from federated.settings.target import Target
from tests.federated.report.made_runs import info_of, predictions

TWO = info_of("classification", ("healthy", "ill"))
FIVE = info_of("classification", "abcde")


def drawn(info: DatasetInfo, cases: int, skill: float = 0.5, seed: int = 0):
    arrays = predictions(info, cases, np.random.default_rng(seed), skill)
    return arrays, task_of(info).statistics.of(arrays, info)


def delong_deviation(scores: np.ndarray, positive: np.ndarray) -> float:
    """The standard deviation of an AUC by all pairs of cases, as DeLong et al. 1988 define it."""
    pairs = (scores[positive][:, None] > scores[~positive]) + 0.5 * (
        scores[positive][:, None] == scores[~positive]
    )
    of_positives, of_negatives = pairs.mean(axis=1), pairs.mean(axis=0)
    return float(
        np.sqrt(
            of_positives.var(ddof=1) / len(of_positives)
            + of_negatives.var(ddof=1) / len(of_negatives)
        )
    )


def test_a_curve_and_its_interval_are_those_of_the_single_cases():
    arrays, statistics = drawn(TWO, 400)
    (curve,) = roc_curves(statistics, TWO.classes, TWO.task)
    positive, scores = arrays["labels"] == 1, arrays["probabilities"][:, 1]
    assert curve.name == "ill"
    assert curve.area == pytest.approx(roc_auc_score(positive, scores), abs=2e-3)
    assert curve.deviation == pytest.approx(delong_deviation(scores, positive), rel=0.02)
    assert (curve.positives, curve.negatives) == (positive.sum(), (~positive).sum())
    false, true, _ = roc_curve(positive, scores, drop_intermediate=False)
    points = np.stack([curve.false_positive, curve.true_positive], axis=1)
    exact = np.stack([false, true], axis=1)
    assert np.linalg.norm(points[:, None] - exact, axis=2).min(axis=1).max() < 0.02
    assert np.trapezoid(curve.true_positive, curve.false_positive) == pytest.approx(
        curve.area, abs=5e-3
    )
    assert (np.diff(curve.false_positive) >= 0).all()
    assert (np.diff(curve.true_positive) >= 0).all()
    ends = (curve.false_positive[[0, -1]], curve.true_positive[[0, -1]])
    assert [end.tolist() for end in ends] == [[0, 1], [0, 1]]
    assert (curve.low <= curve.true_positive + 1e-12).all()
    assert (curve.true_positive <= curve.high + 1e-12).all()


def test_intervals_of_the_auc_hold_the_true_one_nearly_as_often_as_they_say():
    """Scores of a model whose AUC is known: that of two normal distributions."""
    shift, runs, cases = 1.0, 200, 120
    true = stats.norm.cdf(shift / np.sqrt(2))
    rng, held = np.random.default_rng(3), 0
    for _ in range(runs):
        labels = rng.integers(0, 2, cases)
        logits = rng.normal(size=cases) + shift * labels
        ill = 1 / (1 + np.exp(-logits))
        arrays = {"labels": labels, "probabilities": np.stack([1 - ill, ill], axis=1)}
        statistics = task_of(TWO).statistics.of(arrays, TWO)
        (curve,) = roc_curves(statistics, TWO.classes, TWO.task)
        held += curve.interval[0] <= true <= curve.interval[1]
    # Of a right 95 %, fewer than 89 % of 200 happen once in twenty thousand times.
    assert held >= 0.89 * runs


def test_the_interval_of_a_mean_over_classes_is_no_narrower_than_the_bootstraps():
    arrays, statistics = drawn(FIVE, 300)
    low, high = mean_interval(roc_curves(statistics, FIVE.classes, FIVE.task))
    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        drawn_cases = rng.integers(0, 300, 300)
        labels, scores = arrays["labels"][drawn_cases], arrays["probabilities"][drawn_cases]
        found.append(np.mean([roc_auc_score(labels == c, scores[:, c]) for c in range(5)]))
    inner_low, inner_high = np.percentile(found, (2.5, 97.5))
    assert low < inner_low
    assert high > inner_high


def test_a_perfect_model_has_an_auc_and_no_interval_that_claims_certainty():
    labels = np.array([0, 0, 1, 1])
    arrays = {"labels": labels, "probabilities": np.eye(2)[labels] * 0.8 + 0.1}
    statistics = task_of(TWO).statistics.of(arrays, TWO)
    (curve,) = roc_curves(statistics, TWO.classes, TWO.task)
    assert curve.area == 1
    assert curve.interval is None
    assert "auc" not in intervals_of(statistics, TWO, 0).of


def test_intervals_of_counts_are_those_of_resampled_cases():
    arrays, statistics = drawn(FIVE, 250)
    of = intervals_of(statistics, FIVE, 0).of
    right = arrays["probabilities"].argmax(axis=1) == arrays["labels"]
    share = right.mean()
    exact = stats.binom.interval(0.95, 250, share)
    assert of["accuracy"] == pytest.approx([end / 250 for end in exact], abs=0.01)
    for name in ("balanced_accuracy", "f1", "precision", "recall"):
        low, high = of[name]
        assert low < task_of(FIVE).exact(arrays, FIVE)[name] < high


def test_intervals_are_the_same_whenever_a_page_is_made():
    _, statistics = drawn(FIVE, 100)
    assert intervals_of(statistics, FIVE, 5).of == intervals_of(statistics, FIVE, 5).of
    assert intervals_of(statistics, FIVE, 5).of != intervals_of(statistics, FIVE, 6).of


def test_intervals_of_segmentation_are_students_t_over_patients():
    info = info_of("segmentation", ("background", "one", "two"))
    arrays, statistics = drawn(info, 24)
    patients = np.array([arrays["dice"][arrays["patients"] == p].mean(axis=0) for p in range(12)])
    of = intervals_of(statistics, info, 0).of
    for name, values in (("dice", patients.mean(axis=1)), ("dice_two", patients[:, 1])):
        exact = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
        assert of[name] == pytest.approx(exact, abs=1e-9)


def test_intervals_of_regression_are_those_of_the_single_errors():
    info = replace(info_of("regression", ("age",)), target=Target(low=0, high=100), shape=(8, 8, 8))
    rng = np.random.default_rng(0)
    labels = rng.uniform(10, 90, 60)
    arrays = {"labels": labels, "predicted": (labels + rng.normal(2, 5, 60)).clip(0, 100)}
    of = intervals_of(task_of(info).statistics.of(arrays, info), info, 0).of
    errors = arrays["predicted"] - labels
    for name, values in (("mae", np.abs(errors)), ("bias", errors)):
        exact = stats.norm.interval(0.95, values.mean(), stats.sem(values))
        assert of[name] == pytest.approx(exact, rel=1e-6)


def test_what_is_withheld_has_no_curve_and_no_interval():
    _, whole = drawn(TWO, 50)
    nothing = whole.without(set(whole.arrays) - {"cases"})
    assert roc_curves(nothing, TWO.classes, TWO.task) == []
    assert reliabilities(nothing, TWO.classes, TWO.task) == []
    assert intervals_of(nothing, TWO, 0).of == {}
    empty = task_of(TWO).statistics.of_nothing(TWO)
    assert intervals_of(EvaluationStatistics(empty.arrays), TWO, 0).of == {}


def test_reliability_counts_what_came_true_in_each_bin():
    arrays, statistics = drawn(TWO, 300)
    (found,) = reliabilities(statistics, TWO.classes, TWO.task)
    confidence = arrays["probabilities"].max(axis=1)
    right = arrays["probabilities"].argmax(axis=1) == arrays["labels"]
    assert found.cases.sum() == 300
    assert (found.share * found.cases).sum() == pytest.approx(right.sum())
    assert (found.confidence * found.cases).sum() == pytest.approx(confidence.sum())
    assert (found.low < found.share + 1e-12).all()
    assert (found.share < found.high + 1e-12).all()


def test_wilsons_interval_is_the_published_one():
    low, high = wilson(np.array([0.0, 81.0]), np.array([10, 263]))
    # Newcombe 1998, Table I: 81 of 263, and 0 of 10 by the same formula.
    assert low == pytest.approx([0.0, 0.2553], abs=5e-5)
    assert high == pytest.approx([0.2775, 0.3662], abs=5e-5)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.5, 1e-5), (3.0, 1e-3), (8.0, 1e-5), (50, 1e-5)])
def test_what_epsilon_bounds_is_what_the_definition_bounds(epsilon, delta):
    """Against the worst mechanism that is allowed: randomised response that fails with δ."""
    grown = np.exp(epsilon)
    there = np.array([delta, (1 - delta) * grown / (1 + grown), (1 - delta) / (1 + grown), 0])
    absent = there[::-1]
    order = np.argsort(-(there / np.maximum(absent, 1e-300)))
    alarms = np.concatenate([[0], absent[order].cumsum()])
    powers = np.concatenate([[0], there[order].cumsum()])
    for at in (0.001, 0.01, 0.2, 0.5, 0.9):
        assert power(epsilon, delta, at) == pytest.approx(np.interp(at, alarms, powers), abs=1e-6)
    guess = (powers + 1 - alarms).max() / 2
    assert meaning_of(epsilon, delta).guess == pytest.approx(guess, abs=1e-6)
    assert meaning_of(epsilon, delta).recognised == power(epsilon, delta, 0.01)


def test_no_epsilon_at_all_lets_nobody_do_better_than_guess():
    assert power(0.0, 0.0, 0.3) == pytest.approx(0.3)
    assert meaning_of(0.0, 0.0).guess == 0.5
    assert meaning_of(0.0, 0.0).odds == 1
