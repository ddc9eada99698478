"""The shape of a U-Net that fits a patch: how often each axis is halved, with which kernels.

As nnU-Net plans it (Isensee et al. 2021, "nnU-Net: a self-configuring method for deep
learning-based biomedical image segmentation", Nature Methods 18, Supplementary Note 2): an axis is
halved while a patch has at least 8 voxels along it, 12 where no other axis is halved with it, and
once its voxels are less than twice as long as the shortest; a kernel covers 3 voxels along an axis
from the same level on, and along all of them at the coarsest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

# A side of the coarsest features has at least so many voxels.
LEAST_SIDE = 4
# Voxels twice as long as the shortest are not halved, nor covered by a kernel.
ANISOTROPIC = 2.0
# Channels at the finest level, at most at any, and convolutions at each.
WIDTH = 32
WIDEST = {2: 512, 3: 320}
CONVOLUTIONS = 2
# A value is kept after each convolution, normalisation and activation for the way back, in 4 bytes.
KEPT, BYTES = 3, 4

Sides = tuple[int, ...]


@dataclass(frozen=True)
class Topology:
    """The levels of a U-Net, the finest first.

    ``features`` are the channels of each, ``kernels`` the sides of its convolutions and ``strides``
    by how much each axis is divided on the way to it, 1 for all of the first.
    """

    features: tuple[int, ...]
    kernels: tuple[Sides, ...]
    strides: tuple[Sides, ...]

    @property
    def divisors(self) -> Sides:
        """What the sides of a patch have to be multiples of."""
        return tuple(prod(axis) for axis in zip(*self.strides, strict=True))

    def memory(self, patch: Sequence[int], classes: int, batch_size: int = 1) -> int:
        """About how many bytes a training step keeps of its features for the way back.

        Args:
            patch: the sides of a patch.
            classes: how many classes are read out.
            batch_size: how many patches a step takes.
        """
        voxels, levels = [], [float(side) for side in patch]
        for stride in self.strides:
            levels = [n / s for n, s in zip(levels, stride, strict=True)]
            voxels.append(prod(levels))
        down = sum(
            n * width * CONVOLUTIONS * KEPT for n, width in zip(voxels, self.features, strict=True)
        )
        # Up: what is joined of both sides, then convolutions, then the classes.
        up = sum(
            n * (width * (2 + CONVOLUTIONS * KEPT) + 2 * classes)
            for n, width in zip(voxels[:-1], self.features[:-1], strict=True)
        )
        return round(BYTES * batch_size * (down + up))


def plan_topology(
    patch: Sequence[int], spacing: Sequence[float], width: int = WIDTH
) -> tuple[Topology, Sides]:
    """The levels of a U-Net for a patch, and the patch padded to sides that can be divided so.

    Args:
        patch: its sides in voxels.
        spacing: the sides of a voxel, in mm.
        width: the channels of the finest level.
    """
    dims = len(patch)
    sides, lengths = list(patch), [float(length) for length in spacing]
    kernel: Sides = (1,) * dims
    kernels: list[Sides] = []
    strides: list[Sides] = [(1,) * dims]
    while halved := _halved(sides, lengths):
        kernel = tuple(
            3 if k == 3 or length / min(lengths) < ANISOTROPIC else 1
            for k, length in zip(kernel, lengths, strict=True)
        )
        kernels.append(kernel)
        strides.append(tuple(2 if axis in halved else 1 for axis in range(dims)))
        for axis in halved:
            sides[axis], lengths[axis] = ceil(sides[axis] / 2), lengths[axis] * 2
    kernels.append((3,) * dims)
    most = WIDEST[dims]
    features = tuple(min(width * 2**level, most) for level in range(len(strides)))
    topology = Topology(features, tuple(kernels), tuple(strides))
    padded = (-(-n // d) * d for n, d in zip(patch, topology.divisors, strict=True))
    return topology, tuple(padded)


def _halved(sides: Sequence[int], lengths: Sequence[float]) -> list[int]:
    """The axes that are halved next; none at the coarsest level."""
    large = [axis for axis, side in enumerate(sides) if side >= 2 * LEAST_SIDE]
    if not large:
        return []
    shortest = min(lengths[axis] for axis in large)
    halved = [axis for axis in large if lengths[axis] / shortest < ANISOTROPIC]
    alone = len(halved) == 1 and sides[halved[0]] < 3 * LEAST_SIDE
    return [] if alone else halved
