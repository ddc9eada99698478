"""The AUC from histograms of scores, and the bounds between which the exact one lies.

A histogram loses the order of scores within a bin. So bins have to be narrow where scores crowd:
near 0 and 1 where a model is sure, and wherever they happen to be where it was hardly trained. In
bins of equal width in probability all scores of a saturated model share two.

Scores are in steps of equal width in asinh((logit(p) − logit(1/classes)) / NEAREST). Of 1,024 bins

- 512 are of the whole range, of 16 steps each: in logits a bin is about 2 % as wide as it is far
  from the uniform prediction. Beside the number of scores in it, each has the sum of their places,
  which are the steps from its lower edge: two scores in a bin are told apart by that;
- 512 are of one step each, and go round after so many, as the hand of a clock does. The whole range
  tells where scores lie; if they all lie within one turn, as those of a model that was hardly
  trained do, these tell their order.

Steps are a fixed, increasing function of the score, which knows nothing of the cases: so every site
has the same bins, and counts and sums add up. What is lost is the order in some pairs of a positive
and a negative that share a bin. The AUC counts these by what their places make most probable
(:mod:`federated.learning.places`); counted as 0 and as 1 they give its bounds, which always hold.
There are models whose scores no steps tell apart that know nothing of the model, such as one whose
scores differ by less than a thousandth of a logit.
"""

from dataclasses import dataclass
from functools import cache
from math import asinh, log

import numpy as np
import numpy.typing as npt

from federated.learning.classification_metrics import Probabilities
from federated.learning.places import (
    PLACES,
    Counts,
    largest_sum,
    lowest_and_highest,
    shares_of_places,
)

# In logits from the uniform prediction: how far steps are about equally wide, and how far they
# reach. A float64 probability is 1 from 37 on, where exact ranks are tied too; towards 0 a model
# that is far too sure has scores below that.
NEAREST = 0.5
FARTHEST = 50.0
WHOLE = 512
TURN = 512
BINS = WHOLE + TURN
# In how many bins each score is.
BINS_A_SCORE = 2

Edges = npt.NDArray[np.float64]
Steps = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Area:
    """An AUC, in [0, 1], and its value if all pairs that are not told apart count 0, and 1."""

    value: float
    low: float
    high: float


