import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

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


@pytest.mark.parametrize("seed", range(5))
def test_all_metrics_equal_scikit_learns(seed):
    """Of five classes, of which cases have three or four and a hasty model predicts some."""
    rng = np.random.default_rng(seed)
    there = np.sort(rng.choice(5, 3 + seed % 2, replace=False))
    labels = rng.choice(there, 60)
    probabilities = rng.dirichlet([0.2, 1, 1, 0.05, 1], 60)
    predicted = probabilities.argmax(axis=1)
    metrics = classification_metrics(labels, probabilities)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=there, average="macro", zero_division=0
    )
    assert metrics["precision"] == pytest.approx(precision)
    assert metrics["recall"] == pytest.approx(recall)
    assert metrics["f1"] == pytest.approx(f1)
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    kept = np.isin(predicted, there)  # scikit-learn warns of predictions that no case has
    assert balanced_accuracy_score(labels[kept], predicted[kept]) == pytest.approx(
        classification_metrics(labels[kept], probabilities[kept])["balanced_accuracy"]
    )
    assert metrics["loss"] == pytest.approx(log_loss(labels, probabilities, labels=np.arange(5)))


def test_no_worker_imports_for_seconds_in_its_first_evaluation():
    asked = (
        "import sys, numpy as np; from federated.learning.classification_metrics import *; "
        "classification_metrics(np.arange(4) % 2, np.full((4, 2), 0.5)); "
        "print([name for name in ('scipy', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.strip() == "[]"


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
