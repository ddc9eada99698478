"""Masks: AES-256 in counter mode, as integers modulo 2^b.

The key of a mask is 256 bits from HKDF or the operating system and is used for one mask alone, so
the counter may start at zero. (Flower 1.41 seeds NumPy's Mersenne Twister with 32 bits of the key,
all of which can be tried; here there is nothing smaller than the key to search.)
"""

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

# By b: how integers modulo 2^b lie in memory; unsigned integers of NumPy wrap round.
WORDS: dict[int, npt.DTypeLike] = {16: "<u2", 32: "<u4", 64: "<u8"}


def mask(key: bytes, length: int, bits: int) -> npt.NDArray[np.unsignedinteger]:
    """``length`` integers modulo 2^``bits``, uniform to everyone without the key."""
    word = np.dtype(WORDS[bits])
    stream = Cipher(AES(key), CTR(bytes(16))).encryptor().update(bytes(length * word.itemsize))
    return np.frombuffer(stream, word)


def smallest_word(largest_sum: int) -> int:
    """The fewest bits of :data:`WORDS` for sums within ±``largest_sum``.

    Raises:
        ValueError: none has enough.
    """
    for bits in sorted(WORDS):
        if 2 * largest_sum + 1 <= 2**bits:
            return bits
    raise ValueError(f"sums up to {largest_sum} do not fit {max(WORDS)} bits")
