"""Encrypting packed quantised values under a short key, and taking the sum of keys off their sum.

Ciphertexts are residues of the coefficients ``(count,)`` modulo each prime of the ring; of the last
polynomial only those are sent that hold a value.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from federated.protection.packing import pack, unpack
from federated.protection.rlwe.parameters import BOUND, SIGMA, RingParameters
from federated.protection.rlwe.ring import Residues, Transform
from federated.protection.wide_gaussian import Integers, Source, bounded_gaussian, keyed_source
from federated.secrets.key_derivation import derive_key

Ciphertext = tuple[npt.NDArray[np.uint32], ...]

# How many polynomials are worked on at a time: they stay in the processor's cache, and memory does
# not grow.
POLYNOMIALS = 16
# The public polynomials are to look random to everyone, and follow from their label alone.
PUBLIC = b"consilium public polynomials"


def draw_gaussian(count: int, source: Source) -> Integers:
    """Coefficients ``(count,)`` of a key or of errors, within ±:data:`BOUND`."""
    return bounded_gaussian(SIGMA, BOUND, count, source)


def encrypt(
    quantised: npt.NDArray[np.integer], secret: bytes, label: str, parameters: RingParameters
) -> tuple[Ciphertext, Integers]:
    """Encrypt quantised values under a fresh short key.

    Args:
        quantised: integers ``(length,)``.
        secret: 32 bytes that key and errors follow from, and nothing else; a secret that is used
            for two updates tells their difference.
        label: which public polynomials are taken; the same at all sites of a round.
        parameters: of the ring.

    Returns:
        The ciphertext, and the short key ``(degree,)``.
    """
    source = keyed_source(secret)
    key = draw_gaussian(parameters.degree, source)
    slots = pack(quantised, parameters.base, parameters.digits)
    found = tuple(np.empty(len(slots), np.uint32) for _ in parameters.primes)
    for part, products in _products(key, len(slots), label, parameters):
        values = slots[part]
        errors = draw_gaussian(len(values), source)
        for ring, product, residues in zip(parameters.transforms, products, found, strict=True):
            scaled = ring.times(ring.residues(values), np.uint64(parameters.scale % ring.prime))
            hidden = ring.plus(scaled, ring.residues(errors))
            residues[part] = ring.plus(product, hidden)
    return found, key


def decrypt_sum(
    total: Ciphertext, keys: Integers, length: int, label: str, parameters: RingParameters
) -> Integers:
    """The exact sum of quantised values ``(length,)``.

    Args:
        total: the sum of the ciphertexts.
        keys: the sum of the short keys they are under, ``(degree,)``.
        length: how many values there are.
        label: the one that they were encrypted with.
        parameters: of the ring.

    Raises:
        ValueError: the errors are larger than those of the parameters' senders can be, so that the
            keys are not those of the ciphertexts, or one of them was changed.
    """
    count = parameters.coefficients(length)
    slots = np.empty(count, np.int64)
    for part, products in _products(keys, count, label, parameters):
        residues = [
            ring.minus(sum_[part].astype(np.uint64), product)
            for ring, sum_, product in zip(parameters.transforms, total, products, strict=True)
        ]
        lifted = _lift(residues, parameters)
        slots[part] = (lifted + parameters.scale // 2) // parameters.scale
        errors = lifted - slots[part] * parameters.scale
        if np.abs(errors).max(initial=0) > parameters.largest_error:
            raise ValueError("its errors are larger than those of all its senders can be")
    return unpack(slots, parameters.base, parameters.digits)[:length]


def add_ciphertexts(total: Ciphertext, other: Ciphertext, parameters: RingParameters) -> None:
    """Add a ciphertext to a sum, in place."""
    for prime, sum_, residues in zip(parameters.primes, total, other, strict=True):
        sum_ += residues  # of two residues below 2^31
        np.minimum(sum_, sum_ - np.uint32(prime), out=sum_)


def public_polynomial(label: str, number: int, ring: Transform) -> Residues:
    """The values ``(degree,)`` of a public polynomial, uniform below the ring's prime."""
    source = keyed_source(derive_key(PUBLIC, f"{label}|{ring.prime}|{number}"))
    bits, found = ring.prime.bit_length(), np.zeros(0, np.uint32)
    while len(found) < ring.degree:
        # A few are not below the prime.
        words = np.frombuffer(source(4 * ring.degree), "<u4") & np.uint32(2**bits - 1)
        found = np.concatenate([found, words[words < ring.prime]])
    return found[: ring.degree].astype(np.uint64)


def _products(
    key: Integers, count: int, label: str, parameters: RingParameters
) -> Iterator[tuple[slice, list[Residues]]]:
    """The products of a key with the public polynomials, some at a time.

    Yields:
        Which of ``count`` coefficients they are, and these modulo each prime.
    """
    values = [ring.forward(ring.residues(key)[None])[0] for ring in parameters.transforms]
    step = POLYNOMIALS * parameters.degree
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        numbers = range(start // parameters.degree, -(-part.stop // parameters.degree))
        products = []
        for ring, value in zip(parameters.transforms, values, strict=True):
            public = np.stack([public_polynomial(label, number, ring) for number in numbers])
            product = ring.backward(ring.times(public, value))
            products.append(product.reshape(-1)[: part.stop - start])
        yield part, products


def _lift(residues: Sequence[Residues], parameters: RingParameters) -> Integers:
    """The integers between ±q/2 with these residues modulo one or two primes."""
    whole = residues[0]
    if len(residues) > 1:
        (first, second), ring = parameters.primes, parameters.transforms[1]
        inverse = np.uint64(pow(first, -1, second))
        apart = ring.minus(residues[1], whole % np.uint64(second))
        whole = whole + ring.times(apart, inverse) * np.uint64(first)
    integers: Integers = whole.astype(np.int64)
    integers[integers > parameters.modulus // 2] -= parameters.modulus
    return integers
