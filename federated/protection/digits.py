"""Whole numbers as digits, so that a protection that adds small integers sums large ones exactly.

A protection adds quantised values of some bits. A number is written in digits to a base that these
hold, the lowest first, and the sum of numbers is the number whose digits are the sums of theirs: no
digit carries, however many sites there are. How many digits a number has follows from its bound,
which all parties know, and never from the number.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from federated.compression.quantize import largest_quantised
from federated.errors import ConsiliumError
from federated.update import Doubles, Quantised

WholeNumbers = npt.NDArray[np.int64]
# A bound may be as large, so that there is room beyond it in an int64 for the sums of it.
LARGEST_BOUND = 2**60
LARGEST_SUM = 2**62


@dataclass(frozen=True)
class Bounds:
    """The largest values of a vector of whole numbers, none of which is negative.

    ``parts`` says in order of how many numbers each what the largest value is that one site has.
    """

    parts: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if any(count < 0 or not 0 <= most <= LARGEST_BOUND for count, most in self.parts):
            raise ValueError(f"a bound is none: {self.parts}")

    def __add__(self, other: "Bounds") -> "Bounds":
        return Bounds(self.parts + other.parts)

    @property
    def length(self) -> int:
        """How many numbers the vector has."""
        return sum(count for count, _ in self.parts)

    def digits(self, base: int) -> int:
        """How many digits to a base the whole vector has."""
        return sum(count * digits_of_one(most, base) for count, most in self.parts)


def digit_base(bits: int) -> int:
    """The base whose digits are quantised values of so many bits, 2 and more."""
    return largest_quantised(bits) + 1


def digits_of_one(most: int, base: int) -> int:
    """How many digits a number from 0 to ``most`` has; at least one."""
    count, reach = 1, base
    while reach <= most:
        count, reach = count + 1, reach * base
    return count


def to_digits(numbers: WholeNumbers, bounds: Bounds, base: int) -> Quantised:
    """The digits ``(bounds.digits(base),)``, int32 from 0 to base − 1, of ``(bounds.length,)``.

    Raises:
        ValueError: the vector is of another length, or a number is beyond its bound.
    """
    if numbers.shape != (bounds.length,):
        raise ValueError(f"{numbers.shape} for {bounds.length} numbers")
    found, start = [np.zeros(0, np.int64)], 0
    for count, most in bounds.parts:
        left = numbers[start : start + count]
        start += count
        if ((left < 0) | (left > most)).any():
            raise ValueError(f"a number is not from 0 to {most}")
        for _ in range(digits_of_one(most, base)):
            found.append(left % base)
            left = left // base
    return np.concatenate(found).astype(np.int32)


def summed_numbers(digits: Doubles, bounds: Bounds, base: int, senders: int) -> WholeNumbers:
    """The sums ``(bounds.length,)`` of numbers whose digits have these sums.

    Args:
        digits: the sums of the digits, as a protection gives them.
        bounds: of the numbers of one site.
        base: what the digits are to.
        senders: how many sites are in the sum.

    Raises:
        ConsiliumError: they are none: a site has sent something else than digits, or numbers beyond
            the bounds.
    """
    if digits.shape != (bounds.digits(base),):
        raise ValueError(f"{digits.shape} for {bounds.digits(base)} digits")
    whole = np.rint(digits)
    if not np.isfinite(digits).all() or (whole != digits).any():
        raise _no_sum("it holds what is no whole number")
    if whole.min(initial=0) < 0 or whole.max(initial=0) > senders * (base - 1):
        raise _no_sum(f"a digit is not from 0 to {senders * (base - 1)}")
    found, start = [np.zeros(0, np.int64)], 0
    for count, most in bounds.parts:
        places = digits_of_one(most, base)
        own = whole[start : start + places * count].reshape(places, count)
        start += places * count
        limit = min(senders * most, LARGEST_SUM)
        powers = [float(base) ** place for place in range(places)]
        # In float64 first, which has no end, and near enough to know what int64 holds.
        if (np.tensordot(powers, own, 1) > 1.5 * limit + 1).any():
            raise _no_sum(f"a number is not from 0 to {limit}")
        numbers = np.zeros(count, np.int64)
        for place in reversed(range(places)):
            numbers = numbers * base + own[place].astype(np.int64)
        if (numbers > limit).any():
            raise _no_sum(f"a number is not from 0 to {limit}")
        found.append(numbers)
    return np.concatenate(found)


def _no_sum(reason: str) -> ConsiliumError:
    return ConsiliumError(
        f"A sum over the sites is refused: {reason}. A site has sent numbers that it cannot have; "
        "which one, nobody can tell of a sum. Nothing is made of it. Resume the run to have it "
        "summed again, or find the site by a run without it."
    )
