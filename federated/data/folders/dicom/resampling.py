"""Slices at uneven distances, or sheared by a tilted gantry, on a regular grid and back.

Within a slice nothing but a shift happens, and across slices a mean of two neighbours, so that a
grid which is regular already would come out as it is.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import affine_transform

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

# Shifts that are whole pixels but for rounding are whole.
ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Regrid:
    """The way from slices ``(columns, rows, slices)`` to a regular grid.

    ``heights`` ``(slices,)`` are the positions of the slices along the normal in mm, ascending,
    and ``shifts`` ``(slices, 2)`` how many columns and rows each lies further than the first one.
    """

    heights: Floats
    shifts: Floats
    shape: tuple[int, int]

    @property
    def levels(self) -> Floats:
        """The positions of the grid's slices, with the median distance of the given ones."""
        span = float(self.heights[-1] - self.heights[0])
        steps = max(1, round(span / float(np.median(np.diff(self.heights)))))
        return np.linspace(self.heights[0], self.heights[-1], steps + 1)

    @property
    def before(self) -> npt.NDArray[np.int64]:
        """How many columns and rows the grid begins before the first slice does; not above 0."""
        return np.asarray(np.floor(self.shifts.min(axis=0) + ROUNDING), np.int64)

    @property
    def size(self) -> tuple[int, int]:
        """The columns and rows of the grid, which has room for all slices."""
        after = np.asarray(np.ceil(self.shifts.max(axis=0) - ROUNDING), np.int64)
        columns, rows = np.array(self.shape) + after - self.before
        return int(columns), int(rows)

    def forward(self, values: Array, fill: float) -> npt.NDArray[np.float32]:
        """Slices on the grid, interpolated linearly; ``fill`` is around them."""
        upright = np.stack(
            [
                affine_transform(
                    values[..., at].astype(np.float32),
                    np.ones(2),
                    self.before - shift,
                    self.size,
                    np.float32,
                    order=1,
                    mode="constant",
                    cval=fill,
                    prefilter=False,
                )
                for at, shift in enumerate(self.shifts)
            ],
            axis=-1,
        )
        above = np.searchsorted(self.heights, self.levels, side="left").clip(
            1, len(self.heights) - 1
        )
        below = above - 1
        share = (self.levels - self.heights[below]) / (self.heights[above] - self.heights[below])
        weight = share.astype(np.float32)
        return np.asarray(upright[..., below] * (1 - weight) + upright[..., above] * weight)

    def nearest_back(self, labels: Array) -> Array:
        """Labels on the grid, on the slices: each pixel takes the nearest voxel's."""
        nearest = np.abs(self.levels[:, np.newaxis] - self.heights).argmin(axis=0)
        starts = np.rint(self.shifts - self.before).astype(int)
        columns, rows = self.shape
        return np.stack(
            [
                labels[x : x + columns, y : y + rows, level]
                for level, (x, y) in zip(nearest, starts, strict=True)
            ],
            axis=-1,
        )
