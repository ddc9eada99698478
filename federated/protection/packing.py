"""Several quantised values in one integer: digits in a base so large that sums never carry.

Quantised values of b bits lie within ±L, L = 2^(b−1) − 1, so the sum over K sites lies within ±KL.
In base B = 2KL + 1 with digits within ±KL, v quantised values make one integer Σ_i q_i·B^i, and
adding integers adds the digits.
"""

from typing import Any

import numpy as np
import numpy.typing as npt


def pack(quantised: npt.NDArray[np.integer[Any]], base: int, digits: int) -> npt.NDArray[np.int64]:
    """Slots of ``digits`` quantised values each; the last one is filled up with zeros.

    ``quantised`` is ``(n,)``, and there are ⌈n / digits⌉ slots.
    """
    slots = -(-len(quantised) // digits)
    padded = np.zeros(slots * digits, np.int64)
    padded[: len(quantised)] = quantised
    powers = np.array([base**digit for digit in range(digits)], np.int64)
    packed: npt.NDArray[np.int64] = padded.reshape(slots, digits) @ powers
    return packed


def unpack(slots: npt.NDArray[np.int64], base: int, digits: int) -> npt.NDArray[np.int64]:
    """The quantised values ``(slots * digits,)`` of slots, each within ±(base − 1)/2."""
    half = base // 2
    rest = slots
    columns = []
    for _ in range(digits):
        digit = (rest + half) % base - half
        columns.append(digit)
        rest = (rest - digit) // base
    return np.stack(columns, axis=1).reshape(-1)
