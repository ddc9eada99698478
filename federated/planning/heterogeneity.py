"""How far a site's cases are from those of all sites together: of which classes, and how they look.

Each site works it out for itself from its own counts and those of all, which it is told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import isfinite, sqrt
from typing import Any

import numpy as np

from federated.errors import ConsiliumError
from federated.planning.bins import Counts, Floats
from federated.planning.fingerprint import BINS, INTENSITIES, SHARES, Fingerprint

# Decimals that are told: more would say more of single cases, and nothing of sites.
DECIMALS = 3


@dataclass(frozen=True)
class Distances:
    """How far a site is from all sites together; ``None`` where one of the two has no such counts.

    Attributes:
        labels: the Jensen-Shannon distance of the shares of classes, from 0 to 1.
        sizes: how much larger or smaller what is labelled is: the 1-Wasserstein distance of the
            logarithms to base 10 of the parts of a case's voxels, of the class that differs most.
        appearance: the 1-Wasserstein distance of the intensities, in their own units, of the
            modality that differs most in ``appearance_in_deviations``.
        appearance_in_deviations: the same over the standard deviation of all sites' intensities.
        spacing: the 1-Wasserstein distance of the sides of voxels in mm, of the axis that differs
            most.
    """

    labels: float | None
    sizes: float | None
    appearance: float | None
    appearance_in_deviations: float | None
    spacing: float | None

    def to_json(self) -> dict[str, float | None]:
        """The distances as plain values."""
        return asdict(self)

    @staticmethod
    def from_json(value: Any, site: str) -> "Distances":
        """What :meth:`to_json` gave; ``site`` is who has sent it.

        Raises:
            ConsiliumError: it is something else, or a number that no distance has.
        """
        names = [field.name for field in fields(Distances)]
        good = isinstance(value, Mapping) and sorted(value) == sorted(names)
        good = good and all(
            each is None or (type(each) in (int, float) and isfinite(each) and each >= 0)
            for each in value.values()
        )
        if not good or (value["labels"] or 0) > 1:
            raise ConsiliumError(
                f"What {site} tells of how far its cases are from those of all is refused: these "
                "are no distances."
            )
        return Distances(**{name: value[name] for name in names})


def distances(own: Fingerprint, pooled: Fingerprint) -> Distances:
    """How far a site's fingerprint is from that of all sites."""
    rows = range(len(pooled.counts["intensity"]))
    looks = [_appearance(own, pooled, row) for row in rows]
    known = [each for each in looks if each is not None]
    furthest = max(known, key=lambda pair: pair[1]) if known else (None, None)
    return Distances(
        labels=_rounded(_label_shift(own, pooled)),
        sizes=_rounded(_largest(own, pooled, "share", np.log10(SHARES.values))),
        appearance=_rounded(furthest[0]),
        appearance_in_deviations=_rounded(furthest[1]),
        spacing=_rounded(_largest(own, pooled, "spacing", BINS["spacing"].values)),
    )


def jensen_shannon(one: Counts, other: Counts) -> float | None:
    """The Jensen-Shannon distance of two distributions that are counted, from 0 to 1.

    It is the square root of their divergence to base 2 (Endres and Schindelin 2003, IEEE
    Transactions on Information Theory 49); ``None`` where one counts nothing.
    """
    if not one.sum() or not other.sum():
        return None
    p, q = one / one.sum(), other / other.sum()
    middle = (p + q) / 2
    divergence = sum(
        float(np.sum(each[each > 0] * np.log2(each[each > 0] / middle[each > 0])))
        for each in (p, q)
    )
    return sqrt(min(1.0, max(0.0, divergence / 2)))


def wasserstein(one: Counts, other: Counts, values: Floats) -> float | None:
    """The 1-Wasserstein distance of two distributions that are counted in bins.

    Args:
        one: counts ``(bins,)``.
        other: counts ``(bins,)``.
        values: the value that stands for each bin, rising.

    Returns:
        The distance in units of the values: the area between the two distribution functions;
        ``None`` where one counts nothing.
    """
    if not one.sum() or not other.sum():
        return None
    gap = np.abs(np.cumsum(one) / one.sum() - np.cumsum(other) / other.sum())
    return float(np.sum(gap[:-1] * np.diff(values)))


def quantity_skew(cases: Sequence[int]) -> float:
    """The coefficient of variation of the sites' numbers of cases; 0 where all have as many."""
    numbers = np.asarray(cases, np.float64)
    return float(numbers.std() / numbers.mean()) if numbers.any() else 0.0


def _label_shift(own: Fingerprint, pooled: Fingerprint) -> float | None:
    # Nearly every case has background: it says nothing of which classes there are.
    start = 1 if own.scheme.voxelwise else 0
    return jensen_shannon(own.counts["with_class"][start:], pooled.counts["with_class"][start:])


def _appearance(own: Fingerprint, pooled: Fingerprint, row: int) -> tuple[float, float] | None:
    counts = own.counts["intensity"][row], pooled.counts["intensity"][row]
    found = wasserstein(*counts, INTENSITIES.values)
    _, deviation = pooled.mean_and_deviation(row)
    return None if found is None or not deviation > 0 else (found, found / deviation)


def _largest(own: Fingerprint, pooled: Fingerprint, name: str, values: Floats) -> float | None:
    if name not in pooled.counts:
        return None
    pairs = zip(own.counts[name], pooled.counts[name], strict=True)
    found = [wasserstein(*pair, values) for pair in pairs]
    return max((each for each in found if each is not None), default=None)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)
