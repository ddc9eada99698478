"""Shamir's secret sharing of 16-byte seeds, by pycryptodome over GF(2^128)."""

from collections.abc import Mapping, Sequence

from Crypto.Protocol.SecretSharing import Shamir


def share_seed(seed: bytes, holders: Sequence[str], threshold: int) -> dict[str, bytes]:
    """A share for each holder; any ``threshold`` of them give the seed, fewer say nothing of it.

    The place of a holder among ``holders`` is the point at which its share was evaluated.
    """
    shares = Shamir.split(threshold, len(holders), seed)
    return {holder: share for holder, (_, share) in zip(holders, shares, strict=True)}


def recover_seed(shares: Mapping[str, bytes], holders: Sequence[str], threshold: int) -> bytes:
    """The seed from at least ``threshold`` shares of those in ``holders``.

    The order of ``holders`` has to be the one in which the seed was shared.

    Raises:
        ValueError: there are too few shares.
    """
    if len(shares) < threshold:
        raise ValueError(f"{len(shares)} shares of {threshold}")
    chosen = sorted((holders.index(holder) + 1, share) for holder, share in shares.items())
    return bytes(Shamir.combine(chosen[:threshold]))
