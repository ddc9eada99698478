"""Tags: by which a site that opens an encrypted sum knows that it is the sum, and of whom.

Ciphertexts of SEAL are vectors of integers modulo primes, and adding them adds the vectors. A tag
of a vector c is t = ⟨r, c⟩ modulo each prime, with r drawn from a key that the sites have in common
and the coordinator does not; so the tag of a sum is the sum of the tags. Each site sends the tags
of its payload to the other sites, encrypted and signed. Who opens a sum adds the tags of those who
are said to be in it and compares: a payload alone, one that is there twice or left out, and one
that was made up all have another tag.

Guarantee: against a coordinator that does not have the key, whatever it hands over as the sum of
some sites' ciphertexts and is not that, is noticed except with probability 2^-60 for each prime.
For a difference d ≠ 0 modulo a prime, ⟨r, d⟩ = 0 with probability of at most 2^-30, since each
entry of r is drawn from 2^30 values, and there are two tags with independent r. A key draws another
r for each round and attempt, and the tags are not told in the clear: with a tag of a vector that
one knows, one could make up others. A site that has the key and colludes with the coordinator is
not stopped; it could as well decrypt each payload (``keys.py``).
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from federated.errors import RefusalError
from federated.secrets.key_derivation import derive_key

# How many tags with independent r there are.
TAGS = 2
WEIGHT_BITS = 30
# The numbers of a ciphertext are taken apart into pieces of so many bits: WEIGHT_BITS and these,
# and the number of terms that are added in one go, stay below 64 bits.
PIECE_BITS = 20
PIECES = 4
TERMS = 1 << 13
NONCE_BYTES = 12
# What ChaCha20-Poly1305 adds.
SEAL_BYTES = 16

Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class TagKey:
    """The sites' key for the tags of one round; ``label`` says which round of which run."""

    key: bytes
    label: str

    @staticmethod
    def of(secret: bytes, label: str) -> "TagKey":
        """The key for one round, from a secret of the sites; another for each ``label``."""
        return TagKey(derive_key(secret, f"consilium tags|{label}"), label)


def tags_of(residues: Iterable[tuple[int, Words]], key: TagKey) -> tuple[tuple[int, ...], ...]:
    """The tags of a payload: for each of :data:`TAGS`, one number for each prime, in order.

    ``residues`` are the prime and the numbers modulo it of each part of the payload, in order; the
    numbers of all parts of a prime have one tag together.
    """
    streams = [weight_stream(key, f"weights {n}") for n in range(TAGS)]
    totals: list[dict[int, int]] = [{} for _ in range(TAGS)]
    for prime, words in residues:
        for total, stream in zip(totals, streams, strict=True):
            found = inner_product(stream(len(words)), words)
            total[prime] = (total.get(prime, 0) + found) % prime
    return tuple(tuple(total.values()) for total in totals)


def weight_stream(key: TagKey, purpose: str) -> Callable[[int], Words]:
    """What draws the next so many weights, each of :data:`WEIGHT_BITS` bits, for one purpose."""
    stream = Cipher(AES(derive_key(key.key, purpose)), CTR(bytes(16))).encryptor()

    def draw(count: int) -> Words:
        drawn = np.frombuffer(stream.update(bytes(4 * count)), "<u4")
        return (drawn & ((1 << WEIGHT_BITS) - 1)).astype(np.uint64)

    return draw


def inner_product(weights: Words, words: Words) -> int:
    """Σ weights·words, exactly; weights have at most :data:`WEIGHT_BITS` bits."""
    total = 0
    mask = np.uint64((1 << PIECE_BITS) - 1)
    for start in range(0, len(words), TERMS):
        part, by = words[start : start + TERMS], weights[start : start + TERMS]
        for piece in range(PIECES):
            shift = PIECE_BITS * piece
            value = (part >> np.uint64(shift)) & mask
            total += int((value * by).sum(dtype=np.uint64)) << shift
    return total


def add_tags(
    several: Sequence[tuple[tuple[int, ...], ...]], primes: Sequence[int]
) -> tuple[tuple[int, ...], ...]:
    """The tags of the sum of payloads with these tags."""
    return tuple(
        tuple(sum(tags[n][place] for tags in several) % prime for place, prime in enumerate(primes))
        for n in range(TAGS)
    )


def seal_tags(tags: tuple[tuple[int, ...], ...], site: str, key: TagKey) -> bytes:
    """What a site tells of its payload as the other sites get it: encrypted, for them alone.

    ``tags`` are rows of one number for each prime.
    """
    content = b"".join(number.to_bytes(8, "little") for own in tags for number in own)
    nonce = os.urandom(NONCE_BYTES)
    cipher = ChaCha20Poly1305(derive_key(key.key, "seal"))
    return nonce + cipher.encrypt(nonce, content, f"{key.label}|{site}".encode())


def sealed_size(primes: int, rows: int) -> int:
    """How many bytes :func:`seal_tags` gives for so many rows of numbers."""
    return NONCE_BYTES + 8 * primes * rows + SEAL_BYTES


def open_tags(
    sealed: bytes, site: str, primes: int, key: TagKey, rows: int = TAGS
) -> tuple[tuple[int, ...], ...]:
    """The rows of numbers that a site has sent of its payload.

    Args:
        sealed: what it has sent.
        site: the site.
        primes: how many primes there are.
        key: the sites' key for the round.
        rows: how many rows there have to be.

    Raises:
        RefusalError: they were changed, or are of another site, round or key.
    """
    cipher = ChaCha20Poly1305(derive_key(key.key, "seal"))
    nonce, rest = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    try:
        content = cipher.decrypt(nonce, rest, f"{key.label}|{site}".encode())
    except (InvalidTag, ValueError) as error:
        raise RefusalError(
            f"The tags of {site}'s payload are refused: they were changed, or are not of this "
            "round, or not under the sites' key."
        ) from error
    numbers = [int.from_bytes(content[i : i + 8], "little") for i in range(0, len(content), 8)]
    if len(numbers) != rows * primes:
        raise RefusalError(f"The tags of {site}'s payload are refused: they are too few or many.")
    return tuple(tuple(numbers[n * primes : (n + 1) * primes]) for n in range(rows))


def refuse_other_sum(
    found: tuple[tuple[int, ...], ...],
    several: Sequence[tuple[tuple[int, ...], ...]],
    primes: Sequence[int],
    site: str,
) -> None:
    """Refuse, at a site, to open what is not the sum of the payloads with ``several`` tags.

    Args:
        found: the tags of what the coordinator has handed over.
        several: the tags of the payloads that are said to be in it.
        primes: the primes, in order.
        site: the site.

    Raises:
        RefusalError: it is not.
    """
    if found != add_tags(several, primes):
        raise RefusalError(
            f"{site} does not help to open the sum of the round: it is not the sum of the payloads "
            "that the sites have sent. Ask who runs the coordinator; resuming the run begins the "
            "round anew."
        )
