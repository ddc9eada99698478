"""Classification: one class for each image."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from federated.data.augmentation import class_weights
from federated.data.cases import Cases, LabelledImages
from federated.data.dataset import SPLITS, DatasetInfo, Labels, Split, to_float
from federated.learning.base import Arrays, LearningTask, PredictionForm
from federated.learning.classification_metrics import (
    METRICS,
    Confusion,
    Metrics,
    Probabilities,
    classification_metrics,
    confusion_matrix,
)
from federated.learning.classification_statistics import CLASSIFICATION_STATISTICS
from federated.learning.evaluation import Evaluation, SiteSpread, site_spread
from federated.settings.sections import TrainingSettings
from federated.training.objective import Loss

EVALUATION_BATCH = 128


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
    """Class probabilities ``(n, classes)`` as float64, in evaluation mode; n may be 0.

    Args:
        model: the network, on ``device``.
        images: ``(n, channels, *spatial)`` in 0..255, of any numeric type.
        device: where the network is.
        classes: how many there are.
    """
    model.eval()
    parts = [np.zeros((0, classes))]
    with torch.inference_mode():
        for start in range(0, len(images), EVALUATION_BATCH):
            x = torch.from_numpy(to_float(images[start : start + EVALUATION_BATCH])).to(device)
            parts.append(model(x).double().softmax(dim=1).cpu().numpy())
    return np.concatenate(parts)


def _predict_cases(
    model: nn.Module, cases: Cases, device: torch.device, info: DatasetInfo
) -> Arrays:
    """``labels`` ``(n,)`` and ``probabilities`` ``(n, classes)``."""
    assert isinstance(cases, LabelledImages)
    probabilities = predict(model, cases.images, device, len(info.classes))
    return {"labels": cases.labels, "probabilities": probabilities}


def forms(info: DatasetInfo) -> dict[str, PredictionForm]:
    """The form of what a site predicts."""
    classes = len(info.classes)
    return {
        "labels": PredictionForm((), "iu", 0, classes - 1),
        "probabilities": PredictionForm((classes,), "f", 0, 1),
    }


def score(
    predictions: Mapping[str, Mapping[Split, Arrays]],
    info: DatasetInfo,
) -> Evaluation:
    """The metrics of classification, from labels and probabilities of every site and split.

    Each site has ``labels`` ``(n,)`` and ``probabilities`` ``(n, classes)`` for each split.
    """
    overall: dict[Split, Metrics] = {}
    confusion: dict[Split, Confusion] = {}
    absent: dict[Split, tuple[str, ...]] = {}
    for split in SPLITS[1:]:
        parts = [by_split[split] for by_split in predictions.values()]
        labels = np.concatenate([part["labels"] for part in parts])
        probabilities = np.concatenate([part["probabilities"] for part in parts])
        overall[split] = classification_metrics(labels, probabilities)
        confusion[split] = confusion_matrix(labels, probabilities)
        absent[split] = _absent_classes(labels, info)
    per_site = {
        site: {split: exact_metrics(part, info) for split, part in by_split.items()}
        for site, by_split in predictions.items()
    }
    compared = CLASSIFICATION.metrics_in("site_spread")
    spread: dict[Split, SiteSpread] = {
        split: site_spread(per_site, split, compared) for split in SPLITS[1:]
    }
    absent_at = {
        site: {split: _absent_classes(part["labels"], info) for split, part in by_split.items()}
        for site, by_split in predictions.items()
    }
    return Evaluation(overall, per_site, spread, confusion, absent, absent_at)


def exact_metrics(part: Arrays, info: DatasetInfo) -> Metrics:  # noqa: ARG001 - as every task's
    """The metrics of one site and split, from its labels and probabilities."""
    return classification_metrics(part["labels"], part["probabilities"])


def _absent_classes(labels: Labels, info: DatasetInfo) -> tuple[str, ...]:
    """The names of the classes that none of some cases has; none where there is no case."""
    there = set(labels.tolist()) or set(range(len(info.classes)))
    return tuple(name for label, name in enumerate(info.classes) if label not in there)


CLASSIFICATION = LearningTask(
    title="AUC",
    metrics=METRICS,
    make_loss=make_loss,
    predict=_predict_cases,
    score=score,
    exact=exact_metrics,
    statistics=CLASSIFICATION_STATISTICS,
    forms=forms,
)
