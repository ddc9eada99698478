"""What a network is to learn: classification or segmentation, each behind one interface."""

from federated.data.dataset import DatasetInfo
from federated.learning.base import Arrays, LearningTask
from federated.learning.classification import CLASSIFICATION
from federated.learning.metric import Place
from federated.learning.segmentation import SEGMENTATION

TASKS = {"classification": CLASSIFICATION, "segmentation": SEGMENTATION}


def task_of(info: DatasetInfo) -> LearningTask:
    """What a network learns on a data set."""
    return TASKS[info.task]


def metrics_in(place: Place) -> tuple[str, ...]:
    """The names of the metrics of any task that are told at a place; what all have comes last."""
    names = [name for task in TASKS.values() for name in task.metrics_in(place)]
    return tuple(reversed(dict.fromkeys(reversed(names))))


__all__ = ["CLASSIFICATION", "SEGMENTATION", "TASKS", "Arrays", "LearningTask", "task_of", "told"]
