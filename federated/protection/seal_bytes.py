"""SEAL's serialised objects, unpacked within bounds before SEAL reads them.

SEAL writes a header of 16 bytes, the last eight of which are the object's length, and content that
it compresses by zlib or Zstandard. It unpacks all of it before it looks at a size, so that some
kilobytes that unpack to gigabytes would fill a site's memory. Here the content is unpacked first,
no further than an object of the parameters can be, and is handed to SEAL uncompressed.
"""

import struct
import zlib

HEADER = struct.Struct("<HBBBBHQ")
MAGIC, NONE, ZLIB, ZSTD = 0xA15E, 0, 1, 2
# Zstandard's own memory is as large as the window that a frame asks for; SEAL's are 2 MiB.
LARGEST_WINDOW = 8 << 20
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def unpacked(raw: bytes, most: int) -> bytes:
    """A serialised object without its compression.

    Args:
        raw: the object as SEAL wrote it.
        most: the most bytes that the content may have.

    Raises:
        ValueError: the object is not SEAL's, is cut short, or is larger than ``most``.
    """
    if len(raw) < HEADER.size:
        raise ValueError("it is cut short")
    magic, header, major, minor, compression, reserved, size = HEADER.unpack(raw[: HEADER.size])
    if magic != MAGIC or header != HEADER.size:
        raise ValueError("it is not an object of SEAL")
    if size != len(raw):
        raise ValueError(f"it says that it has {size} bytes and has {len(raw)}")
    if len(raw) > 2 * most:
        raise ValueError(f"it has {len(raw)} bytes, and {most} are the most")
    content = _content(raw[HEADER.size :], compression, most + 1)
    if len(content) > most:
        raise ValueError(f"it unpacks to more than {most} bytes")
    whole = HEADER.size + len(content)
    return HEADER.pack(magic, header, major, minor, NONE, reserved, whole) + content


def _content(packed: bytes, compression: int, most: int) -> bytes:
    """What ``packed`` unpacks to, or the first ``most`` bytes of that."""
    if compression == NONE:
        return packed[:most]
    if compression == ZLIB:
        try:
            return zlib.decompressobj().decompress(packed, most)
        except zlib.error as error:
            raise ValueError(f"it cannot be unpacked ({error})") from error
    if compression == ZSTD:
        return _zstd(packed, most)
    raise ValueError(f"its compression {compression} is not known")


def _zstd(packed: bytes, most: int) -> bytes:
    import pyarrow

    if _window(packed) > LARGEST_WINDOW:
        raise ValueError("it asks for too much memory to be unpacked")
    try:
        with pyarrow.input_stream(pyarrow.BufferReader(packed), compression="zstd") as stream:
            content: bytes = stream.read(most)
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"it cannot be unpacked ({error})") from error
    return content


def _window(packed: bytes) -> int:
    """The window of the first frame in bytes (RFC 8878, section 3.1.1.1).

    A frame of a single segment has its content for a window, which the reader's own bound covers.
    """
    if len(packed) < 6 or packed[:4] != ZSTD_MAGIC:
        raise ValueError("it is not compressed as it says")
    if packed[4] & 0x20:
        return 0
    exponent, mantissa = packed[5] >> 3, packed[5] & 7
    base = 1 << (10 + exponent)
    return base + base // 8 * mantissa
