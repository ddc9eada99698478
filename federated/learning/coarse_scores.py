"""Histograms of scores with few bins, for subgroups: small to send, with an AUC between bounds.

A bin is 64 steps of :mod:`federated.learning.score_histogram`, so that it is a fixed range of
scores, the same at every site. A pair of a positive and a negative that share a bin counts half;
the bounds, which always hold, count it 0 and 1.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from federated.learning.classification_metrics import Probabilities
from federated.learning.places import PLACES, Counts
from federated.learning.score_histogram import WHOLE, Area, score_steps

COARSE_BINS: Final = 128
_STEPS_A_BIN: Final = WHOLE * PLACES // COARSE_BINS


def coarse_bins(probabilities: Probabilities, classes: int | None = None) -> npt.NDArray[np.intp]:
    """The bin of every score ``(n, columns)``, in [0, ``COARSE_BINS``).

    Of several labels, each of which is a question of its own, there are two ``classes``.
    """
    found: npt.NDArray[np.intp] = score_steps(probabilities, classes) // _STEPS_A_BIN
    return found


def coarse_counts(bins: npt.NDArray[np.intp], positive: npt.NDArray[np.integer]) -> Counts:
    """How many scores of negatives and positives are in each bin, ``(columns, 2, COARSE_BINS)``.

    Bins are ``(n, columns)``, and ``positive`` says with 0 or 1 of which a score is.
    """
    columns = np.broadcast_to(np.arange(bins.shape[1]), bins.shape)
    counts = np.zeros((bins.shape[1], 2, COARSE_BINS), np.int64)
    np.add.at(counts, (columns, positive, bins), 1)
    return counts


def coarse_area(counts: Counts) -> Area | None:
    """The AUC of negatives and positives ``(2, COARSE_BINS)``; ``None`` without a pair of them."""
    negatives, positives = counts.astype(np.float64)
    pairs = negatives.sum() * positives.sum()
    if not pairs:
        return None
    below = negatives.cumsum() - negatives
    low = float((positives * below).sum() / pairs)
    shared = float((positives * negatives).sum() / pairs)
    return Area(low + shared / 2, low, low + shared)


def columns_of(counts: Counts, *, exclusive: bool) -> list[int]:
    """Which columns an AUC is the mean of: with two classes that exclude each other the second."""
    return [1] if exclusive and len(counts) == 2 else list(range(len(counts)))


def mean_coarse_area(counts: Counts, *, exclusive: bool) -> Area | None:
    """The mean of the AUCs of classes or labels that have cases with and without them."""
    areas = (coarse_area(counts[column]) for column in columns_of(counts, exclusive=exclusive))
    found = [(area.value, area.low, area.high) for area in areas if area is not None]
    if not found:
        return None
    value, low, high = np.mean(found, axis=0).tolist()
    return Area(value, low, high)
