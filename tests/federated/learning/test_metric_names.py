"""Where metrics are told follows from one list a task."""

import numpy as np

from federated.learning import CLASSIFICATION, SEGMENTATION, metrics_in
from federated.learning.classification_metrics import classification_metrics
from federated.learning.segmentation_metrics import NAMES


def test_the_list_of_a_task_is_what_it_scores():
    found = classification_metrics(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert {known.name for known in CLASSIFICATION.metrics} == set(found)
    assert {known.name for known in SEGMENTATION.metrics} == {*NAMES, "loss"}


def test_models_are_judged_by_the_first():
    assert (CLASSIFICATION.primary_metric, SEGMENTATION.primary_metric) == ("auc", "dice")


def test_what_both_tasks_have_is_told_last():
    assert metrics_in("round") == ("auc", "accuracy", "dice", "hd95", "loss")
    assert metrics_in("csv")[0] == "auc"
    assert metrics_in("csv")[-1] == "loss"
