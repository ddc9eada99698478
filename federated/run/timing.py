"""Where the time of a round goes."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """The time from ``started`` to ``ended``, in seconds since the epoch."""

    started: float
    ended: float


def covered(intervals: Iterable[Interval]) -> float:
    """The seconds in which at least one of the intervals runs: the length of their union."""
    total = 0.0
    reach = float("-inf")
    for interval in sorted(intervals, key=lambda i: i.started):
        total += max(0.0, interval.ended - max(interval.started, reach))
        reach = max(reach, interval.ended)
    return total
