"""One plan for all sites from what was counted of their images: voxels, patch, batch, network.

The rules are nnU-Net's (Isensee et al. 2021, Nature Methods 18, Supplementary Note 2), applied to
counts instead of to a list of cases; what differs is said where it does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, prod
from typing import Literal

from federated.errors import ConsiliumError
from federated.planning.fingerprint import Fingerprint
from federated.planning.topology import LEAST_SIDE, WIDTH, Sides, Topology, plan_topology

Normalisation = Literal["window", "zscore", "unit"]

# A spacing or a shape that is so much longer along one axis than along another is anisotropic.
ANISOTROPIC = 3.0
# Of an anisotropic axis, the quantile of its spacings that is taken in place of the median.
FINE = 0.1
# A patch has at most as many voxels as a cube of such a side, or a square.
LARGEST = {2: 2048, 3: 256}
# A step sees at least so many patches, and at most such a part of all voxels that there are.
LEAST_BATCH = 2
MOST_OF_ALL = 0.05
# Between which quantiles CT is clipped.
WINDOW = (0.005, 0.995)


@dataclass(frozen=True)
class Plan:
    """What a network takes, and its levels.

    Attributes:
        spacing: the sides of a voxel in mm that volumes are resampled to, to the right, anterior
            and superior; ``None`` for pictures.
        patch: the sides in voxels of what the network sees at once.
        whole: whether whole cases fit into that.
        batch_size: how many patches a step takes.
        normalisation: ``window`` clips CT to ``window``, ``zscore`` gives each image zero mean and
            unit variance, and ``unit`` is of pictures, between their darkest and brightest value.
        window: in Hounsfield units, for CT alone.
        topology: the levels of the network.
        memory: about how many bytes of features a step keeps.
    """

    spacing: tuple[float, float, float] | None
    patch: Sides
    whole: bool
    batch_size: int
    normalisation: Normalisation
    window: tuple[float, float] | None
    topology: Topology
    memory: int


@dataclass(frozen=True)
class Limits:
    """What a plan has to keep to: bytes of memory for features, and the width of the finest level.

    ``ct`` says that intensities are Hounsfield units. ``spacing`` in mm is stated already, where it
    is not ``None``.
    """

    memory: int
    ct: bool = False
    width: int = WIDTH
    spacing: tuple[float, float, float] | None = None


def plan(found: Fingerprint, limits: Limits) -> Plan:
    """The plan for all cases that were counted.

    Raises:
        ConsiliumError: nothing was counted, or not even two of the smallest patches fit.
    """
    scheme = found.scheme
    if not found.cases:
        raise ConsiliumError(
            "No case was counted at any site, so there is nothing to plan a network by. Check the "
            "sites' data with `consilium data check`."
        )
    spacing = (limits.spacing or target_spacing(found)) if scheme.dims == 3 else None
    sides = spacing or (1.0,) * scheme.dims
    median = _median_shape(found, sides)
    patch = _first_patch(median, sides)
    topology, patch = plan_topology(patch, sides, limits.width)
    classes = scheme.classes
    while topology.memory(patch, classes, LEAST_BATCH) > limits.memory:
        topology, patch = _smaller(patch, median, topology, sides, limits)
    fitting = limits.memory // topology.memory(patch, classes)
    voxels = prod(median) * found.cases
    seen = max(LEAST_BATCH, round(MOST_OF_ALL * voxels / prod(patch)))
    batch = max(LEAST_BATCH, min(fitting, seen))
    window = window_of(found) if limits.ct else None
    return Plan(
        spacing,
        patch,
        all(p >= m for p, m in zip(patch, median, strict=True)),
        batch,
        "window" if window else "zscore" if scheme.dims == 3 else "unit",
        window,
        topology,
        topology.memory(patch, classes, batch),
    )


def target_spacing(found: Fingerprint) -> tuple[float, float, float]:
    """The sides of a voxel in mm that all volumes are resampled to.

    That is the median of each axis. Where one axis is more than three times as long as another and
    has less than a third of its voxels, slices are far apart, and the tenth percentile of that axis
    is taken, so that few cases lose slices; but no less than the longest of the others.
    """
    spacing, sizes = list(found.medians("spacing")), found.medians("size")
    worst = max(range(3), key=lambda axis: spacing[axis])
    others = [axis for axis in range(3) if axis != worst]
    long = spacing[worst] > ANISOTROPIC * min(spacing[axis] for axis in others)
    few = sizes[worst] * ANISOTROPIC < min(sizes[axis] for axis in others)
    if long and few:
        fine = found.quantile("spacing", FINE, worst)
        spacing[worst] = max(fine, *(spacing[axis] for axis in others))
    return spacing[0], spacing[1], spacing[2]


def _median_shape(found: Fingerprint, sides: Sequence[float]) -> Sides:
    """The median number of voxels along each axis, once resampled.

    The median of fields of view divided by one spacing is the median of the shapes.
    """
    if found.scheme.dims == 2:
        reach: Sequence[float] = found.medians("size")
    else:
        reach = found.medians("reach")
    return tuple(max(1, round(mm / side)) for mm, side in zip(reach, sides, strict=True))


def _first_patch(median: Sides, sides: Sequence[float]) -> Sides:
    """As many voxels as a cube of the largest side, of equal sides in mm, within the median case.

    What an axis does not need of it, because cases are shorter, is left out.
    """
    dims = len(median)
    length = (LARGEST[dims] ** dims * prod(sides)) ** (1 / dims)
    wanted = [max(1, round(length / side)) for side in sides]
    return tuple(min(n, most) for n, most in zip(wanted, median, strict=True))


def _smaller(
    patch: Sides, median: Sides, topology: Topology, sides: Sequence[float], limits: Limits
) -> tuple[Topology, Sides]:
    """A patch that is shorter along the axis which covers most of the median case."""
    order = sorted(range(len(patch)), key=lambda a: patch[a] / median[a], reverse=True)
    for axis in order:
        step = topology.divisors[axis]
        shorter = list(patch)
        shorter[axis] -= step
        if shorter[axis] < 2 * LEAST_SIDE:
            continue
        found, padded = plan_topology(shorter, sides, limits.width)
        if prod(padded) < prod(patch):
            return found, padded
    raise ConsiliumError(
        f"Not even two patches of {'x'.join(map(str, patch))} voxels fit into "
        f"{limits.memory / 1e9:.3g} GB of features with {limits.width} channels at the finest "
        "level. Allow more with model.memory_gb, or fewer channels with model.width."
    )


def window_of(found: Fingerprint) -> tuple[float, float] | None:
    """Between which Hounsfield units CT is clipped, by the voxels of any class."""
    low, high = (found.quantile("intensity", share) for share in WINDOW)
    return None if isnan(low) or not low < high else (low, high)
