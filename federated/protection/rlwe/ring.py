"""Products of polynomials modulo X^N + 1 and a prime, by the number-theoretic transform.

SEAL's Python interface multiplies ciphertexts alone, and NumPy and SciPy no polynomials modulo a
prime; all here is exact. The transform gives the values of a polynomial at the N odd powers of ψ, a
2N-th root of 1, in bit-reversed order, so that products are value by value. It is the usual one, as
in Longa and Naehrig, "Speeding up the Number Theoretic Transform for Faster Ideal Lattice-Based
Cryptography", 2016. Primes have at most 31 bits, so that products of two residues stay within 64.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Residues = npt.NDArray[np.uint64]

MOST_PRIME_BITS = 31


@dataclass(frozen=True)
class Transform:
    """The transform of degree N modulo a prime; polynomials are rows ``(count, N)`` of residues.

    ``powers`` and ``inverses`` ``(N,)`` are those of ψ and of 1/ψ, in bit-reversed order.
    """

    prime: int
    powers: Residues
    inverses: Residues

    @property
    def degree(self) -> int:
        """The degree N of the ring, a power of two."""
        return len(self.powers)

    def forward(self, polynomials: Residues) -> Residues:
        """The values ``(count, N)`` of polynomials that are given by their coefficients."""
        values, groups = polynomials.copy(), 1
        while groups < self.degree:
            halves = values.reshape(len(values), groups, 2, -1)
            lower = halves[:, :, 0]
            upper = self.times(halves[:, :, 1], self.powers[groups : 2 * groups, None])
            halves[:, :, 0], halves[:, :, 1] = self.plus(lower, upper), self.minus(lower, upper)
            groups *= 2
        return values

    def backward(self, values: Residues) -> Residues:
        """The coefficients ``(count, N)`` of polynomials that are given by their values."""
        polynomials, groups = values.copy(), self.degree // 2
        while groups:
            halves = polynomials.reshape(len(values), groups, 2, -1)
            total = self.plus(halves[:, :, 0], halves[:, :, 1])
            apart = self.minus(halves[:, :, 0], halves[:, :, 1])
            halves[:, :, 0] = total
            halves[:, :, 1] = self.times(apart, self.inverses[groups : 2 * groups, None])
            groups //= 2
        return self.times(polynomials, np.uint64(pow(self.degree, -1, self.prime)))

    def times(self, one: Residues, other: Residues | np.uint64) -> Residues:
        """Products of residues, value by value."""
        product = one * other
        # NumPy divides by one number several times faster than it finds remainders.
        product -= product // np.uint64(self.prime) * np.uint64(self.prime)
        return product

    def plus(self, one: Residues, other: Residues) -> Residues:
        """Sums of residues, value by value."""
        total = one + other
        # Where nothing is to be taken away, the difference wraps round and is the larger one.
        reduced: Residues = np.minimum(total, total - np.uint64(self.prime))
        return reduced

    def minus(self, one: Residues, other: Residues) -> Residues:
        """Differences of residues, value by value."""
        apart = one - other
        reduced: Residues = np.minimum(apart, apart + np.uint64(self.prime))
        return reduced

    def residues(self, integers: npt.NDArray[np.int64]) -> Residues:
        """What integers of either sign are modulo the prime."""
        return (integers % self.prime).astype(np.uint64)


@lru_cache(maxsize=16)
def transform(degree: int, prime: int) -> Transform:
    """The transform of a degree, which is a power of two, modulo a prime ≡ 1 modulo 2·degree.

    Raises:
        ValueError: there is no such transform, or products of residues would not fit 64 bits.
    """
    if degree & (degree - 1) or prime % (2 * degree) != 1 or prime.bit_length() > MOST_PRIME_BITS:
        raise ValueError(f"there is no transform of degree {degree} modulo {prime}")
    candidates = (pow(base, (prime - 1) // (2 * degree), prime) for base in range(2, prime))
    root = next(power for power in candidates if pow(power, degree, prime) == prime - 1)
    return Transform(prime, *(_powers(of, degree, prime) for of in (root, pow(root, -1, prime))))


def _powers(root: int, degree: int, prime: int) -> Residues:
    """The powers of a root below the degree, ``(degree,)``, in bit-reversed order."""
    ordered = [1]
    for _ in range(degree - 1):
        ordered.append(ordered[-1] * root % prime)
    places = [0]
    while len(places) < degree:
        places = [2 * place for place in places] + [2 * place + 1 for place in places]
    return np.array(ordered, np.uint64)[places]
