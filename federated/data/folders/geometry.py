"""How the voxels of a case become those that a network takes, and the way back.

Everything happens on the indices of voxels: axes are exchanged and mirrored towards right, anterior
and superior, resampled along themselves, padded and cropped. The angle at which a volume lies in
the scanner plays no part, so that rounding in an affine moves nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    io_orientation,
    ornt_transform,
)
from scipy.ndimage import affine_transform

from federated.data.folders.families import Family
from federated.data.folders.volume import Volume
from federated.errors import ConsiliumError

# Voxels whose sides agree to within this share are not resampled.
SAME_SPACING = 1e-3
# The part of a voxel by which a size may be off because of rounding in a header.
ALMOST = 0.01
MOST_VOXELS = 2**30
RIGHT_ANTERIOR_SUPERIOR = axcodes2ornt("RAS")

Shape = tuple[int, int, int]
Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """Voxels ``(x, y, z)``, or ``(height, width, 1)`` for a picture, and their sides in mm."""

    shape: Shape
    sides: tuple[float, float, float]
    flat: bool

    @property
    def spacing(self) -> tuple[float, ...]:
        """The sides of a voxel in mm; 1 for each axis of a picture."""
        return self.sides[:2] if self.flat else self.sides


@dataclass(frozen=True)
class CaseGrid:
    """A case's sides in voxels and a voxel's in mm, in RAS order; height and width of a picture."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...]

    @classmethod
    def of(cls, spatial: Sequence[int], affine: npt.NDArray[np.float64] | None) -> "CaseGrid":
        """The grid of ``spatial`` voxels as a file has them.

        Args:
            spatial: the shape, without channels.
            affine: from voxels to mm, ``(4, 4)``; ``None`` of a picture, whose sides are 1.
        """
        if affine is None:
            return cls(tuple(spatial), (1.0,) * len(spatial))
        order = np.argsort(io_orientation(affine)[:, 0]).tolist()
        sides = np.linalg.norm(affine[:3, :3], axis=0).tolist()
        return cls(tuple(spatial[axis] for axis in order), tuple(sides[axis] for axis in order))


