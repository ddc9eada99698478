"""Shamir's secret sharing of 32-byte keys, by pycryptodome over GF(2^128), half by half."""

from collections.abc import Mapping, Sequence

from Crypto.Protocol.SecretSharing import Shamir

from federated.protection.secagg.keys import KEY_BYTES

HALF = KEY_BYTES // 2


def share_key(key: bytes, holders: Sequence[str], threshold: int) -> dict[str, bytes]:
    """A share for each holder; any ``threshold`` of them give the key, fewer say nothing of it.

    A holder's place among ``holders`` is the point at which its share was evaluated.
    """
    halves = [
        Shamir.split(threshold, len(holders), key[:HALF]),
        Shamir.split(threshold, len(holders), key[HALF:]),
    ]
    return {
        holder: first + second
        for holder, (_, first), (_, second) in zip(holders, *halves, strict=True)
    }


def recover_key(shares: Mapping[str, bytes], holders: Sequence[str], threshold: int) -> bytes:
    """The key from ``threshold`` shares, of those who hold one in the order of ``holders``.

    Raises:
        ValueError: too few shares.
    """
    if len(shares) < threshold:
        raise ValueError(f"{len(shares)} shares of {threshold}")
    chosen = sorted((holders.index(holder) + 1, share) for holder, share in shares.items())
    chosen = chosen[:threshold]
    first = Shamir.combine([(point, share[:HALF]) for point, share in chosen])
    second = Shamir.combine([(point, share[HALF:]) for point, share in chosen])
    return bytes(first + second)
