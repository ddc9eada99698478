"""What is inside of closed contours, by the middles of pixels."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def inside(contours: Sequence[Floats], rows: int, columns: int) -> npt.NDArray[np.bool_]:
    """The pixels ``(rows, columns)`` whose middle is inside of an odd number of contours.

    A contour ``(n, 2)`` is closed; its points are column and row, with the middle of the first
    pixel at (0, 0). So a contour within another is a hole, one within that is inside again, and a
    keyhole, which runs to the hole and back on one line, needs nothing special. A middle on a
    contour is inside where that is the left or the upper border, so that two structures with a
    common border share no pixel and leave none out.
    """
    crossings: npt.NDArray[np.int64] = np.zeros((rows, columns + 1), np.int64)
    for contour in contours:
        start, end = contour, np.roll(contour, -1, axis=0)
        upper = np.minimum(start[:, 1], end[:, 1])
        lower = np.maximum(start[:, 1], end[:, 1])
        first = np.clip(np.ceil(upper), 0, rows).astype(int)
        last = np.clip(np.ceil(lower), 0, rows).astype(int)
        for edge in np.flatnonzero(last > first):
            level = np.arange(first[edge], last[edge])
            (x0, y0), (x1, y1) = start[edge], end[edge]
            crossed = x0 + (level - y0) * (x1 - x0) / (y1 - y0)
            # Every pixel from there to the right is on the other side.
            np.add.at(crossings, (level, np.clip(np.ceil(crossed), 0, columns).astype(int)), 1)
    return np.asarray(np.cumsum(crossings, axis=1)[:, :columns] % 2, bool)
