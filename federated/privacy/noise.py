"""Noise that nobody else can make again: a key from the operating system, and a cipher.

Noise derived from the experiment's seed could be subtracted by everyone who knows the seed, and
torch's generator keeps 32 bits of any seed, which can be searched. Noise derived from a secret of
the site and the name of a round would be the same whatever else the site is given, so that whoever
chooses that could ask twice and subtract. Here every release has an AES-256 key of its own from
``os.urandom``, which is stored nowhere: that a round comes out the same after a crash is the matter
of :mod:`federated.site.releases`, which keeps what was released and not what it was made from.
"""

import os
from collections.abc import Sequence
from math import prod

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from federated.secrets.key_derivation import KEY_BYTES, derive_key


class SecretRandom:
    """A stream of random numbers from one key, for one purpose.

    The Gaussian is the inverse distribution function of 53-bit uniform numbers, so it ends at ±8.2
    standard deviations and, as floating-point numbers do, has gaps (Mironov 2012); the guarantees
    of this project are those of the ideal Gaussian.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._stream = Cipher(AES(key), CTR(bytes(16))).encryptor()

    def child(self, purpose: str) -> "SecretRandom":
        """A stream of its own, for a purpose within the purpose of this one.

        It depends on the key and the purpose alone, and neither on what was drawn here before nor
        on which other children there are.
        """
        return SecretRandom(derive_key(self._key, purpose))

    def uniform(self, count: int) -> npt.NDArray[np.float64]:
        """Draw ``count`` numbers in (0, 1), ``(count,)``."""
        words = np.frombuffer(self._stream.update(bytes(8 * count)), "<u8") >> 11
        numbers: npt.NDArray[np.float64] = (words.astype(np.float64) + 0.5) * 2.0**-53
        return numbers

    def normal(self, shape: Sequence[int]) -> npt.NDArray[np.float64]:
        """Draw standard normal numbers of this shape."""
        from scipy.special import ndtri

        values: npt.NDArray[np.float64] = ndtri(self.uniform(prod(shape))).reshape(shape)
        return values


def fresh_random() -> SecretRandom:
    """A stream that was never used and that nobody can make again, not even its site.

    Its key is 32 bytes of the operating system's randomness. A release that is computed anew, for
    whatever reason, takes a stream of its own: two releases with the same noise would give it away
    by their difference.
    """
    return SecretRandom(os.urandom(KEY_BYTES))


def seeded_random(seed: int, site: str, round_number: int, purpose: str) -> SecretRandom:
    """A stream from a seed that everyone knows, for simulations that must come out the same twice.

    No guarantee holds: whoever knows the seed can take the noise off, and two runs of one seed
    share their noise, so that the difference of what they send has none.
    """
    purpose = "|".join(["consilium noise", str(round_number), site, purpose])
    return SecretRandom(derive_key(seed.to_bytes(KEY_BYTES, "big"), purpose))
