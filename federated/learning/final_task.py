"""What a run asks for at its end, from its settings."""

from federated.data.dataset import DatasetInfo
from federated.learning import TASKS, task_of
from federated.learning.final_statistics import final_statistics
from federated.learning.subgroup_statistics import FinalTask
from federated.settings.sections import EvaluationSettings


def final_task(info: DatasetInfo, settings: EvaluationSettings) -> FinalTask:
    """What sites tell at the end of a run on a data set, with the evaluation's settings."""
    kind = final_statistics(TASKS[info.task], info, settings)
    before = task_of(info, settings).statistics
    return FinalTask(kind, before, info, settings.subgroups or {}, settings.min_count)
