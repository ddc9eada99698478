"""What is counted of a site's images, so that a federation can be planned without seeing one.

All of it are counts in bins that are the same everywhere, so that the fingerprints of sites add up
to that of all their cases together, exactly (:mod:`federated.planning.bins`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from federated.data.folders.geometry import CaseGrid
from federated.data.folders.volume import Volume
from federated.errors import ConsiliumError
from federated.planning.bins import Bins, Counts, Geometric, Symmetric, count, quantile

# Sides of voxels and of images in mm, and their numbers of voxels.
SIDES, REACHES, SIZES = Geometric(0.01, 100), Geometric(1, 5000), Geometric(1, 2**14)
INTENSITIES = Symmetric(1e6)
# The part of a case's voxels that are of one class.
SHARES = Geometric(1e-8, 1)
# So many voxels of a case are counted at most, evenly spaced, so that none outweighs the others.
VOXELS = 10_000

Kind = Literal["spacing", "reach", "size", "intensity", "share"]
BINS: Mapping[Kind, Bins] = {
    "spacing": SIDES,
    "reach": REACHES,
    "size": SIZES,
    "intensity": INTENSITIES,
    "share": SHARES,
}


@dataclass(frozen=True)
class Scheme:
    """What is counted; it follows from the description of a data set alone.

    Attributes:
        dims: the spatial dimensions of an image.
        modalities: how many images a case has.
        classes: how many classes; those of a voxel with the background first, where ``voxelwise``.
        voxelwise: whether voxels have classes, and not whole cases.
    """

    dims: Literal[2, 3]
    modalities: int
    classes: int
    voxelwise: bool

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each table of counts, in the order of :attr:`Fingerprint.vector`."""
        rows: dict[Kind, int] = {"size": self.dims, "intensity": self.modalities}
        if self.dims == 3:
            rows |= {"spacing": 3, "reach": 3}
        if self.voxelwise:
            rows["share"] = self.classes - 1
        tables = {str(kind): (rows[kind], bins.size) for kind, bins in BINS.items() if kind in rows}
        return {"cases": (), "with_class": (self.classes,), **tables}

    @property
    def size(self) -> int:
        """How many numbers a fingerprint has."""
        return sum(int(np.prod(shape)) for shape in self.shapes.values())

    def most(self, cases: int) -> int:
        """The largest number in the fingerprint of so many cases."""
        return cases * VOXELS


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Counts over some cases, by the names of :attr:`Scheme.shapes`, all of them int64.

    ``cases`` is their number, and ``with_class`` ``(classes,)`` how many have each class. The rest
    are counts in bins, ``(rows, bins)``: ``spacing`` (mm), ``reach`` (the field of view in mm) and
    ``size`` (voxels) have a row for each axis, to the right, anterior and superior for volumes and
    height and width for pictures; ``intensity`` has one for each modality, with up to 10,000 voxels
    of each case, those of any class but the background where voxels have classes; and ``share``,
    the part of a case's voxels that are of a class, one for each class but the background, of the
    cases that have it.
    """

    scheme: Scheme
    counts: Mapping[str, Counts]

    @classmethod
    def empty(cls, scheme: Scheme) -> "Fingerprint":
        """The fingerprint of no cases."""
        return cls(scheme, {k: np.zeros(shape, np.int64) for k, shape in scheme.shapes.items()})

    @classmethod
    def read(cls, scheme: Scheme, vector: Counts) -> "Fingerprint":
        """The fingerprint whose :attr:`vector` ``(scheme.size,)`` is given.

        Raises:
            ConsiliumError: it has another length, or a number below 0.
        """
        if vector.shape != (scheme.size,) or (vector < 0).any():
            raise ConsiliumError(
                f"What was summed of the sites' images has the shape {vector.shape} and "
                f"numbers from {vector.min(initial=0)}; {scheme.size} counts are expected. All "
                "parties have to run the same program on the same description of the data."
            )
        ends = np.cumsum([int(np.prod(shape)) for shape in scheme.shapes.values()])
        parts = np.split(vector.astype(np.int64), ends[:-1])
        shapes = zip(scheme.shapes.items(), parts, strict=True)
        return cls(scheme, {name: part.reshape(shape) for (name, shape), part in shapes})

    @property
    def vector(self) -> Counts:
        """All counts in one row, ``(scheme.size,)``, which add up over sites."""
        return np.concatenate([self.counts[name].reshape(-1) for name in self.scheme.shapes])

    @property
    def cases(self) -> int:
        """How many cases were counted."""
        return int(self.counts["cases"])

    def __add__(self, other: "Fingerprint") -> "Fingerprint":
        """The fingerprint of the cases of both."""
        return Fingerprint.read(self.scheme, self.vector + other.vector)

    def quantile(self, kind: Kind, share: float, row: int = 0) -> float:
        """The quantile of what was counted; NaN where nothing was."""
        return quantile(BINS[kind], self.counts[kind][row], share)

    def medians(self, kind: Kind) -> tuple[float, ...]:
        """The median of each row."""
        return tuple(self.quantile(kind, 0.5, row) for row in range(len(self.counts[kind])))

    def mean_and_deviation(self, row: int = 0) -> tuple[float, float]:
        """The mean and the standard deviation of the intensities of a modality; NaN without any."""
        counted = self.counts["intensity"][row]
        total = counted.sum()
        if not total:
            return float("nan"), float("nan")
        mean = float(counted @ INTENSITIES.values / total)
        return mean, float(np.sqrt(counted @ (INTENSITIES.values - mean) ** 2 / total))


def fingerprint_of(
    scheme: Scheme, images: Sequence[Volume], labels: npt.NDArray[Any] | None
) -> Fingerprint:
    """The fingerprint of one case.

    Args:
        scheme: what is counted.
        images: a volume for each modality, on one grid.
        labels: the class of each voxel ``(*spatial)``, or the classes of the case ``(n,)``; of no
            class where ``None``.
    """
    first = images[0]
    grid = CaseGrid.of(first.spatial, first.affine)
    sides, shape = grid.spacing, grid.shape
    counts: dict[str, Counts] = {
        "cases": np.array(1, np.int64),
        "with_class": _present(labels, scheme.classes),
        "size": np.stack([count(SIZES, n) for n in shape]),
    }
    if scheme.dims == 3:
        counts["spacing"] = np.stack([count(SIDES, side) for side in sides])
        pairs = zip(sides, shape, strict=True)
        counts["reach"] = np.stack([count(REACHES, side * n) for side, n in pairs])
    mask = labels if scheme.voxelwise else None
    counts["intensity"] = np.stack([_intensities(image, mask) for image in images])
    if scheme.voxelwise:
        counts["share"] = _shares(labels, scheme.classes)
    return Fingerprint(scheme, counts)


def sum_of(scheme: Scheme, fingerprints: Sequence[Fingerprint]) -> Fingerprint:
    """The fingerprint of all cases together."""
    vectors = [each.vector for each in fingerprints]
    return Fingerprint.read(scheme, np.sum([Fingerprint.empty(scheme).vector, *vectors], axis=0))


def _present(labels: npt.NDArray[Any] | None, classes: int) -> Counts:
    if labels is None:
        return np.zeros(classes, np.int64)
    found = np.bincount(labels.reshape(-1).astype(np.int64), minlength=classes)[:classes]
    return (found > 0).astype(np.int64)


def _intensities(image: Volume, mask: npt.NDArray[Any] | None) -> Counts:
    channels = image.values.reshape(len(image.values), -1)
    values = channels[:, mask.reshape(-1) > 0] if mask is not None else channels
    flat = values.reshape(-1)
    if flat.size > VOXELS:
        flat = flat[np.linspace(0, flat.size - 1, VOXELS).astype(np.int64)]
    return count(INTENSITIES, flat)


def _shares(labels: npt.NDArray[Any] | None, classes: int) -> Counts:
    result = np.zeros((classes - 1, SHARES.size), np.int64)
    if labels is None:
        return result
    voxels = np.bincount(labels.reshape(-1).astype(np.int64), minlength=classes)
    for label in range(1, classes):
        if voxels[label]:
            result[label - 1] = count(SHARES, voxels[label] / labels.size)
    return result
