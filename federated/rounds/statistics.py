"""What is counted of sites' cases in a run for statistics, with which noise, within which bounds.

Each site adds discrete Gaussian noise of its own to its own counts, so that they are private
whatever becomes of them, under every protection and whoever colludes. A discrete Gaussian of
standard deviation σ on whole numbers has the Rényi divergences of the Gaussian at most (Canonne,
Kamath and Steinke 2020, arXiv 2004.00010, Proposition 5), so that it is accounted for as that.

What a patient adds to a table of counts has at most the norm Δ = m·Δ₁, of m cases with Δ₁ each
(``Scheme.norm``). Of T tables each gets noise of σ = z·Δ·√T, which all together are the Gaussian
mechanism with the noise multiplier z, whichever patient is added or taken away.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np

from federated.configuration.experiment import Experiment
from federated.data.dataset import DatasetInfo
from federated.data.family_of import family_of
from federated.data.folders.harmonised_family import harmonise_fault
from federated.data.labelling import LABELLINGS
from federated.planning.attributes import ATTRIBUTE_BINS
from federated.planning.bins import Counts
from federated.planning.feature_sums import FeatureScheme
from federated.planning.fingerprint import Scheme
from federated.privacy.accounting import Release, noise_multiplier_for
from federated.privacy.discrete_gaussian import TAIL, discrete_normal
from federated.privacy.noise import SecretRandom
from federated.protection.digits import Bounds
from federated.settings.sections import Told


def told_of(experiment: Experiment) -> Told:
    """What sites tell in a run of an experiment for statistics."""
    if experiment.statistics.epsilon is not None:
        return "noised"
    hidden = experiment.protection.stated("hides_updates_from") or ()
    return "sums" if "coordinator" in hidden else "clear"


def groups_of(info: DatasetInfo) -> tuple[str, ...]:
    """What cases are counted by: their classes or labels, or parts of the range of a number."""
    if info.task not in LABELLINGS:
        return info.classes
    return LABELLINGS[info.task].groups(info)


def scheme_of(experiment: Experiment, info: DatasetInfo) -> Scheme:
    """What is counted of an experiment's cases; it follows from what everyone knows of the data."""
    described = experiment.data.described
    family = family_of(experiment.data.dataset, described)
    modalities = len(family.modalities) if family else 1
    spaced, attributes = family is not None, tuple[str, ...]()
    if described is not None:
        modalities = len(described.modalities)
        spaced = described.kind == "volumes" and described.layout != "arrays"
        attributes = tuple(ATTRIBUTE_BINS) if described.layout == "table" else ()
    # Sums of real numbers, for which there is no noise: a site that adds some tells none of them.
    exact = experiment.statistics.epsilon is None
    features = described.features if described is not None and exact else None
    return Scheme(
        dims=info.dims,
        modalities=modalities,
        classes=max(1, len(groups_of(info))),
        voxelwise=info.task == "segmentation",
        spaced=spaced,
        several=info.task == "multilabel",
        attributes=attributes,
        landmarks=exact and not harmonise_fault(family, "percentiles", None),
        features=FeatureScheme.of(features) if features else None,
    )


def statistics_release(experiment: Experiment) -> Release | None:
    """The release of a site's counts, for one patient; ``None`` for counts without noise.

    Raises:
        ConsiliumError: no noise is enough.
    """
    settings = experiment.statistics
    if settings.epsilon is None:
        return None
    one = (Release(1.0, 1.0, 1),)
    noise = noise_multiplier_for(settings.epsilon, settings.delta, one, "rdp")
    return Release(noise, 1.0, 1)


def case_release(experiment: Experiment) -> Release | None:
    """The same release for one case, of which a patient has some: as ledgers enter it."""
    release = statistics_release(experiment)
    if release is None:
        return None
    most = experiment.statistics.cases_per_patient
    return Release(most * release.noise_multiplier, 1.0, 1)


def kept_cases(patients: Sequence[str] | None, cases: int, most: int) -> tuple[int, ...]:
    """The places of the cases that count where each patient may have ``most``, the first of each.

    One patient more or less changes nothing of the others' cases.

    Args:
        patients: whose each case is; ``None`` where nobody knows, and each counts as a patient.
        cases: how many there are.
        most: how many of a patient count.
    """
    if patients is None:
        return tuple(range(cases))
    seen: dict[str, int] = {}
    kept = []
    for place, patient in enumerate(patients):
        seen[patient] = seen.get(patient, 0) + 1
        if seen[patient] <= most:
            kept.append(place)
    return tuple(kept)


