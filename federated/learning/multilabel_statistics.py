"""The additive statistics of multi-label classification, and the metrics that follow from them.

Of each label they are what :mod:`federated.learning.classification_statistics` has of a class. All
metrics but the areas follow from them exactly.
"""

from functools import partial

import numpy as np

from federated.data.dataset import DatasetInfo
from federated.learning.classification_metrics import CALIBRATION_BINS, Metrics, calibration_bins
from federated.learning.multilabel_metrics import (
    METRICS,
    THRESHOLD,
    by_label,
    calibration_error,
    case_losses,
    confidence_sums,
    confusion_counts,
    reliability_counts,
)
from federated.learning.score_histogram import BINS, area, ordered, score_bins
from federated.learning.statistics import CASES, EvaluationStatistics, Form, Part
from federated.learning.suppression import Table, withheld
from federated.learning.task_statistics import Measured, TaskStatistics, means_over_cases
from federated.update import Arrays

# What a label is, for its scores: there or not.
CLASSES = 2


def form(info: DatasetInfo) -> Form:
    """The arrays, of L labels.

    - ``cases`` ``(1,)``: the number of cases.
    - ``outcomes`` ``(2,)``: how many answers over all cases and labels are wrong, and right.
    - ``confusion`` ``(L, 2, 2)``: how many cases there are ``[label][true][predicted]``.
    - ``scores`` ``(L, 2, 1024)``: of each label the scores of the cases without and with it, by
      bin; each score is in three bins, see :mod:`federated.learning.score_histogram`.
    - ``reliability`` ``(L, 15, 2)``: of each label and bin of probability the cases without it and
      with it.
    - ``confidence`` ``(L, 15)``: the sum of the probabilities in each of these bins.
    - ``loss`` ``(1,)``: the sum of the cases' binary cross-entropies, in nats.
    """
    labels = len(info.classes)
    return {
        CASES: Part((1,)),
        "outcomes": Part((2,)),
        "confusion": Part((labels, 2, 2)),
        "scores": Part((labels, 2, BINS)),
        "reliability": Part((labels, CALIBRATION_BINS, 2)),
        "confidence": Part((labels, CALIBRATION_BINS), real=True),
        "loss": Part((1,), real=True),
    }


def statistics(predictions: Arrays, info: DatasetInfo) -> EvaluationStatistics:
    """The statistics of ``labels`` and ``probabilities``, both ``(n, labels)``; n may be 0."""
    labels, probabilities = predictions["labels"], predictions["probabilities"]
    count = len(info.classes)
    scores = np.zeros((count, 2, BINS), np.int64)
    columns = np.arange(count)[None, :, None]
    np.add.at(scores, (columns, labels[:, :, None], score_bins(probabilities, CLASSES)), 1)
    right = int(((probabilities > THRESHOLD) == (labels == 1)).sum())
    return EvaluationStatistics(
        {
            CASES: np.array([len(labels)]),
            "outcomes": np.array([labels.size - right, right]),
            "confusion": confusion_counts(labels, probabilities),
            "scores": scores,
            "reliability": reliability_counts(labels, probabilities),
            "confidence": confidence_sums(probabilities),
            "loss": np.array([case_losses(labels, probabilities).sum()]),
        }
    )


def suppressed(
    predictions: Arrays,
    info: DatasetInfo,  # noqa: ARG001 - as every task's
    minimum: int,
) -> frozenset[str]:
    """The arrays that a site withholds, so that no count below ``minimum`` can be read.

    Counts of several labels together tell of combinations of them, of which most have few cases.
    So beyond a handful of labels, or of cases, what is told is the number of cases, and at best how
    many answers are right. The sum of losses goes with the confusion counts: of a model that
    predicts the same for every case it tells how many have each label.
    """
    labels, probabilities = predictions["labels"], predictions["probabilities"]
    predicted = probabilities > THRESHOLD
    bins = score_bins(probabilities, CLASSES)
    bins = bins.reshape(len(labels), bins.shape[1] * bins.shape[2])
    tables = [
        Table(("outcomes",), (predicted == (labels == 1)).sum(axis=1)),
        Table(("confusion", "loss"), np.concatenate([labels, predicted.astype(int)], axis=1)),
        Table(("scores",), np.concatenate([labels, bins], axis=1)),
        Table(
            ("reliability", "confidence"),
            np.concatenate([labels, calibration_bins(probabilities)], axis=1),
        ),
    ]
    return withheld(tables, minimum)


def measure(told: EvaluationStatistics, info: DatasetInfo) -> Measured:
    """The metrics of statistics, of a site or of the sum over several.

    A metric is ``None`` where there is no case, or where what it follows from is withheld.
    """
    names = info.classes
    metrics: Metrics = dict.fromkeys([*(m.name for m in METRICS), *(f"auc_{n}" for n in names)])
    if not told.cases:
        return Measured(metrics, absent=())
    cases, arrays = told.cases, told.arrays
    absent = None
    intervals: dict[str, tuple[float, float]] = {}
    if "outcomes" in arrays:
        metrics["accuracy"] = float(arrays["outcomes"][1] / arrays["outcomes"].sum())
    if "confusion" in arrays:
        metrics |= by_label(arrays["confusion"])
        having = arrays["confusion"][:, 1].sum(axis=1)
        absent = tuple(name for name, count in zip(names, having, strict=True) if not count)
    if "scores" in arrays:
        intervals = _areas(arrays, names, metrics)
    if "reliability" in arrays:
        metrics["ece"] = calibration_error(arrays["confidence"], arrays["reliability"], cases)
    if "loss" in arrays:
        metrics["loss"] = float(arrays["loss"][0] / cases)
    return Measured(metrics, absent=absent, intervals=intervals)


def _areas(
    arrays: Arrays, names: tuple[str, ...], metrics: Metrics
) -> dict[str, tuple[float, float]]:
    """Fill in each label's AUC and their mean, and return the bounds between which they lie."""
    found = {
        f"auc_{name}": known
        for name, histogram in zip(names, arrays["scores"], strict=True)
        if (known := area(ordered(histogram, CLASSES))) is not None
    }
    if not found:
        return {}
    metrics |= {name: known.value for name, known in found.items()}
    triples = [(known.value, known.low, known.high) for known in found.values()]
    metrics["auc"], low, high = np.mean(triples, axis=0).tolist()
    return {"auc": (low, high), **{name: (known.low, known.high) for name, known in found.items()}}


MULTILABEL_STATISTICS = TaskStatistics(
    form=form,
    of=statistics,
    suppressed=suppressed,
    measure=measure,
    mean_of_sites=partial(means_over_cases, METRICS),
)
