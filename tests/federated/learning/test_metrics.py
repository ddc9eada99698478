import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from federated.learning.classification_metrics import (
    METRICS,
    auc,
    classification_metrics,
    confusion_matrix,
    expected_calibration_error,
)


def test_perfect_predictions_score_one():
    labels = np.array([0, 1, 2, 1])
    metrics = classification_metrics(labels, np.eye(3)[labels])
    names = {known.name for known in METRICS} - {"loss", "ece"}
    assert all(metrics[name] == 1.0 for name in names)
    assert metrics["ece"] == pytest.approx(0.0, abs=1e-9)
    assert metrics["loss"] == pytest.approx(0.0, abs=1e-9)


def test_two_class_auc_by_hand():
    """Positives score 0.8 and 0.3, negatives 0.5 and 0.1: three of four pairs are in order."""
    labels = np.array([1, 1, 0, 0])
    scores = np.array([0.8, 0.3, 0.5, 0.1])
    assert auc(labels, np.stack([1 - scores, scores], 1)) == 0.75


def test_auc_equals_scikit_learns_with_ties_too():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    scores = rng.integers(0, 10, 200) / 10
    assert auc(labels, np.stack([1 - scores, scores], 1)) == pytest.approx(
        roc_auc_score(labels, scores)
    )


def test_macro_auc_leaves_out_classes_that_do_not_occur():
    labels = np.array([0, 0, 1, 1])
    scores = np.array([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.1, 0.9, 0], [0.2, 0.8, 0]])
    assert auc(labels, scores) == 1.0


def test_auc_of_a_single_class_is_not_defined():
    assert auc(np.zeros(3, int), np.full((3, 2), 0.5)) is None


def test_predicting_the_majority_is_not_balanced():
    labels = np.array([0] * 9 + [1])
    metrics = classification_metrics(labels, np.tile([0.9, 0.1], (10, 1)))
    assert metrics["accuracy"] == 0.9
    assert metrics["balanced_accuracy"] == 0.5
    assert metrics["precision"] == pytest.approx(0.45)


def test_no_cases_give_no_numbers():
    assert set(classification_metrics(np.zeros(0, int), np.zeros((0, 2))).values()) == {None}


def test_calibration_error_by_hand():
    """Four cases of confidence 0.9, three right: |0.9 - 0.75|; two of 0.6, both right: 0.4."""
    labels = np.array([0, 0, 0, 1, 0, 1])
    scores = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4], [0.4, 0.6]])
    expected = (4 * 0.15 + 2 * 0.4) / 6
    assert expected_calibration_error(labels, scores) == pytest.approx(expected)


def test_confidence_one_belongs_to_the_last_bin():
    labels = np.array([1, 0])
    assert expected_calibration_error(labels, np.eye(2)) == pytest.approx(1.0)


def test_a_confusion_matrix_counts_true_then_predicted():
    labels = np.array([0, 0, 2])
    scores = np.eye(3)[[0, 1, 1]]
    assert confusion_matrix(labels, scores) == [[1, 1, 0], [0, 0, 0], [0, 1, 0]]


def test_a_class_that_no_case_has_is_in_no_macro_mean():
    """Two of four cases of class 1 are taken for class 2, of which there is none."""
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    metrics = classification_metrics(labels, np.eye(3)[[0, 0, 0, 0, 1, 1, 2, 2]])
    assert metrics["precision"] == 1.0
    assert metrics["recall"] == metrics["balanced_accuracy"] == 0.75
    assert metrics["f1"] == pytest.approx((1 + 2 / 3) / 2)
