"""A round of SecAgg+: what all its parties know of it, and what a site keeps to itself."""

import json
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Literal

from federated.protection.secagg.graph import Neighbours
from federated.protection.secagg.keys import KeyPair
from federated.secrets.key_derivation import derive_key

Kind = Literal["own", "masking"]
_COMPACT = json.JSONEncoder(separators=(",", ":"))


@dataclass(frozen=True)
class Round:
    """What all parties of a round know: which round, who masks with whom, how many may be missing.

    Attributes:
        run: the run's id.
        number: the round's number.
        neighbours: who masks with whom, of the sites that have advertised keys.
        threshold: how many of a site's holders have to answer.
        bits: b of the integers modulo 2^b.
        attempt: how often the run was begun or resumed; a round that is done again is another one.
        state: the SHA-256 of the state that the round starts from.
        quorum: how many sites have to say that they were told the same (``consistency.py``); it is
            never less than more than half of those that have advertised keys.
        sum: which of the round's sums it is: a name, or empty for that of the updates. Keys, masks
            and views of one are none of another's.
    """

    run: str
    number: int
    neighbours: Neighbours
    threshold: int
    bits: int
    attempt: int = 0
    state: str = ""
    quorum: int = 0
    sum: str = ""

    def holders(self, site: str) -> tuple[str, ...]:
        """The sites that hold shares of a site's keys: its neighbours and itself, by name."""
        return tuple(sorted((*self.neighbours[site], site)))

    @property
    def fingerprint(self) -> str:
        """Thirty-two hexadecimal digits that differ between runs, rounds, attempts and settings."""
        graph = dict(self.neighbours)
        text = [self.label("round"), graph, self.threshold, self.bits, self.state, self.quorum]
        return sha256(json.dumps(text).encode()).hexdigest()[:32]

    def label(self, purpose: str, *sites: str) -> str:
        """The text for what a key or message is for; no two labels have a key in common."""
        return label(self.run, self.number, self.attempt, purpose, *sites, sum_=self.sum)


def label(run: str, number: int, attempt: int, purpose: str, *sites: str, sum_: str = "") -> str:
    """The text for what a key or message of an attempt at a round is for.

    Args:
        run: the run's id.
        number: the round's number.
        attempt: the attempt at it.
        purpose: what the key or message is for.
        sites: whom it is between.
        sum_: the name of the sum that it belongs to; empty for that of the updates.
    """
    # No name has a space in it.
    protocol = f"consilium secagg+ sum {sum_}" if sum_ else "consilium secagg+"
    return "|".join([protocol, run, str(number), str(attempt), purpose, *sites])


@dataclass(frozen=True)
class Secrets:
    """What a site keeps to itself for one round.

    ``masking_seed`` leads to the keys that it has in common with its neighbours, and ``own_seed``
    to the mask that is its own alone.
    """

    site: str
    sealing: KeyPair
    masking_seed: bytes
    own_seed: bytes

    @cached_property
    def masking(self) -> KeyPair:
        """The key pair by which masking keys are agreed on."""
        return masking_pair(self.masking_seed)


@dataclass(frozen=True)
class Advertised:
    """A site's public keys for one round, and its commitment to the seed of its own mask."""

    sealing: bytes
    masking: bytes
    commitment: bytes

    def to_bytes(self, site: str, round_label: str) -> bytes:
        """The one form as bytes, which the site signs; ``round_label`` is the round's ``label``."""
        keys = [self.sealing.hex(), self.masking.hex(), self.commitment.hex()]
        return _COMPACT.encode([round_label, site, *keys]).encode()


@dataclass(frozen=True)
class Share:
    """A share of one of a site's seeds, as a neighbour holds it."""

    kind: Kind
    value: bytes


def masking_pair(seed: bytes) -> KeyPair:
    """The key pair that a masking seed leads to."""
    return KeyPair.of(derive_key(seed, "consilium secagg+ masking pair"))
