"""The AUC from histograms of scores, and the bounds between which the exact one lies.

A histogram loses the order of scores within a bin. So bins have to be narrow where scores crowd:
near 0 and 1 where a model is sure, and wherever they happen to be where it was hardly trained. In
bins of equal width in probability all scores of a saturated model share two. Of 1,024 bins here

- 512 are of the whole range, of equal width in asinh((logit(p) − logit(1/classes)) / NEAREST): in
  logits a bin is about 2 % as wide as it is far from the uniform prediction;
- 256 each are of two scales, with bins of 0.016 and of 0.003 logits, that go round after so many
  bins, as the hands of a clock do. The whole range tells where scores lie; if they all lie within
  one turn of a scale, it tells their order.

These are fixed, increasing functions of the score, which know nothing of the cases: so every site
has the same bins, and they add up. What is lost is known: the order in each pair of a positive and
a negative that share a bin. The AUC counts these pairs half; counted as 0 and as 1 they give its
bounds, which always hold. There are models whose scores no bins tell apart that know nothing of the
model, such as one whose scores differ by less than a thousandth of a logit; and scores that need
just more than a turn are told by wider bins.
"""

from dataclasses import dataclass
from functools import cache
from math import asinh, log

import numpy as np
import numpy.typing as npt

from federated.learning.classification_metrics import Probabilities

# In logits from the uniform prediction: how far bins are about equally wide, and how far they
# reach. A float64 probability is 1 from 37 on, where exact ranks are tied too.
NEAREST = 0.5
FARTHEST = 40.0
WHOLE = 512


@dataclass(frozen=True)
class Scale:
    """Bins of ``width`` logits that go round after ``turn`` bins; they begin at ``start``."""

    start: int
    turn: int
    width: float


# The finest last.
SCALES = (Scale(512, 256, 0.016), Scale(768, 256, 0.003))
BINS = SCALES[-1].start + SCALES[-1].turn

Counts = npt.NDArray[np.int64]
Edges = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Area:
    """An AUC with ties counted half, in [0, 1], and with all of them counted as 0 and as 1."""

    value: float
    low: float
    high: float


@cache
def whole_edges(classes: int) -> Edges:
    """The scores between the bins of the whole range, ascending ``(WHOLE − 1,)``.

    A bin holds its upper edge. One edge is 1 / ``classes``, for 2 classes the score at which the
    prediction changes.
    """
    from scipy.special import expit

    steps = np.linspace(-1, 1, WHOLE + 1)[1:-1] * asinh(FARTHEST / NEAREST)
    found: Edges = expit(NEAREST * np.sinh(steps) - log(classes - 1))
    found[WHOLE // 2 - 1] = 1 / classes
    found.flags.writeable = False
    return found


@cache
def _scale_edges(width: float) -> Edges:
    """The scores between the bins of a scale, before it goes round."""
    from scipy.special import expit

    reach = int(FARTHEST / width)
    return np.asarray(expit(np.arange(-reach, reach + 1) * width))


def _bins(edges: Edges, scores: Probabilities) -> npt.NDArray[np.intp]:
    """How many edges are below each score; larger scores never have fewer."""
    return np.searchsorted(edges, scores, side="left")


def score_bins(probabilities: Probabilities, classes: int | None = None) -> npt.NDArray[np.intp]:
    """The bins of every score ``(n, classes, 3)``, in [0, ``BINS``): of the range, of each scale.

    Scores are ``(n, classes)``. Of several labels, each of which is a question of its own, there
    are two ``classes`` whatever the number of columns.
    """
    found = [_bins(whole_edges(classes or probabilities.shape[1]), probabilities)]
    for scale in SCALES:
        turned = _bins(_scale_edges(scale.width), probabilities) % scale.turn
        found.append(scale.start + turned)
    return np.stack(found, axis=-1)


def ordered(histogram: Counts, classes: int) -> Counts:
    """The counts ``(2, bins)`` by ascending score, of the finest scale that tells the order.

    The histogram is ``(2, BINS)``, of negatives and positives, and of one class of ``classes``.
    """
    found, first, edges = histogram[:, :WHOLE], 0, whole_edges(classes)
    for scale in SCALES:
        there = first + np.flatnonzero(found.sum(axis=0))
        if not len(there):
            break
        # All scores are above the first of these two, and not above the second.
        level = np.concatenate([[0.0], edges, [1.0]])
        between = level[[there[0], there[-1] + 1]]
        edges = _scale_edges(scale.width)
        first, last = _bins(edges, between).tolist()
        if last - first >= scale.turn:
            break
        turned = histogram[:, scale.start : scale.start + scale.turn]
        found = np.roll(turned, -(first % scale.turn), axis=1)
    return found


def area(histogram: Counts) -> Area | None:
    """The AUC of ordered counts ``(2, bins)``, negatives and positives; ``None`` without a pair."""
    negatives, positives = histogram
    pairs = float(negatives.sum()) * float(positives.sum())
    if not pairs:
        return None
    below = np.cumsum(negatives) - negatives
    # As float64, which is exact up to 2^53 pairs.
    low = float((positives.astype(float) * below).sum()) / pairs
    tied = float((positives.astype(float) * negatives).sum()) / pairs
    return Area(low + tied / 2, low, low + tied)


def macro_area(histograms: Counts) -> Area | None:
    """The mean of the classes' areas, as :func:`classification_metrics.auc` means them.

    Histograms are ``(classes, 2, BINS)``. A class without a case, or without a case of another
    class, is in no mean; with two classes the area is that of class 1. ``None`` where no class
    counts.
    """
    classes = len(histograms)
    columns = [1] if classes == 2 else range(classes)
    areas = (area(ordered(histograms[column], classes)) for column in columns)
    found = [known for known in areas if known is not None]
    if not found:
        return None
    value, low, high = np.mean([(one.value, one.low, one.high) for one in found], axis=0).tolist()
    return Area(value, low, high)