@dataclass(frozen=True, eq=False)
class Geometry:
    """The way from a case's ``own`` grid to ``whole``, which has at least the network's field.

    ``turned`` is nibabel's orientation of the own axes. ``resampled`` is the shape in right,
    anterior and superior order with the network's spacing, ``step`` how many own voxels one of its
    voxels is long, and ``before`` how many voxels of padding come before it. ``learned`` is the
    part of ``whole`` that a network learns from: its middle in families whose cases are taken
    whole, and in others everything but the padding.
    """

    own: Grid
    turned: Array
    resampled: Shape
    step: tuple[float, float, float]
    before: Shape
    whole: Grid
    learned: tuple[slice, slice, slice]

    @classmethod
    def of(cls, volume: Volume, family: Family, name: str) -> "Geometry":
        """The geometry of a case of a family.

        Raises:
            ConsiliumError: with the family's spacing it would take more than 2^30 voxels.
        """
        flat = volume.affine is None
        own = (*volume.spatial, 1)[:3]
        affine = np.eye(4) if volume.affine is None else volume.affine
        sides = np.linalg.norm(affine[:3, :3], axis=0)
        turned = RIGHT_ANTERIOR_SUPERIOR if flat else io_orientation(affine)
        order = np.argsort(turned[:, 0])
        shape, spacing = np.array(own)[order], sides[order]
        step, resampled = _step(shape, spacing, family)
        if prod(resampled) > MOST_VOXELS:
            raise ConsiliumError(
                f"The case {name} has {_times(own)} voxels of {_times(np.round(sides, 6))} mm, "
                f"which are {_times(resampled)} of the {_times(spacing * step)} mm that "
                f"{family.name} is resampled to: more than fit into memory. Mend its spacing, or "
                "crop it."
            )
        field = (*family.shape, 1)[:3]
        large = [max(pair) for pair in zip(resampled, field, strict=True)]
        before = [ceil((n - m) / 2) for n, m in zip(large, resampled, strict=True)]
        learned = [slice(at, at + n) for at, n in zip(before, resampled, strict=True)]
        if family.whole:
            starts = [ceil((n - m) / 2) for n, m in zip(large, field, strict=True)]
            learned = [slice(at, at + m) for at, m in zip(starts, field, strict=True)]
        return cls(
            Grid(_three(own), _three_sides(sides), flat),
            turned,
            _three(resampled),
            _three_sides(step),
            _three(before),
            Grid(_three(large), _three_sides(spacing * step), flat),
            (learned[0], learned[1], learned[2]),
        )

    @property
    def grid(self) -> Grid:
        """The grid of the part that a network learns from."""
        sides = [part.stop - part.start for part in self.learned]
        return Grid(_three(sides), self.whole.sides, self.own.flat)

    def image(self, values: Array) -> Floats:
        """Values ``(channels, *own)`` on ``resampled``, interpolated linearly, as float32."""
        return np.stack([self._resample(self._canonical(channel)) for channel in values])

    def mask(self, labels: npt.NDArray[np.uint8], classes: int) -> npt.NDArray[np.uint8]:
        """A mask ``(*own)`` on ``whole``: the label with the largest share of each voxel.

        Where voxels become twice as large, the nearest voxel would be the one on the same side
        everywhere, which would move the mask by half a voxel.
        """
        turned = self._canonical(labels)
        if self._same:
            return self._padded_mask(turned)
        largest = np.zeros(self.resampled, np.float32)
        result = np.zeros(self.resampled, np.uint8)
        for label in range(classes):  # one at a time: a CT is large
            there = turned == label
            if not there.any():
                continue
            share = self._resample(there)
            result[share > largest] = label
            np.maximum(largest, share, out=largest)
        return self._padded_mask(result)

    def padded(self, values: Array, fill: Sequence[float]) -> Array:
        """Values ``(channels, *resampled)`` on ``whole``, with a channel's own value around it.

        ``fill`` has a value for each channel.
        """
        result = np.empty((len(values), *self.whole.shape), values.dtype)
        for channel, value in enumerate(fill):
            result[channel] = value
        result[(slice(None), *self._inside)] = values
        return result

    def back(self, scores: Floats) -> npt.NDArray[np.uint8]:
        """The likeliest class of each own voxel ``(*own)``, from scores ``(classes, *whole)``.

        Scores are interpolated linearly. Those of the learned part alone may be given too; outside
        of them there is background.
        """
        if scores.shape[1:] != self.whole.shape:
            wider = np.zeros((len(scores), *self.whole.shape), np.float32)
            wider[(slice(None), *self.learned)] = scores
            scores = wider
        result: npt.NDArray[np.uint8] = np.zeros(self.own.shape, np.uint8)
        largest = np.full(self.own.shape, -np.inf, np.float32)
        for label, channel in enumerate(scores):
            score = self.back_channel(channel)
            result[score > largest] = label
            np.maximum(largest, score, out=largest)
        return result

    def back_channel(self, values: Floats) -> Floats:
        """Values ``(*whole)`` on the own grid, interpolated linearly, as float32."""
        inside = values[self._inside]
        order = self.turned[:, 0].argsort()
        shape = np.array(self.own.shape)[order]
        inverse = [1 / step for step in self.step]
        back = inside if self._same else _linear(inside, inverse, _three(shape))
        to_own = ornt_transform(RIGHT_ANTERIOR_SUPERIOR, self.turned)
        return np.ascontiguousarray(apply_orientation(back, to_own), np.float32)

    def _padded_mask(self, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        result = np.zeros(self.whole.shape, np.uint8)
        result[self._inside] = labels
        return result

    @property
    def _inside(self) -> tuple[slice, slice, slice]:
        """The place of ``resampled`` in ``whole``."""
        first, second, third = (
            slice(at, at + n) for at, n in zip(self.before, self.resampled, strict=True)
        )
        return first, second, third

    @property
    def _same(self) -> bool:
        return self.step == (1.0, 1.0, 1.0)

    def _canonical(self, values: Array) -> Array:
        shaped = values[..., np.newaxis] if self.own.flat else values
        return np.asarray(apply_orientation(shaped, self.turned))

    def _resample(self, values: Array) -> Floats:
        if self._same:
            return np.ascontiguousarray(values, np.float32)
        return _linear(np.asarray(values, np.float32), self.step, self.resampled)


def _step(shape: Array, spacing: Array, family: Family) -> tuple[Array, Array]:
    """The own voxels that one of the network's is long along each axis, and how many there are."""
    if family.dims == 2:
        wanted = np.array((*family.shape, 1)) if family.whole else shape
        return shape / wanted, wanted
    if family.spacing is None:
        return np.ones(3), shape
    step = np.array(family.spacing) / spacing
    step = np.where(np.abs(step - 1) <= SAME_SPACING, 1.0, step)
    # No more than there is, but a size that is whole but for rounding is whole.
    return step, np.maximum(np.floor(shape / step + ALMOST).astype(int), 1)


def _linear(values: Floats, step: Sequence[float], shape: Shape) -> Floats:
    """Interpolate along each axis, with both grids' middles at one place; edges are continued."""
    middle = (np.array(values.shape) - 1) / 2 - np.array(step) * (np.array(shape) - 1) / 2
    result: Floats = affine_transform(
        values, np.diag(step), middle, shape, np.float32, order=1, mode="nearest", prefilter=False
    )
    return result


def _three(values: Sequence[int] | Array) -> Shape:
    first, second, third = (int(value) for value in values)
    return first, second, third


def _three_sides(values: Sequence[float] | Array) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _times(values: Sequence[float] | Array) -> str:
    return "x".join(f"{value:g}" for value in values)
