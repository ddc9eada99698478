"""What is counted of a site's images, so that a federation can be planned without seeing one.

All of it are counts in bins that are the same everywhere, so that the fingerprints of sites add up
to that of all their cases together, exactly (:mod:`federated.planning.bins`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from federated.errors import ConsiliumError
from federated.planning.attributes import ATTRIBUTE_BINS, attribute_place
from federated.planning.bins import Bins, Counts, Geometric, Symmetric, count, quantile
from federated.planning.feature_sums import STEPS as FEATURE_STEPS
from federated.planning.feature_sums import FeatureScheme
from federated.planning.landmarks import STEPS as LANDMARK_STEPS
from federated.planning.landmarks import case_landmarks, landmark_faults
from federated.settings.harmonisation import PERCENTILES

if TYPE_CHECKING:
    from federated.data.folders.volume import Volume

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
        spaced: whether volumes have a place in the world, and so voxels in mm.
        several: whether a whole case may have several classes.
        attributes: which of age, sex and scanner are counted.
        landmarks: whether the landmarks of intensities are summed, for a standard scale.
        features: which derived features are summed, for ComBat; ``None`` for none.
    """

    dims: Literal[2, 3]
    modalities: int
    classes: int
    voxelwise: bool
    spaced: bool = True
    several: bool = False
    attributes: tuple[str, ...] = ()
    landmarks: bool = False
    features: FeatureScheme | None = None

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each table of counts, in the order of :attr:`Fingerprint.vector`."""
        rows: dict[Kind, int] = {"size": self.dims, "intensity": self.modalities}
        if self.has_spacing:
            rows |= {"spacing": 3, "reach": 3}
        if self.voxelwise:
            rows["share"] = self.classes - 1
        tables = {str(kind): (rows[kind], bins.size) for kind, bins in BINS.items() if kind in rows}
        attributes = {name: (len(ATTRIBUTE_BINS[name]),) for name in self.attributes}
        harmonisation: dict[str, tuple[int, ...]] = {}
        if self.landmarks:
            harmonisation["landmarks"] = (self.modalities, len(PERCENTILES))
        if self.features is not None:
            harmonisation["features"] = (self.features.size,)
        counted = {"cases": (), "with_class": (self.classes,)}
        return counted | tables | attributes | harmonisation

    @property
    def has_spacing(self) -> bool:
        """Whether voxels of images have sides in mm."""
        return self.dims == 3 and self.spaced

    @property
    def size(self) -> int:
        """How many numbers a fingerprint has."""
        return sum(int(np.prod(shape)) for shape in self.shapes.values())

    def most(self, name: str, cases: int) -> int:
        """The largest number in the table ``name`` of a fingerprint of so many cases."""
        steps = {"intensity": VOXELS, "landmarks": LANDMARK_STEPS, "features": FEATURE_STEPS}
        return cases * steps.get(name, 1)

    def norm(self, name: str) -> float:
        """The largest L2 norm of what one case adds to the table ``name``.

        Each row of a table counts a case once, and of the intensities 10,000 voxels, at most; in
        ``with_class`` it is counted once for each of its classes.

        Raises:
            ValueError: there is no such bound: what is summed of features is centred within a site,
                so that a case changes what the others add; and landmarks with noise do not rise.
        """
        if name in ("landmarks", "features"):
            raise ValueError(f"{name} of one case have no bound that noise could be made for")
        if name == "with_class":
            return sqrt(self.classes if self.voxelwise or self.several else 1)
        shape = self.shapes[name]
        return self.most(name, 1) * sqrt(shape[0] if len(shape) == 2 else 1)


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Counts over some cases, by the names of :attr:`Scheme.shapes`, all of them int64.

    ``cases`` is their number, and ``with_class`` ``(classes,)`` how many have each class. The rest
    are counts in bins, ``(rows, bins)``: ``spacing`` (mm), ``reach`` (the field of view in mm) and
    ``size`` (voxels) have a row for each axis, to the right, anterior and superior for volumes and
    height and width for pictures; ``intensity`` has one for each modality, with up to 10,000 voxels
    of each case, those of any class but the background where voxels have classes; and ``share``,
    the part of a case's voxels that are of a class, one for each class but the background, of the
    cases that have it. ``age``, ``sex`` and ``scanner`` count the cases of each bin of
    :data:`~federated.planning.attributes.ATTRIBUTE_BINS`. ``landmarks`` ``(modalities, 11)`` and
    ``features`` ``(size,)`` are sums in whole steps, see :mod:`federated.planning.landmarks` and
    :mod:`federated.planning.feature_sums`.
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
    scheme: Scheme,
    images: "Sequence[Volume]",
    labels: npt.NDArray[Any] | None,
    attributes: Mapping[str, str] | None = None,
) -> Fingerprint:
    """The fingerprint of one case.

    Args:
        scheme: what is counted.
        images: a volume for each modality, on one grid.
        labels: the class of each voxel ``(*spatial)``, or the classes of the case ``(n,)``; of no
            class where ``None``.
        attributes: the cells of a table with the case's age, sex and scanner, as far as known.

    Raises:
        ValueError: it has several classes where the scheme says that a case has one; more would be
            counted of it than noise is made for.
    """
    from federated.data.folders.geometry import CaseGrid

    if not scheme.voxelwise and not scheme.several and labels is not None and labels.size > 1:
        raise ValueError(f"a case of {labels.size} classes in a scheme of one")
    first = images[0]
    grid = CaseGrid.of(first.spatial, first.affine)
    sides, shape = grid.spacing, grid.shape
    counts: dict[str, Counts] = {
        "cases": np.array(1, np.int64),
        "with_class": _present(labels, scheme.classes),
        "size": np.stack([count(SIZES, n) for n in shape]),
    }
    if scheme.has_spacing:
        counts["spacing"] = np.stack([count(SIDES, side) for side in sides])
        pairs = zip(sides, shape, strict=True)
        counts["reach"] = np.stack([count(REACHES, side * n) for side, n in pairs])
    mask = labels if scheme.voxelwise else None
    counts["intensity"] = np.stack([_intensities(image, mask) for image in images])
    if scheme.voxelwise:
        counts["share"] = _shares(labels, scheme.classes)
    for name in scheme.attributes:
        place = attribute_place(name, (attributes or {}).get(name, ""))
        counts[name] = np.zeros(len(ATTRIBUTE_BINS[name]), np.int64)
        counts[name][place] = 1
    if scheme.landmarks:
        counts["landmarks"] = case_landmarks([image.values for image in images], first.name)
    if scheme.features is not None:
        # Of a site's cases together: what is centred within the site is not of one case.
        counts["features"] = np.zeros(scheme.features.size, np.int64)
    return Fingerprint(scheme, counts)


def refuse_impossible(found: Fingerprint, cases: int) -> None:
    """Refuse sums of exact counts that so many cases cannot have.

    A single site can still count its own cases wrongly; what is refused are counts that no cases
    have, as of a site that sends random numbers or counts for others too.

    Raises:
        ConsiliumError: the number of cases is another; or a row that counts each case once does not
            add up to it, a class is of more cases than there are, or voxels are of more cases.
    """
    counts, wrong = found.counts, []
    if found.cases != cases:
        wrong.append(f"it is of {found.cases} cases, and the sites in it have {cases}")
    for name in ("spacing", "reach", "size", *found.scheme.attributes):
        rows = counts[name].reshape(-1, counts[name].shape[-1]) if name in counts else ()
        if any(int(row.sum()) != found.cases for row in rows):
            wrong.append(f"its counts of {name} are not of {found.cases} cases")
    if int(counts["with_class"].max(initial=0)) > found.cases:
        wrong.append("a class is of more cases than there are")
    if int(counts["intensity"].sum(axis=1).max(initial=0)) > found.cases * VOXELS:
        wrong.append("it has voxels of more cases than there are")
    shares = counts.get("share")
    if shares is not None and (shares.sum(axis=1) > counts["with_class"][1:]).any():
        wrong.append("more cases have voxels of a class than have the class")
    if "landmarks" in counts and (fault := landmark_faults(counts["landmarks"], found.cases)):
        wrong.append(f"of its landmarks, {fault}")
    if "features" in counts and (
        counts["features"][0] != found.cases
        or counts["features"].max() > found.scheme.most("features", found.cases)
    ):
        wrong.append(f"its features are not of {found.cases} cases")
    if wrong:
        raise ConsiliumError(
            f"The sum of what was counted of the sites' images is refused: {'; '.join(wrong)}. A "
            "site has sent counts that its cases cannot have; which one, nobody can tell of a sum. "
            "Nothing is made of it. Find the site by a run without it."
        )


def with_features(found: Fingerprint, sums: Counts) -> Fingerprint:
    """The same fingerprint with the sums ``(size,)`` of its cases' features."""
    return Fingerprint(found.scheme, {**found.counts, "features": sums})


def sum_of(scheme: Scheme, fingerprints: Sequence[Fingerprint]) -> Fingerprint:
    """The fingerprint of all cases together."""
    vectors = [each.vector for each in fingerprints]
    return Fingerprint.read(scheme, np.sum([Fingerprint.empty(scheme).vector, *vectors], axis=0))


def _present(labels: npt.NDArray[Any] | None, classes: int) -> Counts:
    if labels is None:
        return np.zeros(classes, np.int64)
    found = np.bincount(labels.reshape(-1).astype(np.int64), minlength=classes)[:classes]
    return (found > 0).astype(np.int64)


def _intensities(image: "Volume", mask: npt.NDArray[Any] | None) -> Counts:
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
