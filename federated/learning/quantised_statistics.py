"""Statistics as small whole numbers, which every protection adds exactly.

Encryption and masks add quantised values of at most 16 bits. So each count, and each sum in steps
of 2^-20, is written in digits to the base 2^15. The sum of numbers is the number whose digits are
the sums of theirs, however large those are; so nothing has to be known of how many sites there are.
"""

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from federated.errors import ConsiliumError
from federated.learning.statistics import EvaluationStatistics, Form, Part
from federated.update import Doubles, Quantised

# What a protection has to be set up for: the bits of a quantised value.
BITS = 16
BASE_BITS = BITS - 1
# Enough for counts below 2^30, and for sums below 2^40.
DIGITS_OF_COUNTS = 2
DIGITS_OF_SUMS = 4
STEP = 2.0**-20


def quantised_length(form: Form) -> int:
    """How many quantised values the statistics of a form are."""
    return len(form) + sum(_digits(part) * prod(part.shape) for part in form.values())


def quantise_statistics(statistics: EvaluationStatistics, form: Form) -> Quantised:
    """The statistics as quantised values ``(quantised_length(form),)``.

    First come, for each array of the form, 1 if it is withheld and 0 otherwise; its own values are
    0 then. Sums are rounded to whole steps.

    Raises:
        ConsiliumError: a value has more digits than there is room for.
    """
    parts: list[npt.NDArray[np.int64]] = [
        np.array([name in statistics.withheld for name in form], np.int64)
    ]
    for name, part in form.items():
        values = statistics.arrays.get(name, np.zeros(part.shape))
        # A sum of losses may be below 0 by rounding.
        scaled = np.maximum(values.ravel() / (STEP if part.real else 1), 0)
        whole = np.rint(scaled).astype(np.int64)
        if (whole >= 1 << BASE_BITS * _digits(part)).any():
            raise ConsiliumError(
                f"The evaluation statistics have {float(values.max()):g} in {name!r}, which is "
                "more than fits in a protected sum. Evaluate fewer cases at a site."
            )
        parts += [(whole >> BASE_BITS * d) % (1 << BASE_BITS) for d in range(_digits(part))]
    return np.concatenate(parts).astype(np.int32)


def summed_statistics(numbers: Doubles, form: Form) -> EvaluationStatistics:
    """The statistics of which the sites' quantised values have this sum, as a protection gives it.

    Raises:
        ValueError: it is of another length than that of the form.
    """
    if numbers.shape != (quantised_length(form),):
        raise ValueError(f"{numbers.shape} for {quantised_length(form)} values")
    flags, start = numbers[: len(form)], len(form)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, part in form.items():
        digits, size = _digits(part), prod(part.shape)
        end = start + digits * size
        whole = _joined(np.rint(numbers[start:end]).astype(np.int64).reshape(digits, size))
        values = whole.reshape(part.shape)
        arrays[name] = values * STEP if part.real else values
        start = end
    withheld = [name for name, flag in zip(form, flags, strict=True) if flag]
    return EvaluationStatistics(arrays).without(withheld)


def _digits(part: Part) -> int:
    return DIGITS_OF_SUMS if part.real else DIGITS_OF_COUNTS


def _joined(digits: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The numbers ``(n,)`` whose digits are ``(digits, n)``, the lowest first."""
    whole: npt.NDArray[np.int64] = digits[0].copy()
    for place, each in enumerate(digits[1:], start=1):
        whole += each << BASE_BITS * place
    return whole
