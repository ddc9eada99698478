"""Unsigned integers of b bits, one after the other in bytes without a gap."""

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]
Body = npt.NDArray[np.uint8]

MOST = 32
# How many words are taken at a time, so that memory does not grow. A multiple of 8, so that each
# part ends at the end of a byte.
CHUNK = 1 << 16


def packed_size(count: int, bits: int) -> int:
    """How many bytes ``count`` integers of ``bits`` bits take."""
    return -(-count * bits // 8)


def pack_bits(words: npt.NDArray[np.unsignedinteger], bits: int) -> Body:
    """The lowest ``bits`` bits, at most 32, of integers ``(n,)``; the last byte ends with zeros."""
    body = np.empty(packed_size(len(words), bits), np.uint8)
    for start in range(0, len(words), CHUNK):
        part = words[start : start + CHUNK].astype(">u4").view(np.uint8).reshape(-1, MOST // 8)
        lowest = np.unpackbits(part, axis=1)[:, MOST - bits :]
        place = start * bits // 8
        content = np.packbits(lowest)
        body[place : place + len(content)] = content
    return body


def unpack_bits(body: Body, count: int, bits: int) -> Words:
    """The integers ``(count,)`` of :func:`pack_bits`.

    Raises:
        ValueError: the body has another size.
    """
    if len(body) != packed_size(count, bits):
        raise ValueError(f"{len(body)} bytes are not {count} integers of {bits} bits")
    words = np.empty(count, np.uint32)
    for start in range(0, count, CHUNK):
        part = min(CHUNK, count - start)
        content = body[start * bits // 8 : packed_size(start + part, bits)]
        whole = np.zeros((part, MOST), np.uint8)
        whole[:, MOST - bits :] = np.unpackbits(content, count=part * bits).reshape(part, bits)
        words[start : start + part] = np.packbits(whole, axis=1).view(">u4").reshape(-1)
    return words