@cache
def step_edges(classes: int) -> Edges:
    """The scores between the steps, ascending ``(WHOLE · PLACES − 1,)``.

    A step holds its upper edge. One edge is 1 / ``classes``, for 2 classes the score at which the
    prediction changes; a bin begins there.
    """
    from scipy.special import expit

    steps = np.linspace(-1, 1, WHOLE * PLACES + 1)[1:-1] * asinh(FARTHEST / NEAREST)
    found: Edges = expit(NEAREST * np.sinh(steps) - log(classes - 1))
    found[WHOLE * PLACES // 2 - 1] = 1 / classes
    found.flags.writeable = False
    return found


def score_steps(probabilities: Probabilities, classes: int | None = None) -> Steps:
    """The step of every score ``(n, classes)``, in [0, ``WHOLE · PLACES``).

    Scores are ``(n, classes)``; a larger one is never in a lower step. Of several labels, each of
    which is a question of its own, there are two ``classes`` whatever the number of columns.
    """
    edges = step_edges(classes or probabilities.shape[1])
    return np.searchsorted(edges, probabilities, side="left")


def step_bins(steps: Steps) -> Steps:
    """The bins of every step ``(…, 2)``, in [0, ``BINS``): that of the range, that of the turn."""
    return np.stack([steps // PLACES, WHOLE + steps % TURN], axis=-1)


def score_histograms(steps: Steps, positive: npt.NDArray[np.integer]) -> tuple[Counts, Counts]:
    """The counts ``(columns, 2, BINS)`` and sums of places ``(columns, 2, WHOLE)`` of scores.

    Steps are ``(n, columns)``, and ``positive`` says with 0 or 1 ``(n, columns)`` of which a score
    is: of a case without what the column is of, or with it.
    """
    columns = np.broadcast_to(np.arange(steps.shape[1]), steps.shape)
    counts = np.zeros((steps.shape[1], 2, BINS), np.int64)
    sums = np.zeros((steps.shape[1], 2, WHOLE), np.int64)
    np.add.at(counts, (columns[..., None], positive[..., None], step_bins(steps)), 1)
    np.add.at(sums, (columns, positive, steps // PLACES), steps % PLACES)
    return counts, sums


def impossible_places(counts: Counts, sums: Counts) -> bool:
    """Whether sums of places ``(…, WHOLE)`` are none of as many scores as ``(…, BINS)`` count."""
    return bool((sums > largest_sum(counts[..., :WHOLE])).any())


def score_area(counts: Counts, sums: Counts) -> Area | None:
    """The AUC of negatives and positives in bins; ``None`` without a pair of them.

    Args:
        counts: how many scores there are in each bin ``(2, BINS)``.
        sums: the sums of their places ``(2, WHOLE)``. One that is none of so many scores, as a sum
            over sites of which one lies can be, is taken for the nearest that is.
    """
    turned = _by_the_turn(counts)
    return _area(counts[:, :WHOLE], sums) if turned is None else _area(turned, turned * 0)


def ordered(counts: Counts) -> Counts:
    """The counts ``(2, bins)`` by ascending score, of the finest bins that tell the order.

    Of ``(2, BINS)``, of negatives and positives.
    """
    turned = _by_the_turn(counts)
    return counts[:, :WHOLE] if turned is None else turned


def _by_the_turn(counts: Counts) -> Counts | None:
    """The bins of the turn by ascending score, ``None`` where scores are not within one."""
    there = np.flatnonzero(counts[:, :WHOLE].any(axis=0))
    if not len(there) or (there[-1] + 1 - there[0]) * PLACES > TURN:
        return None
    return np.roll(counts[:, WHOLE:], -(there[0] * PLACES % TURN), axis=1)


def _area(counts: Counts, sums: Counts) -> Area | None:
    """The AUC of ordered bins, each with its number of scores and the sum of their places."""
    negatives, positives = counts
    # As float64, which is exact up to 2^53 pairs.
    pairs = float(negatives.sum()) * float(positives.sum())
    if not pairs:
        return None
    below = np.cumsum(negatives) - negatives
    told = float((positives.astype(float) * below).sum())
    shared = np.flatnonzero(negatives.astype(bool) & positives.astype(bool))
    value, low, high = _within_bins(counts[:, shared], sums[:, shared])
    return Area(*((told + won) / pairs for won in (value, low, high)))


def _within_bins(counts: Counts, sums: Counts) -> tuple[float, float, float]:
    """Of the pairs that share a bin, how many are right: expected, at least and at most."""
    sums = np.minimum(sums, largest_sum(counts))
    pairs = counts[0].astype(float) * counts[1]
    of_negatives, of_positives = (
        shares_of_places(*each) for each in zip(counts, sums, strict=True)
    )
    below = np.cumsum(of_negatives, axis=1) - of_negatives / 2
    expected = (of_positives * below).sum(axis=1)
    (low_n, high_n), (low_p, high_p) = (
        lowest_and_highest(*each) for each in zip(counts, sums, strict=True)
    )
    return (
        float((pairs * expected).sum()),
        float(pairs[low_p > high_n].sum()),
        float(pairs[high_p >= low_n].sum()),
    )


def macro_area(counts: Counts, sums: Counts) -> Area | None:
    """The mean of the classes' areas, as :func:`classification_metrics.auc` means them.

    Counts are ``(classes, 2, BINS)``, sums of places ``(classes, 2, WHOLE)``. A class without a
    case, or without a case of another class, is in no mean; with two classes the area is that of
    class 1. ``None`` where no class counts.
    """
    columns = [1] if len(counts) == 2 else range(len(counts))
    areas = (score_area(counts[column], sums[column]) for column in columns)
    found = [known for known in areas if known is not None]
    if not found:
        return None
    value, low, high = np.mean([(one.value, one.low, one.high) for one in found], axis=0).tolist()
    return Area(value, low, high)
