"""Discrete Gaussian integers of any width, from the operating system's randomness.

Noise that hides ciphertext noise is some 2^45 wide. A floating-point Gaussian of that width has
gaps: 53-bit uniform numbers reach only 2^53 of its values, and beyond three standard deviations
these lie more than one integer apart, so that what was added could be told from what is there. Here
every integer within the tails can be drawn, with nearly its exact probability:

- A base sampler draws from the discrete Gaussian of standard deviation :data:`BASE` by its
  distribution function, which is known to 128 bits, with 128 random bits a number. Its distance in
  total variation from the exact distribution is below 2^-110: 2^15 steps of 2^-128 each, and tails
  beyond 13.5 standard deviations.
- Σ_i W^i·X_i of such numbers is as a discrete Gaussian of variance BASE²·ΣW^2i: by Poisson
  summation, its probabilities differ from that by a factor within 1 ± 2·exp(−2π²τ²/W²) for each
  addend, where 1/τ² is the sum of the inverse variances of what is added; with W at most a quarter
  of BASE the factor is within 1 ± 2^-400. (This is the convolution of Micciancio and Walter,
  Crypto 2017, and Peikert, Crypto 2010, for one dimension.)
"""

import os
from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import lru_cache
from math import ceil, sqrt

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

Integers = npt.NDArray[np.int64]
# Gives as many random bytes as it is asked for.
Source = Callable[[int], bytes]

BASE = 1024
LARGEST_RADIX = BASE // 4
TAIL = 13.5
# The largest standard deviation of a number: its parts and sums of them stay within 64 bits.
WIDEST = 2.0**54
BITS = 128
# Fixed-point digits while the table is made, of which 64 are lost to rounding at the most.
WORKING = BITS + 64


def fresh_source() -> Source:
    """A source of random bytes: AES-256 in counter mode, under a key that is used once.

    The key is from the operating system's randomness.
    """
    return keyed_source(os.urandom(32))


def keyed_source(key: bytes) -> Source:
    """A source of random bytes: AES-256 in counter mode, under a key for this purpose alone."""
    stream = Cipher(AES(key), CTR(bytes(16))).encryptor()
    return lambda count: stream.update(bytes(count))


def wide_gaussian(sigma: float, count: int, source: Source) -> Integers:
    """Draw ``count`` integers of a discrete Gaussian at least ``sigma`` wide, and hardly wider.

    Args:
        sigma: the standard deviation, at most :data:`WIDEST`; where it is below :data:`BASE`,
            :data:`BASE` is taken.
        count: how many integers.
        source: gives random bytes.

    Raises:
        ValueError: ``sigma`` is too wide for 64-bit integers.
    """
    radix, parts = _radix(sigma)
    total = np.zeros(count, np.int64)
    for part in range(parts):
        total += bounded_gaussian(BASE, ceil(TAIL * BASE), count, source) * radix**part
    return total


def width(sigma: float) -> float:
    """The standard deviation that :func:`wide_gaussian` draws with if it is asked for ``sigma``.

    Raises:
        ValueError: ``sigma`` is too wide for 64-bit integers.
    """
    radix, parts = _radix(sigma)
    return _width(radix, parts)


def _width(radix: int, parts: int) -> float:
    return BASE * sqrt(sum(float(radix) ** (2 * part) for part in range(parts)))


@lru_cache(maxsize=64)
def _radix(sigma: float) -> tuple[int, int]:
    if not sigma <= WIDEST:
        raise ValueError(f"a standard deviation of {sigma:.3g} does not fit 64-bit integers")
    parts = 1
    while _width(LARGEST_RADIX, parts) < sigma:
        parts += 1
    if parts == 1:
        return 1, 1
    low, high = 1, LARGEST_RADIX
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _width(middle, parts) >= sigma else (middle + 1, high)
    return low, parts


def bounded_gaussian(sigma: float, bound: int, count: int, source: Source) -> Integers:
    """Draw ``count`` integers of a discrete Gaussian, none beyond a bound.

    Args:
        sigma: the standard deviation.
        bound: the largest integer that is drawn, and how far the smallest is below zero.
        count: how many integers.
        source: gives random bytes.
    """
    end, high, low = _table(sigma, bound)
    words = np.frombuffer(source(16 * count), "<u8").reshape(2, count)
    # How many of the cumulated probabilities are at most the 128 random bits.
    found = np.searchsorted(high, words[0], "left")
    for place in np.flatnonzero(high[np.minimum(found, len(high) - 1)] == words[0]):
        same = slice(found[place], np.searchsorted(high, words[0, place], "right"))
        found[place] += np.searchsorted(low[same], words[1, place], "right")
    result: Integers = found.astype(np.int64) - end
    return result


@lru_cache(maxsize=4)
def _table(
    sigma: float = BASE, end: int = ceil(TAIL * BASE)
) -> tuple[int, npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The largest integer, and the distribution function up to all but it, as two 64-bit halves."""
    one = 1 << WORKING
    with localcontext() as context:
        context.prec = 80
        first = int((Decimal(-1) / (2 * Decimal(sigma) ** 2)).exp() * one)
    # exp(-(x+1)²/2σ²) is exp(-x²/2σ²) times a factor that itself shrinks by first² a step.
    weights, factor, step = [one], first, (first * first) >> WORKING
    for _ in range(end):
        weights.append((weights[-1] * factor) >> WORKING)
        factor = (factor * step) >> WORKING
    whole = 2 * sum(weights) - one
    half, running = [], 0
    for weight in reversed(weights[1:]):
        running += weight
        half.append((running << BITS) // whole)
    # The upper half is the mirror image, so that both tails are equally exact.
    most, mask = (1 << BITS) - 1, (1 << 64) - 1
    cumulated = [*half, *(min(most, most + 1 - value) for value in reversed(half))]
    high = np.array([value >> 64 for value in cumulated], np.uint64)
    low = np.array([value & mask for value in cumulated], np.uint64)
    return end, high, low
