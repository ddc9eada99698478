"""b-bit stochastic quantisation against a range that all sites know.

A value v becomes the integer q with E[q] = v/s, clipped to ±L, where L = 2^(b−1) − 1 and s = r/L
for the range r (as in QSGD, Alistarh et al. 2017, Sec. 3.1, with a common range instead of each
vector's own norm). Because s is the same at every site, integers of different sites add up, and Σ
q·s is an unbiased estimate of Σ v but for what was clipped; error feedback keeps that at its site.

How the ranges are found is chosen here: no site tells its own. They start from a bound on what a
round can change, and follow the largest aggregated value of their group, which everyone knows.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from federated.update import Doubles, Positions, Quantised, Vector

# A range is this many times the largest sum of the last round: room for a round that moves more,
# and for sites whose values cancel in the sum.
ROOM = 2.0
# A range falls to no less than this share of itself in a round, or a quiet round clips the next.
SLOWEST = 0.5
# Tensors that do not move, as those of a frozen backbone, keep a range to divide by.
SMALLEST = 1e-12


def largest_quantised(bits: int) -> int:
    """The largest integer that a site sends, L = 2^(b−1) − 1."""
    return (1 << (bits - 1)) - 1


def quantize(values: Doubles, steps: Doubles, bits: int, rng: np.random.Generator) -> Quantised:
    """Round ``values / steps`` at random to one of the two integers beside it, within ±L.

    Args:
        values: ``(n,)``.
        steps: the step of each value, ``(n,)``, > 0.
        bits: b, at least 2.
        rng: what decides between the two integers.

    Returns:
        The integers ``(n,)``.
    """
    # ⌊x + u⌋ with u uniform in [0, 1) is ⌊x⌋ + 1 with the probability of x − ⌊x⌋.
    quantised = np.floor(values / steps + rng.random(len(values)))
    largest = largest_quantised(bits)
    clipped: Quantised = np.clip(quantised, -largest, largest).astype(np.int32)
    return clipped


def steps_at(
    ranges: Vector, groups: Sequence[int], bits: int, positions: Positions | None
) -> Doubles:
    """The step s of every value that is sent, ``(n,)``, from the range of its group.

    Args:
        ranges: ``(groups,)``, or ``(1,)`` where one range is for all.
        groups: how many values each group has.
        bits: b of a quantised value.
        positions: the positions ``(n,)`` that are sent; ``None`` for all.
    """
    steps = ranges.astype(np.float64) / largest_quantised(bits)
    if positions is None:
        return np.repeat(steps, groups)
    return steps[group_of(groups, positions)]


def group_of(groups: Sequence[int], positions: Positions) -> npt.NDArray[np.intp]:
    """The number of the group that each position is in, ``(n,)``.

    Groups are consecutive runs of the vector; ``groups`` are their lengths.
    """
    return np.searchsorted(np.cumsum(groups), positions, side="right")


def next_ranges(
    ranges: Vector,
    groups: Sequence[int],
    total: Doubles,
    positions: Positions | None,
    next_scale: float = 1.0,
) -> Vector:
    """The ranges ``(groups,)`` of the next round; groups of which nothing was sent keep theirs.

    Where the learning rate falls faster than :data:`SLOWEST`, values of a few bits would be nothing
    but rounding without ``next_scale``.

    Args:
        ranges: the ranges of this round, ``(groups,)``.
        groups: how many values each group has.
        total: the round's sum at the positions that were sent, ``(n,)``.
        positions: these positions, ``(n,)``; ``None`` for all.
        next_scale: how large the next round's updates are expected to be, relative to this one's.
    """
    if positions is None:
        positions = np.arange(sum(groups))
    found = np.full(len(ranges), -1.0)
    np.maximum.at(found, group_of(groups, positions), np.abs(total))
    moved = np.where(found >= 0, np.maximum(ROOM * found, SLOWEST * ranges), ranges)
    return np.maximum(next_scale * moved, SMALLEST).astype(np.float32)
