"""Real numbers as the coefficients of CKKS' polynomials, instead of its slots.

CKKS encodes N/2 complex slots, the values of a polynomial of degree N at N/2 roots of X^N + 1 of
which none is another's conjugate. Sums need no slots: with a number a coefficient there are N
numbers a ciphertext instead of N/2, and noise in a coefficient stays in one number instead of
falling on all. SEAL takes slots alone, so numbers are turned into slots by a Fourier transform and
back.
"""

from functools import lru_cache
from math import pi

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Complexes = npt.NDArray[np.complex128]


def slots_of(coefficients: Doubles) -> Complexes:
    """The ``(N/2,)`` slots of the polynomial with ``(N,)`` real coefficients."""
    degree = len(coefficients)
    twist, places = _roots(degree)
    slots: Complexes = (np.fft.ifft(coefficients * twist) * degree)[places]
    return slots


def coefficients_of(slots: Complexes) -> Doubles:
    """The ``(N,)`` coefficients of the real polynomial with ``(N/2,)`` slots."""
    degree = 2 * len(slots)
    twist, places = _roots(degree)
    values = np.empty(degree, np.complex128)
    values[places] = slots
    values[degree - 1 - places] = slots.conj()
    coefficients: Doubles = (np.fft.fft(values) / degree * twist.conj()).real
    return coefficients


@lru_cache(maxsize=8)
def _roots(degree: int) -> tuple[Complexes, npt.NDArray[np.intp]]:
    """The powers of ζ = exp(πi/N), and which odd power each slot of SEAL stands at: ζ^(3^j)."""
    places, power = np.empty(degree // 2, np.intp), 1
    for slot in range(degree // 2):
        places[slot] = power // 2
        power = power * 3 % (2 * degree)
    return np.exp(1j * pi * np.arange(degree) / degree), places
