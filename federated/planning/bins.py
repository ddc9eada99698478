"""Bins in which values are counted, the same at every site whatever its data are.

Counts in bins that depend on nobody's data add up over sites exactly, under every protection, and
tell the quantiles of all sites together as precisely as a bin is wide.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import ceil, floor, log
from typing import Protocol

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Neighbouring bins are a hundredth apart, so that a value is known to half a per cent.
RATIO = 1.01
MOST_DIGITS = 12
# The numbers of eight bits, 0 to 255, are whole ones.
WIDEST_WHOLE = 256


class Bins(Protocol):
    """Bins over the numbers, in rising order."""

    @property
    def size(self) -> int:
        """How many there are."""

    @property
    def values(self) -> Floats:
        """The value ``(size,)`` that stands for each bin."""

    def place(self, values: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The bin of each value; what lies outside is in the first or in the last bin."""


@dataclass(frozen=True)
class Geometric:
    """Bins around the powers of 1.01 from ``low`` to ``high``, both above 0.

    The value of a bin is the shortest decimal number in it: 1, 0.5 and 0.98, not 0.4983.
    """

    low: float
    high: float

    @property
    def _first(self) -> int:
        return round(log(self.low) / log(RATIO))

    @property
    def size(self) -> int:
        """See :class:`Bins`."""
        return round(log(self.high) / log(RATIO)) - self._first + 1

    @cached_property
    def values(self) -> Floats:
        """See :class:`Bins`."""
        powers = self._first + np.arange(self.size)
        lows, highs = RATIO ** (powers - 0.5), RATIO ** (powers + 0.5)
        return np.array([shortest(*ends) for ends in zip(lows, highs, strict=True)])

    def place(self, values: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """See :class:`Bins`; a value that is not above 0 is in the first bin."""
        positive = np.maximum(np.asarray(values, np.float64), self.low)
        found = np.rint(np.log(positive) / log(RATIO)).astype(np.int64) - self._first
        return np.clip(found, 0, self.size - 1)


@dataclass(frozen=True)
class Symmetric:
    """Bins over all numbers up to ``most``, alike on both sides of 0.

    They are a hundredth wide near 0, and a hundredth of the value plus one from there on, but up to
    255 never wider than 1: each whole number of a picture's eight bits is told as it is. The value
    of a bin is the shortest decimal number in it.
    """

    most: float

    @cached_property
    def _ends(self) -> Floats:
        """The upper ends of the bin of 0 and of those above it, rising."""
        near = RATIO ** (np.arange(ceil(log(WIDEST_WHOLE) / log(RATIO))) + 0.5) - 1
        first = floor(near[np.diff(near, append=np.inf) < 1][-1]) + 0.5
        whole = np.arange(first, WIDEST_WHOLE)
        last = whole[-1] + 1
        far = RATIO ** np.arange(1, ceil(log((self.most + 1) / last) / log(RATIO)) + 1)
        return np.concatenate([near[near < first], whole, last * far - 1])

    @property
    def _reach(self) -> int:
        return len(self._ends) - 1

    @property
    def size(self) -> int:
        """See :class:`Bins`."""
        return 2 * self._reach + 1

    @cached_property
    def values(self) -> Floats:
        """See :class:`Bins`."""
        above = [shortest(*pair) for pair in pairwise(self._ends)]
        return np.array([*(-value for value in reversed(above)), 0.0, *above])

    def place(self, values: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """See :class:`Bins`."""
        given = np.asarray(values, np.float64)
        steps = np.minimum(np.searchsorted(self._ends, np.abs(given)), self._reach)
        return np.where(given < 0, -steps, steps).astype(np.int64) + self._reach


def count(bins: Bins, values: npt.ArrayLike) -> Counts:
    """How many of the values are in each bin, ``(bins.size,)``."""
    placed = bins.place(values).reshape(-1)
    return np.bincount(placed, minlength=bins.size).astype(np.int64)


def quantile(bins: Bins, counts: Counts, share: float) -> float:
    """The quantile of counted values, with ``share`` in [0, 1]; NaN where none were counted.

    It equals NumPy's, linear between two neighbours, of the values that stand for the bins.
    """
    total = int(counts.sum())
    if not total:
        return float("nan")
    place = share * (total - 1)
    ranks = np.array([floor(place), ceil(place)])
    found = bins.values[np.searchsorted(np.cumsum(counts), ranks, side="right")]
    return float(found[0] + (place - ranks[0]) * (found[1] - found[0]))


def shortest(low: float, high: float) -> float:
    """The number with the fewest digits between ``low`` and ``high``, nearest to their middle."""
    middle = (low + high) / 2
    for digits in range(1, MOST_DIGITS):
        rounded = float(f"{middle:.{digits}g}")
        if low < rounded <= high:
            return rounded
    return middle
