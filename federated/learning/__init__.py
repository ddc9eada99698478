"""What a network is to learn: each task behind one interface."""

from dataclasses import replace

from federated.data.dataset import DatasetInfo, TaskName
from federated.learning.added_statistics import with_additions
from federated.learning.base import Arrays, LearningTask
from federated.learning.classification import CLASSIFICATION
from federated.learning.metric import Place
from federated.learning.multilabel import MULTILABEL
from federated.learning.regression import REGRESSION
from federated.learning.segmentation import SEGMENTATION
from federated.learning.set_statistics import SETS
from federated.learning.sharing import (
    evaluate_here,
    evaluate_shared,
    evaluate_summed,
    overall_metrics,
    shared_arrays,
    summed_bounds,
    summed_vector,
)
from federated.learning.tempered_statistics import TEMPERED
from federated.learning.told import refuse_told
from federated.settings.sections import EvaluationSettings

TASKS: dict[TaskName, LearningTask] = {
    "classification": CLASSIFICATION,
    "multilabel": MULTILABEL,
    "regression": REGRESSION,
    "segmentation": SEGMENTATION,
}


# What sites send by default.
USUAL = EvaluationSettings()


def task_of(info: DatasetInfo, evaluation: EvaluationSettings = USUAL) -> LearningTask:
    """The task that a network learns on a data set, with the statistics that are asked for."""
    task = TASKS[info.task]
    asked = [
        addition
        for addition, wanted in (
            (TEMPERED, evaluation.calibration == "temperature"),
            (SETS, evaluation.conformal is not None),
        )
        if wanted
    ]
    if info.task != "classification" or not asked:
        return task
    return replace(task, statistics=with_additions(task.statistics, asked))


def metrics_in(place: Place) -> tuple[str, ...]:
    """The names of any task's metrics that are shown at a place; those of all tasks come last."""
    of_tasks = [task.metrics_in(place) for task in TASKS.values()]
    names = dict.fromkeys(name for names in of_tasks for name in names)
    last = [name for name in names if all(name in names for names in of_tasks)]
    return (*(name for name in names if name not in last), *last)


def smaller_is_better(name: str) -> bool:
    """Whether a metric of this name is the better, the smaller it is, whatever the task."""
    known = (metric for task in TASKS.values() for metric in task.metrics)
    return any(metric.name == name and metric.best == "smallest" for metric in known)


__all__ = [
    "CLASSIFICATION",
    "MULTILABEL",
    "REGRESSION",
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
    "smaller_is_better",
    "summed_bounds",
    "summed_vector",
    "task_of",
]
