"""Regression: a number for each image, within a range that is known beforehand."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from federated.data.cases import Cases, LabelledImages
from federated.data.dataset import DatasetInfo, Split
from federated.learning.base import Arrays, LearningTask, PredictionForm
from federated.learning.classification_metrics import Metrics
from federated.learning.evaluation import Evaluation
from federated.learning.images import finite_or_nan, predict_images
from federated.learning.regression_statistics import (
    METRICS,
    REGRESSION_STATISTICS,
    measure_cases,
    target_of,
)
from federated.learning.scoring import score_cases
from federated.settings.sections import TrainingSettings
from federated.settings.target import Target
from federated.training.objective import Loss


def make_loss(
    cases: Cases,  # noqa: ARG001 - as every task's
    settings: TrainingSettings,  # noqa: ARG001
    info: DatasetInfo,
    device: torch.device,  # noqa: ARG001
) -> Loss:
    """The Huber loss of standardised numbers: squared up to an error of one, linear beyond.

    So one label that is far off does not decide a step (Huber 1964). The mean and the standard
    deviation are those of the data set's description, the same at every site. It maps outputs
    ``(n, 1)`` and labels ``(n,)`` in their own unit to a scalar, or with ``none`` to ``(n,)``.
    """
    target = target_of(info)

    def loss(outputs: Tensor, labels: Tensor, reduction: str) -> Tensor:
        wanted = ((labels - target.centre) / target.scale).to(outputs.dtype)
        return nn.functional.huber_loss(outputs.squeeze(1), wanted, reduction=reduction)

    return loss


def readout(outputs: Tensor, target: Target | None) -> Tensor:
    """The numbers ``(n, 1)`` in their own unit, within the target's range, of outputs ``(n, 1)``.

    An output that is not finite gives NaN.

    Raises:
        ValueError: there is no target.
    """
    if target is None:
        raise ValueError("there is no number to read out")
    numbers = finite_or_nan(outputs) * target.scale + target.centre
    return numbers.clamp(target.low, target.high)


def _predict_cases(
    model: nn.Module, cases: Cases, device: torch.device, info: DatasetInfo
) -> Arrays:
    """``labels`` and ``predicted``, both ``(n,)`` float64 in the number's own unit."""
    assert isinstance(cases, LabelledImages)
    read = partial(readout, target=info.target)
    found = predict_images(model, cases.images, device, len(info.classes), read)
    return {"labels": cases.labels, "predicted": found[:, 0]}


def forms(info: DatasetInfo) -> dict[str, PredictionForm]:
    """The form of what a site predicts: numbers within the range that is known of them."""
    target = target_of(info)
    within = PredictionForm((), "f", target.low, target.high)
    return {"labels": within, "predicted": within}


def score(predictions: Mapping[str, Mapping[Split, Arrays]], info: DatasetInfo) -> Evaluation:
    """The metrics from labels and predictions ``(n,)`` of every site and split."""
    return score_cases(predictions, info, measure_cases, REGRESSION.metrics_in("site_spread"))


def exact_metrics(part: Arrays, info: DatasetInfo) -> Metrics:
    """The metrics of one site and split, from its labels and predictions."""
    return measure_cases(part, info).metrics


REGRESSION = LearningTask(
    goal="regression",
    title="R²",
    metrics=METRICS,
    make_loss=make_loss,
    predict=_predict_cases,
    score=score,
    exact=exact_metrics,
    statistics=REGRESSION_STATISTICS,
    forms=forms,
    readout=readout,
    results="numbers.csv",
)
