"""What differs between the tasks that a network can learn, as one value for each."""

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
from federated.learning.images import Readout
from federated.learning.metric import Metric, Place
from federated.learning.task_statistics import TaskStatistics
from federated.settings.sections import TrainingSettings
from federated.training.objective import Loss

# What a site writes of its predictions on one split, by name; the first axis counts the cases.
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class PredictionForm:
    """The form of one array of predictions, beside its first axis, which counts the cases.

    ``kinds`` are the kinds of numbers as NumPy names them. Values are from ``least`` to
    ``largest``, or below the number of cases where ``largest`` is ``None``. With ``distribution``
    those of a case sum to 1.
    """

    shape: tuple[int, ...]
    kinds: str
    least: float
    largest: float | None
    distribution: bool = False

    def most(self, cases: int) -> float:
        """The largest value that may be there, of so many cases."""
        return cases - 1 if self.largest is None else self.largest


@dataclass(frozen=True)
class LearningTask:
    """One kind of task: classification, with one label or several; regression; or segmentation.

    ``goal`` is what a person calls the task, and ``title`` the first metric. ``metrics`` are those
    that ``score`` gives of every data set; models are judged by the first of them, and larger is
    better.

    ``readout`` makes what is predicted of a network's outputs ``(n, outputs, …)`` in float64, with
    the data set's target where a number is predicted. ``results`` is the name of the table that
    `consilium predict` writes of images, ``None`` where the result is an image. ``balances`` are
    the training settings that may be ``balanced``, and ``groups`` says whether cases can be dealt
    to sites by their labels. With ``compares_sites`` a comparison has all metrics of each site, and
    otherwise the first alone.

    ``make_loss`` makes the loss for a site's training cases, ``predict`` gives what a site writes
    of its validation or test cases, ``forms`` says of which form that is, and ``score`` computes
    the metrics from what all sites wrote;
    ``exact`` are those of one site and split. ``statistics`` are what add up over sites instead.
    """

    goal: str
    title: str
    metrics: tuple[Metric, ...]
    make_loss: Callable[[Cases, TrainingSettings, DatasetInfo, torch.device], Loss]
    predict: Callable[[nn.Module, Cases, torch.device, DatasetInfo], Arrays]
    score: Callable[[Mapping[str, Mapping[Split, Arrays]], DatasetInfo], Evaluation]
    exact: Callable[[Arrays, DatasetInfo], Metrics]
    statistics: TaskStatistics
    readout: Readout
    results: str | None
    forms: Callable[[DatasetInfo], Mapping[str, PredictionForm]]
    balances: frozenset[str] = frozenset()
    groups: bool = True
    compares_sites: bool = False

    @property
    def primary_metric(self) -> str:
        """The name of the metric that models are judged by."""
        return self.metrics[0].name

    @property
    def worst_site(self) -> str:
        """What a comparison tells of the worst site: of which metric it is, and of which runs."""
        return (
            f"Worst site: in each run the lowest {self.title} that any site has on its own test "
            "cases, with the model that the run keeps; told is the mean over a strategy's runs, "
            "one for each seed. Which site it is may change from run to run."
        )

    def metric_of(self, name: str) -> Metric:
        """The metric that a value of this name is of, be it of one class or label alone.

        Raises:
            ValueError: the task has no such metric.
        """
        known = [m for m in self.metrics if name == m.name or name.startswith(f"{m.name}_")]
        if not known:
            raise ValueError(f"there is no metric {name!r:.80} of {self.goal}")
        return max(known, key=lambda metric: len(metric.name))

    def metrics_in(self, place: Place) -> tuple[str, ...]:
        """The names of the metrics that are shown at a place, in their order."""
        return tuple(known.name for known in self.metrics if place in known.places)

    @property
    def metrics_of_sites(self) -> tuple[str, ...]:
        """The names of the metrics that a comparison shows of each site."""
        return self.metrics_in("compared") if self.compares_sites else (self.primary_metric,)
