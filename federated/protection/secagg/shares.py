"""Shamir's secret sharing of 16-byte seeds over GF(2^128) (Shamir 1979).

Seeds are split by pycryptodome, in constant time. They are put together here, in the same field:
the library takes 2 ms for seven shares, a quarter of what the coordinator does for a sum, nearly
all of it so that its time tells nothing of a secret that the coordinator is about to know.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from Crypto.Protocol.SecretSharing import Shamir

from federated.protection.secagg.keys import SEED_BYTES

# An element is a polynomial over GF(2) modulo this one, its coefficients the bits of an integer.
MODULUS = 2**128 + 2**7 + 2**2 + 2 + 1


def share_seed(seed: bytes, holders: Sequence[str], threshold: int) -> dict[str, bytes]:
    """A share for each holder; any ``threshold`` of them give the seed, fewer say nothing of it.

    The place of a holder among ``holders`` is the point at which its share was evaluated.

    Raises:
        ValueError: the threshold is below 1, for which the library gives everybody the seed, or
            above the number of holders.
    """
    if not 1 <= threshold <= len(holders):
        raise ValueError(f"a threshold of {threshold} for {len(holders)} holders")
    shares = Shamir.split(threshold, len(holders), seed)
    return {holder: share for holder, (_, share) in zip(holders, shares, strict=True)}


def recover_seed(shares: Mapping[str, bytes], holders: Sequence[str], threshold: int) -> bytes:
    """The seed from at least ``threshold`` shares of those in ``holders``.

    The order of ``holders`` has to be the one in which the seed was shared.

    Raises:
        ValueError: there are too few shares, or one has not :data:`SEED_BYTES` bytes.
    """
    if len(shares) < threshold:
        raise ValueError(f"{len(shares)} shares of {threshold}")
    if any(len(share) != SEED_BYTES for share in shares.values()):
        raise ValueError(f"a share has {SEED_BYTES} bytes")
    chosen = sorted((holders.index(holder) + 1, share) for holder, share in shares.items())
    points, values = zip(*chosen[:threshold], strict=True)
    seed = 0
    for weight, value in zip(_weights(points), values, strict=True):
        seed ^= _times(int.from_bytes(value, "big"), weight)
    return seed.to_bytes(SEED_BYTES, "big")


# Of all sites of a round the same holders have answered, as long as none is missing.
@lru_cache(maxsize=16)
def _weights(points: tuple[int, ...]) -> tuple[int, ...]:
    """By what the values at some points are multiplied to add up to that at 0 (Lagrange)."""
    found = []
    for point in points:
        above, below = 1, 1
        for other in points:
            if other != point:
                above, below = _times(above, other), _times(below, point ^ other)
        found.append(_times(_inverse(below), above))
    return tuple(found)


def _times(one: int, other: int) -> int:
    """The product of two elements; it is the quicker the fewer bits ``other`` has."""
    product = 0
    while other:
        if other & 1:
            product ^= one
        one <<= 1
        if one >> 128:
            one ^= MODULUS
        other >>= 1
    return product


def _inverse(element: int) -> int:
    """What an element other than 0 is multiplied by to give 1, by the extended Euclidean algorithm.

    ``left`` and ``right`` stay what ``element`` times ``of_left`` and ``of_right`` is modulo the
    modulus, and lose their highest bits against each other until one of them is 1.
    """
    left, right, of_left, of_right = element, MODULUS, 1, 0
    while left != 1:
        shift = left.bit_length() - right.bit_length()
        if shift < 0:
            left, right, of_left, of_right = right, left, of_right, of_left
            shift = -shift
        left ^= right << shift
        of_left ^= of_right << shift
    return of_left
