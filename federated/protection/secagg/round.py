"""A round of SecAgg+: what all its parties know of it, and what a site keeps to itself."""

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from federated.protection.secagg.graph import Neighbours
from federated.protection.secagg.keys import KeyPair
from federated.secrets.key_derivation import derive_key

Kind = Literal["own", "masking"]


@dataclass(frozen=True)
class Round:
    """What all parties of a round know: which round, who masks with whom, how many may be missing.

    ``bits`` is b of the integers modulo 2^b.
    """

    run: str
    number: int
    neighbours: Neighbours
    threshold: int
    bits: int

    def holders(self, site: str) -> tuple[str, ...]:
        """The sites that hold shares of a site's keys: its neighbours and itself, by name."""
        return tuple(sorted((*self.neighbours[site], site)))

    @property
    def fingerprint(self) -> str:
        """Thirty-two hexadecimal digits that differ between runs, rounds and settings."""
        text = json.dumps([self.label("round"), dict(self.neighbours), self.threshold, self.bits])
        return sha256(text.encode()).hexdigest()[:32]

    def label(self, purpose: str, *sites: str) -> str:
        """The text for what a key or message is for; no two labels have a key in common."""
        return "|".join(["consilium secagg+", self.run, str(self.number), purpose, *sites])


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

    @property
    def masking(self) -> KeyPair:
        """The key pair by which masking keys are agreed on."""
        return masking_pair(self.masking_seed)


@dataclass(frozen=True)
class Advertised:
    """A site's public keys for one round."""

    sealing: bytes
    masking: bytes


@dataclass(frozen=True)
class Share:
    """A share of one of a site's seeds, as a neighbour holds it."""

    kind: Kind
    value: bytes


def masking_pair(seed: bytes) -> KeyPair:
    """The key pair that a masking seed leads to."""
    return KeyPair.of(derive_key(seed, "consilium secagg+ masking pair"))
