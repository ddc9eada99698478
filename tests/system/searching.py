"""Looking for a hospital's images, in whatever form, in what has left it."""

from collections.abc import Iterable, Mapping

import numpy as np

# In bytes, of a piece of an image that is looked for, and how many different ones it has at least:
# what is all alike is found anywhere.
PIECE, VARIED = 8, 6
# Of the bits by which most places are passed over at once.
BITS = 22
MASK = np.uint64(2**BITS - 1)


def pieces_of(arrays: Mapping[str, np.ndarray], cases: int) -> np.ndarray:
    """Pieces of the first images of each split, as numbers of eight bytes, each once, in order.

    They are of the bytes themselves, of the values from 0 to 1 and of the standardised ones as
    float32 and float64, in either order of axes that a volume is likely to be written in.
    """
    found = []
    for name, images in arrays.items():
        if not name.endswith("_images"):
            continue
        for image in images[:cases]:
            for volume in (image, np.ascontiguousarray(image.T)):
                scaled = volume.astype(np.float64) / 255
                forms = (
                    volume,
                    *(scaled.astype(kind) for kind in (np.float32, np.float64)),
                    ((scaled - scaled.mean()) / scaled.std()).astype(np.float32),
                    ((scaled - 0.5) / 0.5).astype(np.float32),
                )
                found += [_pieces(form) for form in forms]
    return np.unique(np.concatenate(found))


def _pieces(form: np.ndarray) -> np.ndarray:
    whole = form.tobytes()
    rows = np.frombuffer(whole[: len(whole) // PIECE * PIECE], dtype=np.uint8).reshape(-1, PIECE)
    ordered = np.sort(rows, axis=1)
    varied = (np.diff(ordered, axis=1) != 0).sum(axis=1) + 1 >= VARIED
    return rows[varied].copy().view(np.uint64).ravel()


def places_of(content: bytes, pieces: np.ndarray) -> list[int]:
    """Where in some bytes one of the pieces begins, at whatever offset."""
    table = np.zeros(2**BITS, dtype=bool)
    table[(pieces & MASK).astype(np.int64)] = True
    found: list[int] = []
    for start in range(PIECE):
        words = (len(content) - start) // PIECE
        if words <= 0:
            break
        numbers = np.frombuffer(content, dtype=np.uint64, count=words, offset=start)
        maybe = np.flatnonzero(table[(numbers & MASK).astype(np.int64)])
        kept = numbers[maybe]
        at = np.searchsorted(pieces, kept)
        at[at == len(pieces)] = 0
        found += (maybe[pieces[at] == kept] * PIECE + start).tolist()
    return sorted(found)


def texts_in(content: bytes, texts: Iterable[str]) -> list[str]:
    """Which of some texts are in some bytes, as they are or as JSON or base64 has them."""
    from base64 import b64encode

    found = []
    for text in texts:
        plain = text.encode()
        # Without the first and the last characters, which depend on what is beside.
        coded = [b64encode(b"x" * shift + plain)[4:-4] for shift in range(3)]
        forms = (plain, text.replace("/", "\\/").encode(), *coded)
        if any(form in content for form in forms):
            found.append(text)
    return found
