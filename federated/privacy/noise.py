"""Noise that nobody else can make again: from a secret of the site, by a cipher.

Noise derived from the experiment's seed could be subtracted by everyone who knows the seed, and
torch's generator keeps 32 bits of any seed, which can be searched. Here a site's 32 secret bytes
give, by HKDF, one AES-256 key for each run, round and purpose; so a round that is made again after
a crash has the same noise, and no other round of any run has.
"""

import os
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from scipy.special import ndtri

from federated.errors import ConsiliumError
from federated.files import atomic_path
from federated.key_derivation import KEY_BYTES, derive_key


class SecretRandom:
    """A stream of random numbers of one key, for one purpose.

    The Gaussian is the inverse distribution function of 53-bit uniform numbers, so it ends at ±8.2
    standard deviations and, as floating-point numbers do, has gaps (Mironov 2012); the guarantees
    of this project are those of the ideal Gaussian.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._stream = Cipher(AES(key), CTR(bytes(16))).encryptor()

    def child(self, purpose: str) -> "SecretRandom":
        """A stream of its own, for a purpose within this one's.

        It depends on the key and the purpose alone: neither on what was drawn here before nor on
        which other children there are.
        """
        return SecretRandom(derive_key(self._key, purpose))

    def uniform(self, count: int) -> npt.NDArray[np.float64]:
        """``count`` numbers in (0, 1)."""
        words = np.frombuffer(self._stream.update(bytes(8 * count)), "<u8") >> 11
        numbers: npt.NDArray[np.float64] = (words.astype(np.float64) + 0.5) * 2.0**-53
        return numbers

    def normal(self, shape: Sequence[int]) -> npt.NDArray[np.float64]:
        """Standard normal numbers."""
        values: npt.NDArray[np.float64] = ndtri(self.uniform(prod(shape))).reshape(shape)
        return values


def secret_random(
    place: Path, site: str, run: str, round_number: int, purpose: str
) -> SecretRandom:
    """A site's stream for a purpose in a round of a run; ``place`` holds the sites' secrets."""
    return SecretRandom(_derive(_site_secret(place, site), site, run, round_number, purpose))


def seeded_random(seed: int, site: str, round_number: int, purpose: str) -> SecretRandom:
    """The same from a seed that everyone knows: for simulations that must come out the same twice.

    No guarantee holds against those who know the seed.
    """
    return SecretRandom(_derive(seed.to_bytes(KEY_BYTES, "big"), site, "", round_number, purpose))


def _derive(secret: bytes, site: str, run: str, round_number: int, purpose: str) -> bytes:
    purpose = "|".join(["consilium noise", run, str(round_number), site, purpose])
    return derive_key(secret, purpose)


def _site_secret(place: Path, site: str) -> bytes:
    path = place / f"{site}.key"
    if not path.is_file():
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic_path(path, 0o600) as temporary:
            temporary.write_bytes(os.urandom(KEY_BYTES))
    secret = path.read_bytes()
    if len(secret) != KEY_BYTES:
        raise ConsiliumError(
            f"The secret {path} from which {site} makes its noise is damaged. Remove it; runs that "
            "are not finished then have other noise when they are resumed."
        )
    return secret
