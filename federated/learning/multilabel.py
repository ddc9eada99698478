"""Multi-label classification: of each label, whether an image has it."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from federated.data.cases import Cases, LabelledImages
from federated.data.dataset import DatasetInfo, Split
from federated.learning.base import Arrays, LearningTask, PredictionForm
from federated.learning.classification_metrics import Metrics
from federated.learning.evaluation import Evaluation
from federated.learning.images import finite_or_nan, predict_images
from federated.learning.multilabel_metrics import METRICS, multilabel_metrics
from federated.learning.multilabel_statistics import MULTILABEL_STATISTICS
from federated.learning.scoring import score_cases
from federated.learning.task_statistics import Measured
from federated.settings.sections import TrainingSettings
from federated.settings.target import Target
from federated.training.objective import Loss


def make_loss(
    cases: Cases,
    settings: TrainingSettings,
    info: DatasetInfo,  # noqa: ARG001 - as every task's
    device: torch.device,
) -> Loss:
    """The binary cross-entropy of each label, of which a case has the mean.

    With balanced weights the cases of the site that have a label count together as much as those
    that do not; a label that no case has, or that every case has, is left as it is.

    It maps logits and labels, both ``(n, labels)``, to a scalar, or with ``none`` to ``(n,)``.
    """
    assert isinstance(cases, LabelledImages)
    weights = None
    if settings.class_weights == "balanced":
        having = torch.from_numpy(cases.labels).sum(dim=0).float()
        lacking = len(cases) - having
        both = (having > 0) & (lacking > 0)
        weights = torch.where(both, lacking / having.clamp(min=1), 1.0).to(device)

    def loss(logits: Tensor, labels: Tensor, reduction: str) -> Tensor:
        losses = nn.functional.binary_cross_entropy_with_logits(
            logits, labels.to(logits.dtype), pos_weight=weights, reduction="none"
        ).mean(dim=1)
        return losses.mean() if reduction == "mean" else losses

    return loss


def readout(logits: Tensor, target: Target | None = None) -> Tensor:  # noqa: ARG001
    """The probability of each label, of logits ``(n, labels)``; NaN where a logit is infinite."""
    return finite_or_nan(logits).sigmoid()


def _predict_cases(
    model: nn.Module, cases: Cases, device: torch.device, info: DatasetInfo
) -> Arrays:
    """``labels`` and ``probabilities``, both ``(n, labels)``."""
    assert isinstance(cases, LabelledImages)
    found = predict_images(model, cases.images, device, len(info.classes), readout)
    return {"labels": cases.labels, "probabilities": found}


def forms(info: DatasetInfo) -> dict[str, PredictionForm]:
    """The form of what a site predicts."""
    labels = (len(info.classes),)
    return {
        "labels": PredictionForm(labels, "iu", 0, 1),
        "probabilities": PredictionForm(labels, "f", 0, 1),
    }


def _measured(part: Arrays, info: DatasetInfo) -> Measured:
    labels = part["labels"]
    absent = [name for name, own in zip(info.classes, labels.T, strict=True) if not own.any()]
    # Without a case nothing is known to be absent.
    return Measured(exact_metrics(part, info), absent=tuple(absent) if len(labels) else ())


def score(predictions: Mapping[str, Mapping[Split, Arrays]], info: DatasetInfo) -> Evaluation:
    """The metrics from labels and probabilities ``(n, labels)`` of every site and split.

    ``classes_absent`` are the labels that no case has.
    """
    return score_cases(predictions, info, _measured, MULTILABEL.metrics_in("site_spread"))


def exact_metrics(part: Arrays, info: DatasetInfo) -> Metrics:
    """The metrics of one site and split, from its labels and probabilities."""
    return multilabel_metrics(part["labels"], part["probabilities"], info.classes)


MULTILABEL = LearningTask(
    goal="multi-label classification",
    title="AUC",
    metrics=METRICS,
    make_loss=make_loss,
    predict=_predict_cases,
    score=score,
    exact=exact_metrics,
    statistics=MULTILABEL_STATISTICS,
    forms=forms,
    readout=readout,
    results="probabilities.csv",
    balances=frozenset({"class_weights"}),
)
