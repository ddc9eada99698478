"""What differs between classification and segmentation, as one value for each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import nn

from federated.data.cases import Cases
from federated.data.dataset import DatasetInfo, Split
from federated.learning.evaluation import Evaluation
from federated.learning.metric import Metric, Place
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
    of its validation or test cases, and ``score`` computes the metrics from what all sites wrote.
    """

    title: str
    metrics: tuple[Metric, ...]
    make_loss: Callable[[Cases, TrainingSettings, DatasetInfo, torch.device], Loss]
    predict: Callable[[nn.Module, Cases, torch.device, DatasetInfo], Arrays]
    score: Callable[[Mapping[str, Mapping[Split, Arrays]], DatasetInfo], Evaluation]

    @property
    def primary_metric(self) -> str:
        """The name of the metric that models are judged by."""
        return self.metrics[0].name

    def metrics_in(self, place: Place) -> tuple[str, ...]:
        """The names of the metrics that are shown at a place, in their order."""
        return tuple(known.name for known in self.metrics if place in known.places)
