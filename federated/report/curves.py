"""ROC curves and reliability of the statistics that sites share, each with its uncertainty.

All of it follows from histograms and counts that are summed over sites, so no case is needed. What
varies is which cases happen to be in the test split: every case counts as independent of the
others, since nobody but the sites knows which cases are of one patient.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from federated.learning.places import Counts
from federated.learning.score_histogram import ordered, score_area
from federated.learning.statistics import EvaluationStatistics

# The quantile of a two-sided interval of 95 %.
Z = float(ndtri(0.975))
# A curve that is drawn has no more points.
MOST_POINTS = 80

Numbers = npt.NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class RocCurve:
    """The ROC curve of one class against the others, or of one label.

    ``false_positive`` and ``true_positive`` ``(points,)`` go from (0, 0) to (1, 1). ``low`` and
    ``high`` are Wilson's 95 % interval of the true positives' rate at each threshold. ``area`` is
    the AUC; ``interval`` is that of DeLong et al. 1988 on the scale of logits, ``None`` where the
    AUC is 0 or 1, of which it knows no uncertainty. ``deviation`` is its standard deviation.
    """

    name: str
    false_positive: Numbers
    true_positive: Numbers
    low: Numbers
    high: Numbers
    area: float
    deviation: float
    interval: Interval | None
    positives: int
    negatives: int


@dataclass(frozen=True)
class Reliability:
    """What became of predictions of a confidence, by bin ``(bins,)``; empty bins are left out.

    ``confidence`` is the mean predicted probability and ``share`` how many of the ``cases`` came
    true, with Wilson's 95 % interval ``low`` to ``high``. ``name`` is the label's; it is empty
    where the confidence is that of the predicted class.
    """

    name: str
    confidence: Numbers
    share: Numbers
    low: Numbers
    high: Numbers
    cases: npt.NDArray[np.int64]


def roc_curves(statistics: EvaluationStatistics, names: Sequence[str], task: str) -> list[RocCurve]:
    """The curves of every class or label that has cases with it and without it.

    With two classes it is that of the second. There is none where scores are withheld.

    Args:
        statistics: over the cases of all sites, of classification or of several labels.
        names: of the classes or labels.
        task: which of the two it is.
    """
    scores, places = (statistics.arrays.get(name) for name in ("scores", "places"))
    if scores is None or places is None:
        return []
    columns = [1] if task == "classification" and len(names) == 2 else range(len(names))
    found = (_roc(names[column], scores[column], places[column]) for column in columns)
    return [curve for curve in found if curve is not None]


def _roc(name: str, counts: Counts, places: Counts) -> RocCurve | None:
    """The curve of counts ``(2, BINS)`` of negatives and positives, with their sums of places."""
    known = score_area(counts, places)
    if known is None:
        return None
    counts = ordered(counts)
    counts = counts[:, counts.sum(axis=0) > 0]
    negatives, positives = (int(total) for total in counts.sum(axis=1))
    passed = np.concatenate([np.zeros((2, 1)), counts[:, ::-1].cumsum(axis=1)], axis=1)
    kept = _thinned(passed)
    false, true = passed[:, kept] / np.array([[negatives], [positives]])
    low, high = wilson(passed[1, kept], np.full(len(kept), positives))
    deviation = _deviation(counts)
    interval = _on_logits(known.value, deviation)
    return RocCurve(
        name, false, true, low, high, known.value, deviation, interval, positives, negatives
    )


def _thinned(passed: Numbers) -> npt.NDArray[np.intp]:
    """Which points ``(points,)`` of a curve are kept: nearly equally far from each other on it."""
    along = (passed / np.maximum(passed[:, -1:], 1)).sum(axis=0)
    wanted = np.searchsorted(along, np.linspace(0, 2, MOST_POINTS))
    return np.unique(np.concatenate([[0], wanted.clip(0, len(along) - 1), [len(along) - 1]]))


def _deviation(counts: npt.NDArray[np.int64]) -> float:
    """The standard deviation of an AUC, from the placements of DeLong, DeLong and Clarke-Pearson.

    Cases in one bin are tied. It is 0 where a side has a single case, of which nothing is known.
    """
    negatives, positives = counts.astype(np.float64)
    below = (negatives.cumsum() - negatives / 2) / negatives.sum()
    above = 1 - (positives.cumsum() - positives / 2) / positives.sum()
    variance = 0.0
    for weights, placements in ((positives, below), (negatives, above)):
        n = weights.sum()
        if n > 1:
            mean = (weights * placements).sum() / n
            variance += (weights * (placements - mean) ** 2).sum() / (n - 1) / n
    return float(np.sqrt(variance))


def _on_logits(value: float, deviation: float) -> Interval | None:
    if not 0 < value < 1 or not deviation:
        return None
    logit, step = np.log(value / (1 - value)), Z * deviation / (value * (1 - value))
    low, high = 1 / (1 + np.exp(-(logit + np.array([-step, step]))))
    return float(low), float(high)


def mean_interval(curves: Sequence[RocCurve]) -> Interval | None:
    """An interval of the mean of some classes' AUCs that is at least as wide as it has to be.

    How AUCs of the same cases vary together does not follow from histograms. The standard deviation
    of their mean is at most the mean of their standard deviations, which is taken here.
    """
    if not curves or not all(curve.deviation for curve in curves):
        return None
    if len(curves) == 1:
        return curves[0].interval
    mean = float(np.mean([curve.area for curve in curves]))
    return _on_logits(mean, float(np.mean([curve.deviation for curve in curves])))


def reliabilities(
    statistics: EvaluationStatistics, names: Sequence[str], task: str
) -> list[Reliability]:
    """How far probabilities can be believed; none where that is withheld.

    In classification it is one, of the confidence in the predicted class, and of several labels one
    for each label.
    """
    counts, sums = (statistics.arrays.get(name) for name in ("reliability", "confidence"))
    if counts is None or sums is None:
        return []
    if task == "classification":
        return [reliability("", counts, sums)]
    return [reliability(n, c, s) for n, c, s in zip(names, counts, sums, strict=True)]


def reliability(name: str, counts: npt.NDArray[np.int64], sums: Numbers) -> Reliability:
    """How far probabilities can be believed, of counts ``(bins, 2)`` and sums of confidences."""
    there = counts.sum(axis=1) > 0
    cases, true = counts[there].sum(axis=1), counts[there, 1]
    low, high = wilson(true.astype(np.float64), cases)
    return Reliability(name, sums[there] / cases, true / cases, low, high, cases)


def wilson(hits: Numbers, cases: npt.NDArray[np.int64]) -> tuple[Numbers, Numbers]:
    """Wilson's 95 % interval of shares, with as many ``hits`` ``(n,)`` of ``cases`` ``(n,)``."""
    share = hits / cases
    middle = (share + Z**2 / (2 * cases)) / (1 + Z**2 / cases)
    spread = np.sqrt(share * (1 - share) / cases + Z**2 / (4 * cases**2))
    half = Z / (1 + Z**2 / cases) * spread
    return (middle - half).clip(0, 1), (middle + half).clip(0, 1)


def binned_interval(tables: Sequence[Counts]) -> Interval | None:
    """The interval of the mean of some classes' AUCs, from counts ``(2, bins)`` in few bins.

    A pair that shares a bin counts half, so that what bins do not tell apart is in no interval.
    """
    found = []
    for counts in tables:
        negatives, positives = counts.astype(np.float64)
        pairs = negatives.sum() * positives.sum()
        if not pairs:
            continue
        below = negatives.cumsum() - negatives / 2
        found.append((float((positives * below).sum() / pairs), _deviation(counts)))
    if not found or not all(deviation for _, deviation in found):
        return None
    mean, deviation = np.mean(found, axis=0).tolist()
    return _on_logits(mean, deviation)
