"""Classification: one class for each image."""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from federated.data.augmentation import class_weights
from federated.data.cases import Cases, LabelledImages
from federated.data.dataset import DatasetInfo, Labels, Split
from federated.learning.base import Arrays, LearningTask, PredictionForm
from federated.learning.classification_metrics import (
    METRICS,
    Metrics,
    Probabilities,
    classification_metrics,
    confusion_matrix,
)
from federated.learning.classification_statistics import CLASSIFICATION_STATISTICS
from federated.learning.evaluation import Evaluation
from federated.learning.images import predict_images, probabilities
from federated.learning.scoring import score_cases
from federated.learning.task_statistics import Measured
from federated.settings.sections import TrainingSettings
from federated.training.objective import Loss


def make_loss(
    cases: Cases, settings: TrainingSettings, info: DatasetInfo, device: torch.device
) -> Loss:
    """The cross-entropy, with the site's class weights where the settings ask for them.

    It maps logits ``(n, classes)`` and labels ``(n,)`` to a scalar, or with ``none`` to ``(n,)``.
    """
    assert isinstance(cases, LabelledImages)
    weights = None
    if settings.class_weights == "balanced":
        targets = torch.from_numpy(cases.labels)
        weights = class_weights(targets, len(info.classes)).to(device)

    def loss(logits: Tensor, labels: Tensor, reduction: str) -> Tensor:
        return nn.functional.cross_entropy(logits, labels, weight=weights, reduction=reduction)

    return loss


def predict(
    model: nn.Module, images: npt.NDArray[Any], device: torch.device, classes: int
) -> Probabilities:
    """Class probabilities ``(n, classes)`` as float64; see :func:`predict_images`."""
    return predict_images(model, images, device, classes, probabilities)


def _predict_cases(
    model: nn.Module, cases: Cases, device: torch.device, info: DatasetInfo
) -> Arrays:
    """``labels`` ``(n,)`` and ``probabilities`` ``(n, classes)``."""
    assert isinstance(cases, LabelledImages)
    found = predict(model, cases.images, device, len(info.classes))
    return {"labels": cases.labels, "probabilities": found}


def _measured(part: Arrays, info: DatasetInfo) -> Measured:
    labels, found = part["labels"], part["probabilities"]
    metrics = classification_metrics(labels, found)
    return Measured(metrics, confusion_matrix(labels, found), _absent_classes(labels, info))


def forms(info: DatasetInfo) -> dict[str, PredictionForm]:
    """The form of what a site predicts."""
    classes = len(info.classes)
    return {
        "labels": PredictionForm((), "iu", 0, classes - 1),
        "probabilities": PredictionForm((classes,), "f", 0, 1, distribution=True),
    }


def score(
    predictions: Mapping[str, Mapping[Split, Arrays]],
    info: DatasetInfo,
) -> Evaluation:
    """The metrics of classification, from labels and probabilities of every site and split.

    Each site has ``labels`` ``(n,)`` and ``probabilities`` ``(n, classes)`` for each split.
    """
    return score_cases(predictions, info, _measured, CLASSIFICATION.metrics_in("site_spread"))


def exact_metrics(part: Arrays, info: DatasetInfo) -> Metrics:  # noqa: ARG001 - as every task's
    """The metrics of one site and split, from its labels and probabilities."""
    return classification_metrics(part["labels"], part["probabilities"])


def _absent_classes(labels: Labels, info: DatasetInfo) -> tuple[str, ...]:
    """The names of the classes that none of some cases has; none where there is no case."""
    there = set(labels.tolist()) or set(range(len(info.classes)))
    return tuple(name for label, name in enumerate(info.classes) if label not in there)


CLASSIFICATION = LearningTask(
    goal="classification",
    title="AUC",
    metrics=METRICS,
    make_loss=make_loss,
    predict=_predict_cases,
    score=score,
    exact=exact_metrics,
    statistics=CLASSIFICATION_STATISTICS,
    forms=forms,
    readout=probabilities,
    results="probabilities.csv",
    balances=frozenset({"class_weights", "sampling"}),
)