@dataclass(frozen=True)
class CountNoise:
    """The noise on a site's counts: for each table of the scheme, its standard deviation.

    Nothing negative is sent, so that ``reach``, the largest value that the noise takes, is added to
    every number of a table, and taken off the sum again once for each site in it.
    """

    scheme: Scheme
    deviations: Mapping[str, float]

    @staticmethod
    def of(scheme: Scheme, experiment: Experiment) -> "CountNoise":
        """The noise of an experiment; none without ``statistics.epsilon``."""
        release = statistics_release(experiment)
        if release is None:
            return CountNoise(scheme, {})
        share = release.noise_multiplier * sqrt(len(scheme.shapes))
        most = experiment.statistics.cases_per_patient
        return CountNoise(
            scheme, {name: share * most * scheme.norm(name) for name in scheme.shapes}
        )

    def reach(self, name: str) -> int:
        """The largest value of the noise on a table; it falls below that with ±8.3 σ."""
        return ceil(TAIL * self.deviations[name]) if name in self.deviations else 0

    def added(self, vector: Counts, most: int, random: SecretRandom) -> Counts:
        """A site's counts ``(scheme.size,)`` with noise, none of them negative.

        Args:
            vector: the counts of at most ``most`` cases.
            most: how many cases everyone knows the largest site to have.
            random: what the noise is drawn from.
        """
        parts = []
        for name, part in self._parts(vector):
            limit = self.scheme.most(name, most)
            kept = np.minimum(part, limit)
            if name in self.deviations:
                kept = kept + discrete_normal(self.deviations[name], len(part), random)
                kept = kept + self.reach(name)
            parts.append(kept)
        return np.concatenate(parts)

    def signed(self, total: Counts, sites: int) -> Counts:
        """The sum of the counts of so many sites with their noise, some of it below 0."""
        parts = [part - sites * self.reach(name) for name, part in self._parts(total)]
        return np.concatenate(parts)

    def removed(self, total: Counts, sites: int) -> Counts:
        """The sum of the counts of so many sites, with their noise; none of it is below 0.

        Of a row of bins it keeps the running totals, which have the noise of few bins, and not that
        of all: they are made to rise, from 0 to the whole row's.
        """
        parts = []
        for name, signed in self._parts(self.signed(total, sites)):
            shape = self.scheme.shapes[name]
            binned = name not in ("cases", "with_class") and name in self.deviations
            rows = signed.reshape(-1, shape[-1]) if binned else None
            parts.append(np.maximum(signed, 0) if rows is None else _rising(rows).reshape(-1))
        return np.concatenate(parts)

    def rank_error(self, sites: int, cases: int) -> float:
        """How far the noise moves the rank of a median, as a part of all cases: a deviation of it.

        It is that of the table for which it is largest, and 0 without noise.

        Args:
            sites: how many sites' noise is in the counts.
            cases: how many cases were counted.
        """
        errors = [
            deviation * sqrt(sites * self.scheme.shapes[name][1] / 2) / self.scheme.most(name, 1)
            for name, deviation in self.deviations.items()
            if len(self.scheme.shapes[name]) == 2
        ]
        return max(errors, default=0.0) / max(1, cases)

    def bounds(self, most: int) -> Bounds:
        """Of the numbers that a site of at most ``most`` cases sends."""
        shapes = self.scheme.shapes.items()
        return Bounds(
            tuple(
                (int(np.prod(shape)), self.scheme.most(name, most) + 2 * self.reach(name))
                for name, shape in shapes
            )
        )

    def _parts(self, vector: Counts) -> list[tuple[str, Counts]]:
        """The tables of a vector, each in one row, by name."""
        sizes = [int(np.prod(shape)) for shape in self.scheme.shapes.values()]
        parts = np.split(vector, np.cumsum(sizes)[:-1])
        return list(zip(self.scheme.shapes, parts, strict=True))


def _rising(rows: Counts) -> Counts:
    """Counts ``(rows, bins)`` of which none is below 0, with about the running totals of these."""
    totals = np.cumsum(rows, axis=1)
    within = np.clip(totals, 0, np.maximum(totals[:, -1:], 0))
    risen = np.maximum.accumulate(within, axis=1)
    return np.diff(risen, axis=1, prepend=0)
