"""Whose tags are not those of its payload: a proof that is checked without the tags' key.

Where the tags do not add up to those of a sum (``tags.py``), a site has sent wrong ones, and nobody
can say which: the sites do not have each other's payloads, and the coordinator has no key. So with
its tags t = ⟨r, c⟩ each site sends those of the same payload under other weights, u = ⟨s, c⟩, all
of them to the other sites alone. For a challenge e the sites then tell the coordinator the vector
w = r + e·s and each site's number v = t + e·u, modulo each prime, and the coordinator compares
⟨w, c⟩ with v for each payload that it has.

Guarantee: of the weights r the coordinator learns nothing that helps it to make up a sum: each
entry of s has 90 bits, uniform and used once, and hides the entry of r up to a relative 2^-30,
whatever e is chosen: no challenge is 0 modulo a prime. It holds while sites answer one challenge
alone for each key: so the coordinator commits itself to it in the plan of the round, on which the
key depends. A site whose tags are wrong passes with a probability of about 1/p for each prime p,
since it has sent t and u before it knows the challenge. That w is right is not proven: all sites
that follow the protocol answer with the same bytes, and who asks has to take the answer of most.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from federated.errors import ConsiliumError
from federated.protection.tags import (
    TAGS,
    WEIGHT_BITS,
    TagKey,
    Words,
    inner_product,
    weight_stream,
)

# Of so many pieces of WEIGHT_BITS bits each an entry of s is made.
PAD_PIECES = 3
CHALLENGE_BYTES = 32
# A site tells its tags, and the same number of those under the other weights.
ROWS = 2 * TAGS

Tags = tuple[tuple[int, ...], ...]


def new_challenge() -> bytes:
    """A challenge that nobody can guess."""
    return secrets.token_bytes(CHALLENGE_BYTES)


def commitment(challenge: bytes) -> str:
    """By which a party commits itself to a challenge before it tells it."""
    return sha256(b"consilium tag challenge|" + challenge).hexdigest()


def _factor(challenge: bytes, prime: int) -> int:
    """The challenge e modulo a prime, from 1: with 0, which one could search for, w would be r."""
    return 1 + int.from_bytes(sha256(challenge).digest(), "little") % (prime - 1)


def pads_of(residues: Iterable[tuple[int, Words]], key: TagKey) -> Tags:
    """The numbers u of a payload under the weights s, as :func:`tags.tags_of` gives its tags."""
    streams = _pad_streams(key)
    totals: list[dict[int, int]] = [{} for _ in range(TAGS)]
    for prime, words in residues:
        for total, pieces in zip(totals, streams, strict=True):
            drawn = (inner_product(piece(len(words)), words) for piece in pieces)
            found = sum(part << (WEIGHT_BITS * place) for place, part in enumerate(drawn))
            total[prime] = (total.get(prime, 0) + found) % prime
    return tuple(tuple(total.values()) for total in totals)


def _pad_streams(key: TagKey) -> list[list[Callable[[int], Words]]]:
    return [[weight_stream(key, f"pads {n} {j}") for j in range(PAD_PIECES)] for n in range(TAGS)]


@dataclass(frozen=True)
class Proof:
    """What sites answer to a challenge.

    Attributes:
        weights: the vectors w, one for each of :data:`tags.TAGS`, ``(words,)`` each.
        told: of each site whose tags could be read, the numbers v; rows as those of tags.
    """

    weights: tuple[Words, ...]
    told: Mapping[str, Tags]

    def to_bytes(self, sites: Sequence[str]) -> bytes:
        """The proof as the body of a message; of ``sites`` those that are not told have zeros."""
        primes = max((len(row) for rows in self.told.values() for row in rows), default=1)
        nothing = ((0,) * primes,) * TAGS
        rows = [self.told.get(site, nothing) for site in sites]
        return save(
            {
                "weights": np.stack(self.weights),
                "told": np.array(rows, np.uint64),
                "read": np.array([site in self.told for site in sites], np.uint8),
            }
        )

    @staticmethod
    def from_bytes(content: bytes, sites: Sequence[str], primes: int, words: int) -> "Proof":
        """The proof from the bytes that :meth:`to_bytes` gave.

        Raises:
            ConsiliumError: they are something else.
        """
        shapes = {
            "weights": ("uint64", (TAGS, words)),
            "told": ("uint64", (len(sites), TAGS, primes)),
            "read": ("uint8", (len(sites),)),
        }
        try:
            found = load(content)
            forms = {name: (array.dtype.name, array.shape) for name, array in found.items()}
            if forms != shapes:
                raise ValueError(f"it has {sorted(forms.items())!r:.200}")
        except (SafetensorError, ValueError, TypeError, KeyError) as error:
            raise ConsiliumError(f"A proof of tags is refused ({error!r:.250}).") from error
        told = {
            site: tuple(tuple(int(number) for number in row) for row in rows)
            for site, rows, read in zip(sites, found["told"], found["read"], strict=True)
            if read
        }
        return Proof(tuple(found["weights"]), told)


def prove(
    parts: Iterable[tuple[int, int]], told: Mapping[str, Tags], key: TagKey, challenge: bytes
) -> Proof:
    """The answer to a challenge.

    Args:
        parts: the prime and the number of words of each part of a payload, in order.
        told: of each site whose tags could be read, its tags and then its other numbers: ``ROWS``
            rows.
        key: the sites' key for the round.
        challenge: what the coordinator has committed itself to.
    """
    forms = list(parts)
    vectors = []
    for n in range(TAGS):
        weights = weight_stream(key, f"weights {n}")
        pieces = _pad_streams(key)[n]
        vectors.append(
            np.concatenate(
                [
                    _mixed(weights(count), [piece(count) for piece in pieces], prime, challenge)
                    for prime, count in forms
                ]
            )
        )
    primes = list(dict.fromkeys(prime for prime, _ in forms))
    numbers = {
        site: tuple(
            tuple(
                (tag + _factor(challenge, prime) * pad) % prime
                for tag, pad, prime in zip(rows[n], rows[TAGS + n], primes, strict=True)
            )
            for n in range(TAGS)
        )
        for site, rows in told.items()
    }
    return Proof(tuple(vectors), numbers)


def _mixed(weights: Words, pieces: Sequence[Words], prime: int, challenge: bytes) -> Words:
    """r + e·s modulo a prime, in whole numbers of any size."""
    pad = sum(piece.astype(object) << (WEIGHT_BITS * place) for place, piece in enumerate(pieces))
    mixed = (weights.astype(object) + _factor(challenge, prime) * pad) % prime
    return mixed.astype(np.uint64)


def fits(proof: Proof, site: str, residues: Iterable[tuple[int, Words]]) -> bool:
    """Whether what a site has told is of the payload with these residues, by the proof."""
    if site not in proof.told:
        return False
    totals: list[dict[int, int]] = [{} for _ in range(TAGS)]
    start = 0
    for prime, words in residues:
        for total, weights in zip(totals, proof.weights, strict=True):
            part = weights[start : start + len(words)]
            low, high = part & np.uint64((1 << WEIGHT_BITS) - 1), part >> np.uint64(WEIGHT_BITS)
            # Of a proof that is none, higher bits would be beyond what fits the product.
            high &= np.uint64((1 << WEIGHT_BITS) - 1)
            found = inner_product(low, words) + (inner_product(high, words) << WEIGHT_BITS)
            total[prime] = (total.get(prime, 0) + found) % prime
        start += len(words)
    return proof.told[site] == tuple(tuple(total.values()) for total in totals)
