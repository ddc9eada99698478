"""Where in a bin its scores lie, as far as their number and the sum of their places tell.

A bin has :data:`PLACES` places, numbered from 0. If k scores are each in any place with equal
probability, then given that the places have the sum s, one of them is in place j with probability
W(k − 1, s − j) / W(k, s), where W(k, s) is in how many ways k places have the sum s. Of one score
that is its place, of two all that their sum leaves. Of many it tends to the distribution of largest
entropy with the mean s / k, which is proportional to exp(θj) (Csiszár 1984, "Sanov property,
generalized I-projection and a conditional limit theorem").
"""

from functools import cache

import numpy as np
import numpy.typing as npt

PLACES = 16
# Up to so many scores in a bin it is counted in how many ways they have their sum.
FEW = 16

Counts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


def largest_sum(counts: Counts) -> Counts:
    """The largest sum of places that so many scores can have, for each of ``counts``."""
    return (PLACES - 1) * counts


@cache
def _of_few() -> tuple[npt.NDArray[np.intp], Shares]:
    """For each number of scores up to ``FEW`` where its rows begin, and for each sum a row."""
    ways, blocks = np.ones(1), []
    places = np.arange(PLACES)
    for count in range(1, FEW + 1):
        left = np.arange(count * (PLACES - 1) + 1)[:, None] - places
        possible = (left >= 0) & (left < len(ways))
        found = np.where(possible, ways[left.clip(0, len(ways) - 1)], 0.0)
        blocks.append(found / found.sum(axis=1, keepdims=True))
        ways = np.convolve(ways, np.ones(PLACES))
    starts = np.cumsum([0, *(len(block) for block in blocks)])
    # There is no row of no score.
    return np.concatenate([[0], starts[:-1]]), np.concatenate(blocks)


@cache
def _of_largest_entropy() -> tuple[Shares, Shares]:
    """Means of places, ascending ``(t,)``, and the distribution with each ``(t, PLACES)``."""
    slopes = np.sinh(np.linspace(-4.5, 4.5, 2001))[:, None]
    weights = np.exp(-np.abs(slopes) * np.arange(PLACES))
    weights /= weights.sum(axis=1, keepdims=True)
    shares = np.where(slopes > 0, weights[:, ::-1], weights)
    return shares @ np.arange(PLACES), shares


def shares_of_places(counts: Counts, sums: Counts) -> Shares:
    """Which share of a bin's scores is expected in each place ``(bins, PLACES)``.

    Args:
        counts: how many scores each bin has ``(bins,)``, at least 1.
        sums: the sum of their places ``(bins,)``, from 0 to :func:`largest_sum`.
    """
    starts, rows = _of_few()
    few = counts <= FEW
    found = rows[np.where(few, starts[counts.clip(max=FEW)] + sums, 0)]
    if not few.all():
        means, shares = _of_largest_entropy()
        mean = sums[~few] / counts[~few]
        above = np.searchsorted(means, mean).clip(1, len(means) - 1)
        low, high = means[above - 1], means[above]
        part = ((mean - low) / (high - low)).clip(0, 1)[:, None]
        found[~few] = (1 - part) * shares[above - 1] + part * shares[above]
    return found


def lowest_and_highest(counts: Counts, sums: Counts) -> tuple[Counts, Counts]:
    """The lowest and the highest place in which a score of each bin can be, each ``(bins,)``."""
    others = largest_sum(counts - 1)
    return np.maximum(sums - others, 0), np.minimum(sums, PLACES - 1)
