"""Looking for a hospital's images, in whatever form, in what has left it."""

from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

# A piece of an image that is looked for: so many voxels in a row, with so many changes of value at
# least, since what is all alike is found anywhere, and a normalisation's ones and zeros too.
VOXELS, CHANGES = 64, 4
# Of an image, of each of its forms, at most.
PIECES = 60
# In bytes, by which a place is looked at more closely; the bits of it that pass most places over.
KEY, BITS = 8, 22
MASK = np.uint64(2**BITS - 1)


@dataclass(frozen=True)
class Pieces:
    """Pieces of images as bytes, by their length, and the numbers that their first bytes are."""

    of_size: Mapping[int, frozenset[bytes]]
    keys: np.ndarray


def pieces_of(arrays: Mapping[str, np.ndarray], cases: int) -> Pieces:
    """Pieces of the first images of each split.

    They are of the bytes themselves, of the values from 0 to 1 and of the standardised ones as
    float32 and float64, in either order of axes that a volume is likely to be written in.
    """
    found: dict[int, set[bytes]] = {}
    for name, images in arrays.items():
        if not name.endswith("_images"):
            continue
        for image in images[:cases]:
            for volume in (image, np.ascontiguousarray(image.T)):
                for form in _forms(volume):
                    found.setdefault(VOXELS * form.itemsize, set()).update(_pieces(form))
    keys = {piece[:KEY] for pieces in found.values() for piece in pieces}
    numbers = np.frombuffer(b"".join(sorted(keys)), dtype=np.uint64)
    frozen = {size: frozenset(pieces) for size, pieces in found.items()}
    return Pieces(frozen, np.sort(numbers))


def _forms(volume: np.ndarray) -> Iterable[np.ndarray]:
    scaled = volume.astype(np.float64) / 255
    standardised = (scaled - scaled.mean()) / (scaled.std() or 1)
    yield volume
    for values in (scaled, standardised, (scaled - 0.5) / 0.5):
        yield values.astype(np.float32)
        yield values


def _pieces(form: np.ndarray) -> Iterable[bytes]:
    flat = form.ravel()
    changes = np.flatnonzero(np.diff(flat))
    for start in changes[:: max(1, len(changes) // PIECES)]:
        piece = flat[start : start + VOXELS]
        if len(piece) == VOXELS and np.count_nonzero(np.diff(piece)) >= CHANGES:
            yield piece.tobytes()


def places_of(content: bytes, pieces: Pieces) -> list[int]:
    """Where in some bytes one of the pieces begins, at whatever offset."""
    table = np.zeros(2**BITS, dtype=bool)
    table[(pieces.keys & MASK).astype(np.int64)] = True
    found: list[int] = []
    for start in range(KEY):
        words = (len(content) - start) // KEY
        if words <= 0:
            break
        numbers = np.frombuffer(content, dtype=np.uint64, count=words, offset=start)
        maybe = np.flatnonzero(table[(numbers & MASK).astype(np.int64)])
        maybe = maybe[np.isin(numbers[maybe], pieces.keys)]
        found += [
            place
            for place in (maybe * KEY + start).tolist()
            if any(content[place : place + n] in known for n, known in pieces.of_size.items())
        ]
    return sorted(found)


def texts_in(content: bytes, texts: Iterable[str]) -> list[str]:
    """Which of some texts are in some bytes, as they are or as JSON or base64 has them."""
    found = []
    for text in texts:
        plain = text.encode()
        # Without the first and the last characters, which depend on what is beside.
        coded = [b64encode(b"x" * shift + plain)[4:-4] for shift in range(3)]
        forms = (plain, text.replace("/", "\\/").encode(), *coded)
        if any(form in content for form in forms):
            found.append(text)
    return found
