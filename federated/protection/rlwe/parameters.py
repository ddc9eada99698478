"""Which ring and modulus sites encrypt in: 128-bit security after the leak, and exact sums.

**The leak.** Beside the ciphertexts the coordinator, with whoever helps it, learns of the h ≥ 2
honest sites in a sum S = Σ s_k, E_i = Σ e_k,i and M_i = Σ m_k,i; M is what it may know. Keys and
errors are discrete Gaussians of standard deviation σ = :data:`SIGMA` in every coefficient. Then
nothing follows beyond M, if RLWE is hard with secrets and errors of σ/2, by this argument:

1. Replace the honest sites' ciphertexts but the last one, one site j after the other, by uniform
   ones; let the last site's be what the sums leave. In the end the view follows from M alone.
2. In the step of site j, s_j and the last site's s_h are seen in c_j and, as their sum r, in S. Of
   two discrete Gaussians with the sum r the first one is a discrete Gaussian with the centre r/2
   and the standard deviation σ/√2, exactly: exp(−x²/2σ²)·exp(−(r−x)²/2σ²) is, but for a factor,
   exp(−(x − r/2)²/σ²). So are the errors.
3. Such an x is y + z, with y a discrete Gaussian of σ/2 with the centre 0, and z one of σ/2 with
   the centre r/2: its probabilities are right within a factor of 1 ± 2^-143 (Poisson summation, as
   in ``wide_gaussian.py``, with τ = σ/√8). Whoever has a·y + e or a uniform polynomial for it,
   with e of σ/2 too, adds a·z and the errors' z itself, draws all other sites, and has the one or
   the other of the two views.

So a coordinator's advantage is at most h − 1 times that against RLWE with σ/2 = 3.2 for secrets
and errors, and 2^-120 for each coefficient of keys and errors, since one is drawn with 128 random
bits and within :data:`BOUND`.
(This is the Hint-RLWE of ACORN and of Kim, Lee, Seo and Song, Crypto 2023; the argument is written
out here because it is short, and nobody has checked it but us.) :data:`MOST_BITS` is the
Homomorphic Encryption Standard's bound for such secrets and errors (Albrecht et al. 2018, 128 bits
against classical computers). That its estimates hold is assumed; the factor h − 1 is not made up
for.

**Exact sums.** No error is larger than B = :data:`BOUND`, so of K senders |E| ≤ K·B. With t values
of a packed sum and Δ = ⌊q/t⌋ ≥ 2KB + 1, rounding gives it for certain.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod

from federated.protection.rlwe.bits import packed_size
from federated.protection.rlwe.ring import MOST_PRIME_BITS, Transform, transform

# Twice the 3.2 of the standard, for keys and errors.
SIGMA = 6.4
# Thirteen standard deviations: what is beyond has a probability below 2^-125.
BOUND = 83
# log2 of the largest q by ring degree, for secrets as wide as errors. At degree 4096 it might have
# 111 bits; two primes, whose product fits a word, give 62.
MOST_BITS = {1024: 29, 2048: 56, 4096: 2 * MOST_PRIME_BITS}


@dataclass(frozen=True)
class RingParameters:
    """What fixes the form of a site's payload, known to everyone.

    Attributes:
        degree: N of the ring.
        prime_bits: the bits of the primes whose product is q.
        base: B of packing: quantised values of all senders add up to less than half of it.
        digits: how many quantised values share a coefficient.
        senders: K, the most sites in a sum.
    """

    degree: int
    prime_bits: tuple[int, ...]
    base: int
    digits: int
    senders: int

    @cached_property
    def primes(self) -> tuple[int, ...]:
        """The primes whose product is q."""
        return ring_primes(self.degree, self.prime_bits)

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """The transform modulo each of the primes."""
        return tuple(transform(self.degree, prime) for prime in self.primes)

    @cached_property
    def modulus(self) -> int:
        """The modulus q."""
        return prod(self.primes)

    @cached_property
    def scale(self) -> int:
        """The factor Δ of packed values."""
        return int(self.modulus // self.base**self.digits)

    @property
    def largest_error(self) -> int:
        """The largest error in a sum."""
        return self.senders * BOUND

    @property
    def exact(self) -> bool:
        """Whether every sum is rounded to what it is."""
        return self.scale > 2 * self.largest_error

    @property
    def key_bits(self) -> int:
        """The bits b of a coefficient of a masked key: the sum of all keys fits 2^b."""
        return (2 * self.largest_error).bit_length()

    def coefficients(self, length: int) -> int:
        """How many coefficients ``length`` quantised values take; no others are sent."""
        return -(-length // self.digits)

    def sizes(self, length: int) -> tuple[int, ...]:
        """How many bytes the residues modulo each prime take, and last the masked key."""
        count = self.coefficients(length)
        residues = (packed_size(count, bits) for bits in self.prime_bits)
        return (*residues, packed_size(self.degree, self.key_bits))

    def describe(self) -> str:
        """The parameters in one line, as it stands in headers and messages."""
        primes = "+".join(map(str, self.prime_bits))
        return (
            f"degree {self.degree}, coefficients {primes} bits, {self.digits} a coefficient in "
            f"base {self.base}, keys {self.key_bits} bits"
        )


@lru_cache(maxsize=64)
def fit_parameters(
    length: int, senders: int, base: int, degree: int | None = None
) -> RingParameters | None:
    """The parameters with which a payload takes the fewest bytes; ``None`` if there are none.

    Args:
        length: how many quantised values each site sends.
        senders: the most sites in a sum.
        base: B of packing.
        degree: N, if it is given.
    """
    found = (
        _shortest(ring, digits, senders, base)
        for ring in (MOST_BITS if degree is None else (degree,))
        for digits in range(1, max(MOST_BITS.values()))
    )
    return min(
        (parameters for parameters in found if parameters is not None),
        key=lambda parameters: sum(parameters.sizes(length)),
        default=None,
    )


def _shortest(degree: int, digits: int, senders: int, base: int) -> RingParameters | None:
    """The parameters with the shortest modulus that has room for so many digits, if one has."""
    least = (base**digits * (2 * senders * BOUND + 1)).bit_length()
    for bits in range(least, MOST_BITS[degree] + 1):
        parts = 1 if bits <= MOST_PRIME_BITS else 2
        prime_bits = tuple((bits + part) // parts for part in range(parts))
        parameters = RingParameters(degree, prime_bits, base, digits, senders)
        if parameters.primes and parameters.exact:
            return parameters
    return None


@lru_cache(maxsize=64)
def ring_primes(degree: int, bits: tuple[int, ...]) -> tuple[int, ...]:
    """The largest primes of so many bits with a transform of a degree, as SEAL finds them.

    They are none where SEAL finds too few.
    """
    import tenseal.sealapi as seal

    try:
        return tuple(int(prime.value()) for prime in seal.CoeffModulus.Create(degree, list(bits)))
    except (ValueError, RuntimeError):
        return ()
