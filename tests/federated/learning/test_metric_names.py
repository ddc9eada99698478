"""Where metrics are told follows from one list a task."""

import numpy as np

from federated.data.dataset import DatasetInfo
from federated.learning import CLASSIFICATION, MULTILABEL, REGRESSION, SEGMENTATION, metrics_in
from federated.learning.classification_metrics import classification_metrics
from federated.learning.multilabel_metrics import multilabel_metrics
from federated.learning.segmentation_metrics import NAMES
from federated.settings.target import Target


def test_the_list_of_a_task_is_what_it_scores():
    found = classification_metrics(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert {known.name for known in CLASSIFICATION.metrics} == set(found)
    assert {known.name for known in SEGMENTATION.metrics} == {*NAMES, "loss"}
    labels = multilabel_metrics(np.eye(2, dtype=int), np.full((2, 2), 0.4), ("a", "b"))
    assert {known.name for known in MULTILABEL.metrics} == set(labels) - {"auc_a", "auc_b"}
    info = DatasetInfo("age", ("age",), 2, 1, {}, "", "regression", Target(0, 9))
    numbers = {"labels": np.array([1.0, 2.0]), "predicted": np.array([1.0, 3.0])}
    assert {known.name for known in REGRESSION.metrics} == set(REGRESSION.exact(numbers, info))


def test_models_are_judged_by_the_first():
    assert (CLASSIFICATION.primary_metric, SEGMENTATION.primary_metric) == ("auc", "dice")
    assert (MULTILABEL.primary_metric, REGRESSION.primary_metric) == ("auc", "r2")


def test_what_all_tasks_have_is_told_last():
    assert metrics_in("round") == ("auc", "accuracy", "r2", "mae", "dice", "hd95", "loss")
    assert metrics_in("csv")[0] == "auc"
    assert metrics_in("csv")[-1] == "loss"
