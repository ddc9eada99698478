"""What differs between classification and segmentation, as one value for each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import nn

from federated.data.cases import Cases
from federated.data.dataset import DatasetInfo, Split
from federated.learning.classification_metrics import Metrics
from federated.learning.evaluation import Evaluation
from federated.learning.metric import Metric, Place
from federated.learning.task_statistics import TaskStatistics
from federated.settings.sections import TrainingSettings
from federated.training.objective import Loss

# What a site writes of its predictions on one split, by name; the first axis counts the cases.
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class LearningTask:
    """One kind of task: classification or segmentation.

    ``title`` is what a person calls the first metric. ``metrics`` are all that ``score`` gives;
    models are judged by the first of them, and larger is better.

    ``make_loss`` makes the loss for a site's training cases, ``predict`` gives what a site writes
    of its validation or test cases, and ``score`` computes the metrics from what all sites wrote;
    ``exact`` are those of one site and split. ``statistics`` are what add up over sites instead.
    """

    title: str
    metrics: tuple[Metric, ...]
    make_loss: Callable[[Cases, TrainingSettings, DatasetInfo, torch.device], Loss]
    predict: Callable[[nn.Module, Cases, torch.device, DatasetInfo], Arrays]
    score: Callable[[Mapping[str, Mapping[Split, Arrays]], DatasetInfo], Evaluation]
    exact: Callable[[Arrays, DatasetInfo], Metrics]
    statistics: TaskStatistics

    @property
    def primary_metric(self) -> str:
        """The name of the metric that models are judged by."""
        return self.metrics[0].name

    def metrics_in(self, place: Place) -> tuple[str, ...]:
        """The names of the metrics that are shown at a place, in their order."""
        return tuple(known.name for known in self.metrics if place in known.places)
