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

# For each b, how integers modulo 2^b lie in memory; unsigned integers of NumPy wrap round.
WORDS: dict[int, npt.DTypeLike] = {16: "<u2", 32: "<u4", 64: "<u8"}


# How many words of a stream are made at a time: they stay in the processor's cache, and memory does
# not grow.
CHUNK = 1 << 16


def add_mask(words: npt.NDArray[np.unsignedinteger], key: bytes, *, subtract: bool = False) -> None:
    """Add the mask of a key to integers ``(n,)`` modulo 2^b, or take it away, in place.

    The mask is uniform to everyone without the key.
    """
    zeros = bytes(CHUNK * words.itemsize)
    # The cipher asks for room for one block more, less one byte.
    stream = bytearray(len(zeros) + 15)
    cipher = Cipher(AES(key), CTR(bytes(16))).encryptor()
    apply = np.subtract if subtract else np.add
    for start in range(0, len(words), CHUNK):
        part = words[start : start + CHUNK]
        cipher.update_into(zeros[: part.nbytes], stream)
        apply(part, np.frombuffer(stream, words.dtype, len(part)), out=part)


def mask(key: bytes, length: int, bits: int) -> npt.NDArray[np.unsignedinteger]:
    """The mask of a key as integers ``(length,)`` modulo 2^``bits``."""
    words = np.zeros(length, WORDS[bits])
    add_mask(words, key)
    return words


def smallest_word(largest_sum: int) -> int:
    """The fewest bits of :data:`WORDS` that hold sums within ±``largest_sum``.

    Raises:
        ValueError: none has enough.
    """
    for bits in sorted(WORDS):
        if 2 * largest_sum + 1 <= 2**bits:
            return bits
    raise ValueError(f"sums up to {largest_sum} do not fit {max(WORDS)} bits")
