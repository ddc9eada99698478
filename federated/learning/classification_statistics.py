"""The additive statistics of classification, and the metrics that follow from them.

Confusion counts, score histograms, reliability bins and the sum of losses take the place of
labels and predicted probabilities. All metrics but the AUC follow from them exactly; the AUC to
within what :mod:`federated.learning.score_histogram` says.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from federated.data.dataset import DatasetInfo
from federated.learning.classification_metrics import (
    CALIBRATION_BINS,
    METRICS,
    Metrics,
    confidence_bins,
    confusion_matrix,
    loss_sum,
    metrics_by_class,
)
from federated.learning.places import PLACES
from federated.learning.score_histogram import (
    BINS,
    BINS_A_SCORE,
    WHOLE,
    impossible_places,
    macro_area,
    score_histograms,
    score_steps,
    step_bins,
)
from federated.learning.statistics import CASES, EvaluationStatistics, Form, Part
from federated.learning.suppression import Table
from federated.learning.task_statistics import Measured, TaskStatistics, means_over_cases
from federated.update import Arrays


def form(info: DatasetInfo) -> Form:
    """The arrays, of C classes.

    - ``cases`` ``(1,)``: the number of cases.
    - ``outcomes`` ``(2,)``: how many were predicted wrongly, and rightly.
    - ``confusion`` ``(C, C)``: how many there are ``[true][predicted]``.
    - ``scores`` ``(C, 2, 1024)``: of each class the scores of the cases without and with it, by
      bin; each score is in two bins, see :mod:`federated.learning.score_histogram`.
    - ``places`` ``(C, 2, 512)``: the sums of their places in the bins of the whole range.
    - ``reliability`` ``(15, 2)``: of each bin of confidence the cases predicted wrongly, rightly.
    - ``confidence`` ``(15,)``: the sum of the confidences in each of these bins.
    - ``loss`` ``(1,)``: the sum of the negative log likelihoods, in nats.
    """
    classes = len(info.classes)
    return {
        CASES: Part((1,)),
        "outcomes": Part((2,), each_case=1),
        "confusion": Part((classes, classes), each_case=1),
        "scores": Part((classes, 2, BINS), each_case=classes * BINS_A_SCORE),
        "places": Part((classes, 2, WHOLE), most=PLACES - 1),
        "reliability": Part((CALIBRATION_BINS, 2), each_case=1),
        "confidence": Part((CALIBRATION_BINS,), real=True),
        "loss": Part((1,), real=True),
    }


def statistics(predictions: Arrays, info: DatasetInfo) -> EvaluationStatistics:
    """The statistics of ``labels`` ``(n,)`` and ``probabilities`` ``(n, classes)``; n may be 0."""
    labels, probabilities = predictions["labels"], predictions["probabilities"]
    classes = len(info.classes)
    right = (probabilities.argmax(axis=1) == labels).astype(np.int64)
    positive = (labels[:, None] == np.arange(classes)).astype(np.int64)
    scores, places = score_histograms(score_steps(probabilities), positive)
    bins = confidence_bins(probabilities)
    reliability = np.zeros((CALIBRATION_BINS, 2), np.int64)
    np.add.at(reliability, (bins, right), 1)
    confidence = np.bincount(bins, probabilities.max(axis=1), CALIBRATION_BINS)
    return EvaluationStatistics(
        {
            CASES: np.array([len(labels)]),
            "outcomes": np.bincount(right, minlength=2),
            "confusion": np.array(confusion_matrix(labels, probabilities)),
            "scores": scores,
            "places": places,
            "reliability": reliability,
            # Without a case they are whole numbers.
            "confidence": confidence.astype(np.float64),
            "loss": np.array([loss_sum(labels, probabilities)]),
        }
    )


def tables(
    predictions: Arrays,
    info: DatasetInfo,
    minimum: int,  # noqa: ARG001 - as every task's
) -> list[Table]:
    """Which cases the arrays tell apart.

    The sum of losses goes with the confusion counts: of a model that predicts the same for every
    case it tells how many there are of each class.
    """
    labels, probabilities = predictions["labels"], predictions["probabilities"]
    predicted = probabilities.argmax(axis=1)
    right = predicted == labels
    bins = step_bins(score_steps(probabilities))
    bins = bins.reshape(len(labels), len(info.classes) * BINS_A_SCORE)
    return [
        Table(("outcomes",), right.astype(int)),
        Table(("confusion", "loss"), np.stack([labels, predicted], axis=1)),
        # Cases that are in the same two bins are in the same place too.
        Table(("scores", "places"), np.concatenate([labels[:, None], bins], axis=1)),
        Table(
            ("reliability", "confidence"), np.stack([confidence_bins(probabilities), right], axis=1)
        ),
    ]


# What sums of float64 may be off by rounding.
ROUNDING = 1e-6


def contradictions(told: EvaluationStatistics, info: DatasetInfo) -> Iterator[str]:  # noqa: ARG001
    """Why statistics can be those of no cases: counts of the same cases that differ."""
    cases, arrays = told.cases, told.arrays
    for name in ("outcomes", "confusion", "reliability"):
        if name in arrays and int(arrays[name].sum()) != cases:
            yield f"{name!r} counts {int(arrays[name].sum())} of {cases} cases"
    right = {
        name: int(count)
        for name, count in (
            ("outcomes", arrays["outcomes"][1] if "outcomes" in arrays else None),
            ("confusion", np.trace(arrays["confusion"]) if "confusion" in arrays else None),
            ("reliability", arrays["reliability"][:, 1].sum() if "reliability" in arrays else None),
        )
        if count is not None
    }
    if len(set(right.values())) > 1:
        yield f"{' and '.join(right)} have different numbers of cases predicted rightly"
    if "scores" in arrays:
        yield from _wrong_scores(arrays, cases)
    if "confidence" in arrays and "reliability" in arrays:
        count = arrays["reliability"].sum(axis=1)
        level = np.arange(CALIBRATION_BINS + 1) / CALIBRATION_BINS
        low, high = level[:-1] * count - ROUNDING, level[1:] * count + ROUNDING
        if not ((low <= arrays["confidence"]) & (arrays["confidence"] <= high)).all():
            yield "'confidence' is not between the edges of its bins"
    # The likelihood of a case is taken to be no nearer to 0 than float64's rounding of 1.
    most = -np.log(np.finfo(np.float64).eps) * cases
    if "loss" in arrays and not -ROUNDING <= arrays["loss"][0] <= most + ROUNDING:
        yield f"'loss' is {arrays['loss'][0]:.6g}, and of {cases} cases at most {most:.6g}"


def _wrong_scores(arrays: Arrays, cases: int) -> Iterator[str]:
    """Each score is in one bin of the whole range and in one of the turn."""
    counts = np.add.reduceat(arrays["scores"], [0, WHOLE], axis=2)
    true = counts[:, 1, 0]
    if (counts != counts[:, :, :1]).any() or (counts[:, :, 0].sum(axis=1) != cases).any():
        yield f"'scores' do not have each of {cases} cases once"
    elif int(true.sum()) != cases:
        yield f"'scores' have {int(true.sum())} classes of {cases} cases"
    elif "confusion" in arrays and (arrays["confusion"].sum(axis=1) != true).any():
        yield "'scores' and 'confusion' have other numbers of cases of a class"
    if "places" in arrays and impossible_places(arrays["scores"], arrays["places"]):
        yield "'places' are more than so many scores have"


def measure(told: EvaluationStatistics, info: DatasetInfo) -> Measured:
    """The metrics of statistics, of a site or of the sum over several.

    A metric is ``None`` where there is no case, or where what it follows from is withheld.
    """
    metrics: Metrics = {known.name: None for known in METRICS}
    if not told.cases:
        empty = np.zeros((len(info.classes),) * 2, int)
        return Measured(metrics, empty.tolist(), ())
    cases, arrays = told.cases, told.arrays
    confusion, absent = None, None
    intervals: dict[str, tuple[float, float]] = {}
    if "outcomes" in arrays:
        metrics["accuracy"] = float(arrays["outcomes"][1] / cases)
    if "confusion" in arrays:
        counts = arrays["confusion"]
        confusion = [[int(count) for count in row] for row in counts]
        metrics |= metrics_by_class(counts)
        of_class = counts.sum(axis=1)
        absent = tuple(name for name, n in zip(info.classes, of_class, strict=True) if not n)
    if "scores" in arrays and "places" in arrays:
        found = macro_area(arrays["scores"], arrays["places"])
        if found is not None:
            metrics["auc"], intervals["auc"] = found.value, (found.low, found.high)
    if "reliability" in arrays:
        gaps = arrays["confidence"] - arrays["reliability"][:, 1]
        metrics["ece"] = float(np.abs(gaps).sum() / cases)
    if "loss" in arrays:
        metrics["loss"] = float(arrays["loss"][0] / cases)
    return Measured(metrics, confusion, absent, intervals)


CLASSIFICATION_STATISTICS = TaskStatistics(
    form=form,
    of=statistics,
    tables=tables,
    measure=measure,
    mean_of_sites=partial(means_over_cases, METRICS),
    contradictions=contradictions,
)
