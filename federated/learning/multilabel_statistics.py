"""The additive statistics of multi-label classification, and the metrics that follow from them.

Of each label they are what :mod:`federated.learning.classification_statistics` has of a class. All
metrics but the areas follow from them exactly.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

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
    right_answers,
)
from federated.learning.places import PLACES
from federated.learning.score_histogram import (
    BINS,
    BINS_A_SCORE,
    WHOLE,
    impossible_places,
    score_area,
    score_histograms,
    score_steps,
    step_bins,
)
from federated.learning.statistics import CASES, EvaluationStatistics, Form, Part
from federated.learning.suppression import Table
from federated.learning.task_statistics import Measured, TaskStatistics, means_over_cases
from federated.update import Arrays

# The loss of a case at most: no probability counts as nearer to 0 or 1 than float64's rounding.
LARGEST_LOSS = float(-np.log(np.finfo(np.float64).eps))
# What a label is, for its scores: there or not.
CLASSES = 2


def form(info: DatasetInfo) -> Form:
    """The arrays, of L labels.

    - ``cases`` ``(1,)``: the number of cases.
    - ``outcomes`` ``(L + 1,)``: how many cases have 0, 1, … L labels predicted rightly.
    - ``confusion`` ``(L, 2, 2)``: how many cases there are ``[label][true][predicted]``.
    - ``scores`` ``(L, 2, 1024)``: of each label the scores of the cases without and with it, by
      bin; each score is in two bins, see :mod:`federated.learning.score_histogram`.
    - ``places`` ``(L, 2, 512)``: the sums of their places in the bins of the whole range.
    - ``reliability`` ``(L, 15, 2)``: of each label and bin of probability the cases without it and
      with it.
    - ``confidence`` ``(L, 15)``: the sum of the probabilities in each of these bins.
    - ``loss`` ``(1,)``: the sum of the cases' binary cross-entropies, in nats.
    """
    labels = len(info.classes)
    return {
        CASES: Part((1,)),
        "outcomes": Part((labels + 1,), each_case=1),
        "confusion": Part((labels, 2, 2), each_case=labels),
        "scores": Part((labels, 2, BINS), each_case=labels * BINS_A_SCORE),
        "places": Part((labels, 2, WHOLE), most=PLACES - 1),
        "reliability": Part((labels, CALIBRATION_BINS, 2), each_case=labels),
        "confidence": Part((labels, CALIBRATION_BINS), real=True, most=1),
        "loss": Part((1,), real=True, most=LARGEST_LOSS),
    }


def statistics(
    predictions: Arrays,
    info: DatasetInfo,  # noqa: ARG001 - as every task's
) -> EvaluationStatistics:
    """The statistics of ``labels`` and ``probabilities``, both ``(n, labels)``; n may be 0."""
    labels, probabilities = predictions["labels"], predictions["probabilities"]
    scores, places = score_histograms(score_steps(probabilities, CLASSES), labels)
    return EvaluationStatistics(
        {
            CASES: np.array([len(labels)]),
            "outcomes": right_answers(labels, probabilities),
            "confusion": confusion_counts(labels, probabilities),
            "scores": scores,
            "places": places,
            "reliability": reliability_counts(labels, probabilities),
            "confidence": confidence_sums(probabilities),
            "loss": np.array([case_losses(labels, probabilities).sum()]),
        }
    )


def tables(
    predictions: Arrays,
    info: DatasetInfo,  # noqa: ARG001 - as every task's
    minimum: int,  # noqa: ARG001
) -> list[Table]:
    """Which cases the arrays tell apart.

    Counts of several labels together tell of combinations of them, of which most have few cases.
    So beyond a handful of labels, or of cases, what is told is the number of cases, and at best how
    many answers are right. The sum of losses goes with the confusion counts: of a model that
    predicts the same for every case it tells how many have each label.
    """
    labels, probabilities = predictions["labels"], predictions["probabilities"]
    predicted = probabilities > THRESHOLD
    bins = step_bins(score_steps(probabilities, CLASSES))
    bins = bins.reshape(len(labels), bins.shape[1] * bins.shape[2])
    return [
        Table(("outcomes",), (predicted == (labels == 1)).sum(axis=1)),
        Table(("confusion", "loss"), np.concatenate([labels, predicted.astype(int)], axis=1)),
        # Cases that are in the same two bins are in the same place too.
        Table(("scores", "places"), np.concatenate([labels, bins], axis=1)),
        Table(
            ("reliability", "confidence"),
            np.concatenate([labels, calibration_bins(probabilities)], axis=1),
        ),
    ]


# What sums of float64 may be off by rounding.
ROUNDING = 1e-6


def contradictions(told: EvaluationStatistics, info: DatasetInfo) -> Iterator[str]:
    """Why statistics can be those of no cases: counts of the same cases that differ."""
    cases, arrays, labels = told.cases, told.arrays, len(info.classes)
    if "outcomes" in arrays and int(arrays["outcomes"].sum()) != cases:
        yield f"'outcomes' counts {int(arrays['outcomes'].sum())} of {cases} cases"
    for name in ("confusion", "reliability"):
        if name in arrays and (arrays[name].reshape(labels, -1).sum(axis=1) != cases).any():
            yield f"{name!r} does not have each of {cases} cases once for each label"
    if "scores" in arrays:
        yield from _wrong_scores(arrays["scores"], cases)
        if "places" in arrays and impossible_places(arrays["scores"], arrays["places"]):
            yield "'places' are more than so many scores have"
    having = {
        name: counts
        for name, counts in (
            ("confusion", arrays["confusion"][:, 1].sum(axis=1) if "confusion" in arrays else None),
            ("scores", arrays["scores"][:, 1, :WHOLE].sum(axis=1) if "scores" in arrays else None),
            (
                "reliability",
                arrays["reliability"][..., 1].sum(axis=1) if "reliability" in arrays else None,
            ),
        )
        if counts is not None
    }
    if len({tuple(counts.tolist()) for counts in having.values()}) > 1:
        yield f"{' and '.join(having)} have other numbers of cases with a label"
    if "outcomes" in arrays and "confusion" in arrays:
        right = int(arrays["outcomes"] @ np.arange(labels + 1))
        if right != int(np.trace(arrays["confusion"], axis1=1, axis2=2).sum()):
            yield "'outcomes' and 'confusion' have other numbers of right answers"
    if "confidence" in arrays and "reliability" in arrays:
        count = arrays["reliability"].sum(axis=2)
        level = np.arange(CALIBRATION_BINS + 1) / CALIBRATION_BINS
        low, high = level[:-1] * count - ROUNDING, level[1:] * count + ROUNDING
        if not ((low <= arrays["confidence"]) & (arrays["confidence"] <= high)).all():
            yield "'confidence' is not between the edges of its bins"
    if "loss" in arrays and not -ROUNDING <= arrays["loss"][0] <= LARGEST_LOSS * cases + ROUNDING:
        yield (
            f"'loss' is {arrays['loss'][0]:.6g}, and of {cases} cases at most "
            f"{LARGEST_LOSS * cases:.6g}"
        )


def _wrong_scores(scores: npt.NDArray[Any], cases: int) -> Iterator[str]:
    """Each score of a label is in one bin of the whole range and in one of the turn."""
    counts = np.add.reduceat(scores, [0, WHOLE], axis=2)
    if (counts != counts[:, :, :1]).any() or (counts[:, :, 0].sum(axis=1) != cases).any():
        yield f"'scores' do not have each of {cases} cases once for each label"


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
        right = arrays["outcomes"] @ np.arange(len(names) + 1)
        metrics["accuracy"] = float(right / (cases * len(names)))
    if "confusion" in arrays:
        metrics |= by_label(arrays["confusion"])
        having = arrays["confusion"][:, 1].sum(axis=1)
        absent = tuple(name for name, count in zip(names, having, strict=True) if not count)
    if "scores" in arrays and "places" in arrays:
        intervals = _areas(arrays, names, metrics)
    if "reliability" in arrays:
        metrics["ece"] = calibration_error(arrays["confidence"], arrays["reliability"], cases)
    if "loss" in arrays:
        metrics["loss"] = float(arrays["loss"][0] / cases)
    return Measured(metrics, absent=absent, intervals=intervals)


def _areas(
    arrays: Arrays, names: tuple[str, ...], metrics: Metrics
) -> dict[str, tuple[float, float]]:
    """Fill in each label's AUC, their mean and the one of all labels, and return their bounds."""
    found = {
        f"auc_{name}": known
        for name, *bins in zip(names, arrays["scores"], arrays["places"], strict=True)
        if (known := score_area(*bins)) is not None
    }
    metrics |= {name: known.value for name, known in found.items()}
    bounds = {name: (known.low, known.high) for name, known in found.items()}
    if found:
        triples = [(known.value, known.low, known.high) for known in found.values()]
        metrics["auc"], low, high = np.mean(triples, axis=0).tolist()
        bounds["auc"] = (low, high)
    together = score_area(arrays["scores"].sum(axis=0), arrays["places"].sum(axis=0))
    if together is not None:
        metrics["micro_auc"] = together.value
        bounds["micro_auc"] = (together.low, together.high)
    return bounds


MULTILABEL_STATISTICS = TaskStatistics(
    form=form,
    of=statistics,
    tables=tables,
    measure=measure,
    mean_of_sites=partial(means_over_cases, METRICS),
    contradictions=contradictions,
)
