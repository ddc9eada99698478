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
from federated.settings.sections import TrainingSettings
from federated.training.objective import Loss

# What a site writes of its predictions on one split, by name; the first axis is the case.
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class LearningTask:
    """One kind of task.

    ``headline`` is the metric that models are judged by, larger being better, and whose spread over
    sites is told, ``title`` how a person writes it; ``compared`` are those of a comparison's table.

    ``make_loss`` makes the loss for a site's training cases, ``predict`` what a site writes of its
    validation or test cases, and ``score`` the metrics from what all sites wrote.
    """

    headline: str
    title: str
    compared: tuple[str, ...]
    make_loss: Callable[[Cases, TrainingSettings, DatasetInfo, torch.device], Loss]
    predict: Callable[[nn.Module, Cases, torch.device, DatasetInfo], Arrays]
    score: Callable[[Mapping[str, Mapping[Split, Arrays]], DatasetInfo], Evaluation]
