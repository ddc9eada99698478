"""The AUC from histograms of scores, and the bounds between which the exact one lies.

A histogram loses the order of scores within a bin. So bins have to be narrow where scores crowd:
near 0 and 1 where a model is sure, near one over the number of classes where it knows little yet.
In bins of equal width in probability all scores of a saturated model share two. The bins here have
equal width in

    t(p) = asinh((logit(p) − logit(1/classes)) / NEAREST),

which is a fixed, increasing function of the score: in logits, a bin is 1 % as wide as it is far
from the uniform prediction, and 0.005 wide there. The function knows nothing of the cases, so every
site has the same bins. It knows nothing of the model either, so there are models whose scores it
cannot tell apart, such as one that was hardly trained and whose scores all lie in a few hundredths
of a logit. What is lost is known: the order in each pair of a positive and a negative that share a
bin. The AUC counts these pairs half; counted as 0 and as 1 they give its bounds, which always hold.
"""

from dataclasses import dataclass
from functools import cache
from math import asinh, log

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from federated.learning.classification_metrics import Probabilities

BINS = 1024
# In logits from the uniform prediction: how far bins are about equally wide, and how far they
# reach. A float64 probability is 1 from 37 on, where exact ranks are tied too.
NEAREST = 0.5
FARTHEST = 40.0

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Area:
    """An AUC with ties counted half, in [0, 1], and with all of them counted as 0 and as 1."""

    value: float
    low: float
    high: float


@cache
def edges(classes: int) -> npt.NDArray[np.float64]:
    """The scores between bins, ascending ``(BINS − 1,)``; a bin holds its upper edge.

    One of them is 1 / ``classes``, for 2 classes the score at which the prediction changes.
    """
    steps = np.linspace(-1, 1, BINS + 1)[1:-1] * asinh(FARTHEST / NEAREST)
    found: npt.NDArray[np.float64] = expit(NEAREST * np.sinh(steps) - log(classes - 1))
    found[BINS // 2 - 1] = 1 / classes
    found.flags.writeable = False
    return found


def score_bins(probabilities: Probabilities) -> npt.NDArray[np.intp]:
    """The bin of every score, in [0, ``BINS``); scores and bins are ``(n, classes)``.

    Larger scores never have a smaller bin: a bin is found by comparing with :func:`edges`.
    """
    return np.searchsorted(edges(probabilities.shape[1]), probabilities, side="left")


def area(histogram: Counts) -> Area | None:
    """The AUC of a histogram ``(2, bins)`` of negatives and positives; ``None`` without a pair."""
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

    Histograms are ``(classes, 2, bins)``. A class without a case, or without a case of another
    class, is in no mean; with two classes the area is that of class 1. ``None`` where no class
    counts.
    """
    classes = len(histograms)
    columns = [1] if classes == 2 else range(classes)
    found = [known for column in columns if (known := area(histograms[column])) is not None]
    if not found:
        return None
    value, low, high = np.mean([(one.value, one.low, one.high) for one in found], axis=0).tolist()
    return Area(value, low, high)
