"""What a network is to learn: classification or segmentation, each behind one interface."""

from federated.data.dataset import DatasetInfo
from federated.learning.base import Arrays, LearningTask
from federated.learning.classification import CLASSIFICATION
from federated.learning.metric import Place
from federated.learning.segmentation import SEGMENTATION
from federated.learning.sharing import (
    evaluate_here,
    evaluate_shared,
    evaluate_summed,
    overall_metrics,
    shared_arrays,
    summed_bounds,
    summed_vector,
)
from federated.learning.told import refuse_told

TASKS = {"classification": CLASSIFICATION, "segmentation": SEGMENTATION}


def task_of(info: DatasetInfo) -> LearningTask:
    """The task that a network learns on a data set."""
    return TASKS[info.task]


def metrics_in(place: Place) -> tuple[str, ...]:
    """The names of any task's metrics that are shown at a place; those of all tasks come last."""
    names = [name for task in TASKS.values() for name in task.metrics_in(place)]
    return tuple(reversed(dict.fromkeys(reversed(names))))


__all__ = [
    "CLASSIFICATION",
    "SEGMENTATION",
    "TASKS",
    "Arrays",
    "LearningTask",
    "evaluate_here",
    "evaluate_shared",
    "evaluate_summed",
    "metrics_in",
    "overall_metrics",
    "refuse_told",
    "shared_arrays",
    "summed_bounds",
    "summed_vector",
    "task_of",
]
