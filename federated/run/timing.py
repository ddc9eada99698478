"""Where the time of a round goes."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """The time from ``started`` to ``ended``, in seconds since the epoch."""

    started: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.ended - self.started

    def later(self, seconds: float) -> "Interval":
        """The same so many seconds later."""
        return Interval(self.started + seconds, self.ended + seconds)

    def within(self, other: "Interval") -> "Interval":
        """The part of it that lies in another one; it has no length where nothing does."""
        started = min(max(self.started, other.started), other.ended)
        return Interval(started, max(started, min(self.ended, other.ended)))


@dataclass(frozen=True)
class Evaluating:
    """When the model after a round was evaluated: at its sites, and by the coordinator."""

    at_sites: Sequence[Interval] = ()
    at_coordinator: Sequence[Interval] = ()


def covered(intervals: Iterable[Interval]) -> float:
    """The seconds in which at least one of the intervals runs: the length of their union."""
    total = 0.0
    reach = float("-inf")
    for interval in sorted(intervals, key=lambda i: i.started):
        total += max(0.0, interval.ended - max(interval.started, reach))
        reach = max(reach, interval.ended)
    return total


class Laps:
    """The times of what one worker does together, so that they add up to the worker's own.

    Each lap begins where the one before it has ended, the first one when this is made.
    """

    def __init__(self) -> None:
        self._since = time.time()

    def next(self) -> float:
        """When the lap has begun that ends now, in seconds since the epoch."""
        began, self._since = self._since, time.time()
        return began
