"""Metrics of multi-label classification, from the predicted probability of each label."""

import numpy as np
import numpy.typing as npt

from federated.data.dataset import AnyLabels
from federated.learning.classification_metrics import (
    CALIBRATION_BINS,
    Metrics,
    Probabilities,
    calibration_bins,
    rank_area,
)
from federated.learning.metric import Metric, error_over_cases, mean_over_cases, metric

# Those of every data set, beside the AUC of each label; models are judged by the first of them.
METRICS = (
    metric(
        *("auc", "round", "end", "csv", "site", "compared", "site_spread", "selects"),
        needs="scores",
    ),
    metric("micro_auc", "compared", needs="scores"),
    mean_over_cases(
        *("accuracy", "round", "end", "csv", "site", "compared", "site_spread", "selects")
    ),
    metric("precision", "compared"),
    metric("recall", "compared"),
    metric("f1", "end", "compared", "site_spread"),
    metric("ece", "compared", best="smallest"),
    Metric("labels_rated", frozenset(), largest=None),
    error_over_cases("loss", "round", "csv", "site", "selects"),
)
# A case is predicted to have a label whose probability is above.
THRESHOLD = 0.5

Counts = npt.NDArray[np.int64]


def right_answers(labels: AnyLabels, probabilities: Probabilities) -> Counts:
    """How many cases have 0, 1, … all labels predicted rightly, ``(labels + 1,)``."""
    right = ((probabilities > THRESHOLD) == (labels == 1)).sum(axis=1)
    return np.bincount(right, minlength=labels.shape[1] + 1)


def confusion_counts(labels: AnyLabels, probabilities: Probabilities) -> Counts:
    """How many cases there are ``[label][true][predicted]``, ``(labels, 2, 2)``.

    Labels and probabilities are ``(n, labels)``.
    """
    count = labels.shape[1]
    counts = np.zeros((count, 2, 2), np.int64)
    columns = np.broadcast_to(np.arange(count), labels.shape)
    np.add.at(counts, (columns, labels, (probabilities > THRESHOLD).astype(int)), 1)
    return counts


def case_losses(labels: AnyLabels, probabilities: Probabilities) -> npt.NDArray[np.float64]:
    """The binary cross-entropy of each case ``(n,)`` in nats, as the mean over its labels.

    It takes no probability to be nearer to 0 or 1 than float64's rounding of 1.
    """
    nearest = np.finfo(np.float64).eps
    likelihoods = np.where(labels == 1, probabilities, 1 - probabilities)
    losses = -np.log(likelihoods.clip(nearest, 1 - nearest))
    return np.asarray(losses.mean(axis=1), np.float64)


def reliability_counts(labels: AnyLabels, probabilities: Probabilities) -> Counts:
    """The cases without and with each label, by its probability, ``(labels, 15, 2)``."""
    counts = np.zeros((labels.shape[1], CALIBRATION_BINS, 2), np.int64)
    columns = np.broadcast_to(np.arange(labels.shape[1]), labels.shape)
    np.add.at(counts, (columns, calibration_bins(probabilities), labels), 1)
    return counts


def confidence_sums(probabilities: Probabilities) -> npt.NDArray[np.float64]:
    """The sums of the probabilities of each label, by bin of them, ``(labels, 15)``."""
    sums = np.zeros((probabilities.shape[1], CALIBRATION_BINS))
    columns = np.broadcast_to(np.arange(probabilities.shape[1]), probabilities.shape)
    np.add.at(sums, (columns, calibration_bins(probabilities)), probabilities)
    return sums


def calibration_error(sums: npt.NDArray[np.float64], counts: Counts, cases: int) -> float:
    """The expected calibration error of a label, in [0, 1], as the mean over labels.

    Of each label the probabilities are sorted into 15 equal bins, and in each the mean probability
    is compared with the share of cases that have the label (the classwise error of Kull et al.
    2019, "Beyond temperature scaling", with each label as a class).

    Args:
        sums: of the probabilities, ``(labels, 15)``.
        counts: the cases without and with the label, ``(labels, 15, 2)``.
        cases: how many there are, at least 1.
    """
    gaps = np.abs(sums - counts[..., 1])
    return float(gaps.sum() / (cases * len(sums)))


def by_label(counts: Counts) -> Metrics:
    """Precision, recall and F1 of confusion counts ``(labels, 2, 2)``, and ``labels_rated``.

    They are macro means over the labels that some case has: of others there is nothing to recall. A
    label that is never predicted counts with a precision of 0. ``labels_rated`` is how many labels
    have cases with them and cases without, which the AUC is the mean over.
    """
    having, lacking = counts[:, 1].sum(axis=1), counts[:, 0].sum(axis=1)
    there = having > 0
    hits, predicted = counts[there, 1, 1], counts[there, :, 1].sum(axis=1)
    metrics: Metrics = dict.fromkeys(("precision", "recall", "f1"))
    if there.any():
        metrics = {
            "precision": float(np.mean(hits / np.maximum(predicted, 1))),
            "recall": float(np.mean(hits / having[there])),
            "f1": float(np.mean(2 * hits / (having[there] + predicted))),
        }
    return {**metrics, "labels_rated": float((there & (lacking > 0)).sum())}


def multilabel_metrics(
    labels: AnyLabels, probabilities: Probabilities, names: tuple[str, ...]
) -> Metrics:
    """All of :data:`METRICS`, and ``auc_NAME`` of each label, of labels and probabilities.

    Both are ``(n, labels)``. ``auc`` is the mean over labels of the area under the ROC curve,
    ``micro_auc`` the area under that of all labels' scores as if they were of one label, and
    ``accuracy`` the share of right answers over all cases and labels, with a threshold of 0.5: both
    as MedMNIST computes them. A label that no case has, or that every case has, has no area, which
    is ``None``, and is left out of the mean; ``labels_rated`` counts the others. ``loss`` is the
    mean binary cross-entropy over cases and labels, in nats. Every value is ``None`` where n is 0.
    """
    metrics: Metrics = dict.fromkeys([*(m.name for m in METRICS), *(f"auc_{n}" for n in names)])
    if not len(labels):
        return metrics
    areas = {
        f"auc_{name}": rank_area(own == 1, scores)
        for name, own, scores in zip(names, labels.T, probabilities.T, strict=True)
        if 0 < own.sum() < len(own)
    }
    counts = reliability_counts(labels, probabilities)
    right = (probabilities > THRESHOLD) == (labels == 1)
    return {
        **metrics,
        **areas,
        **by_label(confusion_counts(labels, probabilities)),
        "auc": float(np.mean(list(areas.values()))) if areas else None,
        "micro_auc": rank_area(labels.ravel() == 1, probabilities.ravel())
        if 0 < labels.sum() < labels.size
        else None,
        "accuracy": float(right.mean()),
        "ece": calibration_error(confidence_sums(probabilities), counts, len(labels)),
        "loss": float(case_losses(labels, probabilities).mean()),
    }
