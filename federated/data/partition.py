"""Which case belongs to which site: a pure function of labels, settings and seed.

Every kind of partition is a matrix of shares, ``shares[k, c]`` = the part of class c's cases that
site k holds (each column sums to 1). The same matrix deals the train, validation and test cases,
so that a site is evaluated on the mix of classes it trains on, and the test cases of all sites
together are the official test split.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from federated.data.dataset import SPLITS, Labels, Split
from federated.errors import ConsiliumError
from federated.files import read_json, write_json
from federated.randomness import numpy_generator
from federated.settings.names import refuse_site_name
from federated.settings.sections import SitesSettings

Shares = npt.NDArray[np.float64]
Owners = npt.NDArray[np.int64]

MAX_DRAWS = 200


@dataclass(frozen=True)
class Partition:
    """Case indices per site and split, in ascending order.

    ``draws`` is how often the shares were drawn until every site had its floor of cases;
    ``moved`` is how many cases were moved between sites where no draw gave that.
    """

    sites: Mapping[str, Mapping[Split, tuple[int, ...]]]
    draws: int
    moved: int

    def cases(self, site: str, split: Split) -> int:
        """Number of cases of a site in a split."""
        return len(self.sites[site][split])

    def counts(self) -> "CaseCounts":
        """What the coordinator knows of it."""
        return CaseCounts(
            {
                site: {split: len(cases) for split, cases in splits.items()}
                for site, splits in self.sites.items()
            }
        )


@dataclass(frozen=True)
class CaseCounts:
    """How many cases each site has in each split: of a partition what everyone may know."""

    sites: Mapping[str, Mapping[Split, int]]

    def cases(self, site: str, split: Split) -> int:
        """Number of cases of a site in a split."""
        return self.sites[site][split]


def site_names(count: int) -> list[str]:
    """``site-00``, ``site-01`` … for simulated sites."""
    width = max(2, len(str(count - 1)))
    return [f"site-{index:0{width}d}" for index in range(count)]


def floors(settings: SitesSettings, labels: Mapping[Split, Labels]) -> dict[Split, int]:
    """The least number of cases a site gets, for each split.

    ``min_cases`` in training; in validation and test as many, but at most half of an even share
    and, where there are enough cases, at least one.
    """
    result: dict[Split, int] = {"train": settings.min_cases}
    for split in ("val", "test"):
        even = len(labels[split]) // settings.count
        result[split] = min(settings.min_cases, max(even // 2, min(even, 1)))
    return result


def partition_labels(
    labels: Mapping[Split, Labels], settings: SitesSettings, seed: int
) -> Partition:
    """Deal every case to exactly one site.

    ``iid``: even shares of each class. ``dirichlet``: for each class, shares drawn from
    Dir(β, …, β) (Hsu et al. 2019), drawn again until every site has its floor of training cases,
    at most :data:`MAX_DRAWS` times; then cases are moved from the largest sites.
    ``pathological``: ``classes_per_site`` classes a site (McMahan et al. 2017).
    ``quantity``: site sizes drawn from Dir(β, …, β), classes mixed evenly.

    Raises:
        ConsiliumError: fewer cases than sites × floor, or classes that no site would hold.
    """
    count = settings.count
    least = floors(settings, labels)
    if len(labels["train"]) < count * least["train"]:
        raise ConsiliumError(
            f"sites.count={count} with sites.min_cases={settings.min_cases} needs "
            f"{count * settings.min_cases} training cases, but the data set has "
            f"{len(labels['train'])}. Lower sites.count or sites.min_cases."
        )
    rng = numpy_generator(seed, purpose=f"partition {settings.partition}")
    # Not from the labels present: a class may be missing in a split.
    classes = 1 + max(int(labels[split].max()) for split in SPLITS if len(labels[split]))
    draws = 0
    while True:
        shares = _draw_shares(settings, classes, rng)
        owners = {split: _deal(labels[split], shares, rng) for split in SPLITS}
        draws += 1
        sizes = np.bincount(owners["train"], minlength=count)
        if sizes.min() >= least["train"] or draws == MAX_DRAWS:
            break
    moved = sum(
        _fill_up(owners[split], labels[split], shares, least[split], rng) for split in SPLITS
    )
    return Partition(
        sites={
            name: {
                split: tuple(int(i) for i in np.flatnonzero(owners[split] == index))
                for split in SPLITS
            }
            for index, name in enumerate(site_names(count))
        },
        draws=draws,
        moved=moved,
    )


def _draw_shares(settings: SitesSettings, classes: int, rng: np.random.Generator) -> Shares:
    count = settings.count
    if settings.partition == "iid":
        return np.full((count, classes), 1.0 / count)
    if settings.partition == "dirichlet":
        return rng.dirichlet(np.full(count, settings.beta), size=classes).T
    if settings.partition == "quantity":
        return np.tile(rng.dirichlet(np.full(count, settings.beta))[:, np.newaxis], (1, classes))
    return _pathological_shares(settings, classes, rng)


def _pathological_shares(settings: SitesSettings, classes: int, rng: np.random.Generator) -> Shares:
    count, held = settings.count, settings.classes_per_site
    if held > classes or count * held < classes:
        raise ConsiliumError(
            f"sites.classes_per_site={held} with sites.count={count} cannot deal out {classes} "
            f"classes: it must be at most {classes}, and sites.count × sites.classes_per_site at "
            f"least {classes}, or some cases would belong to no site."
        )
    # Walking round a shuffled list of classes gives every class to a site, none twice to one.
    order = rng.permutation(classes)
    holds = np.zeros((count, classes))
    for index, site in enumerate(rng.permutation(count)):
        for step in range(held):
            holds[site, order[(index * held + step) % classes]] = 1.0
    return np.asarray(holds / holds.sum(axis=0), dtype=np.float64)


def _deal(labels: Labels, shares: Shares, rng: np.random.Generator) -> Owners:
    """The owner of each case: each class is shuffled and cut by the class's shares."""
    owners = np.empty(len(labels), dtype=np.int64)
    for label in range(shares.shape[1]):
        members = rng.permutation(np.flatnonzero(labels == label))
        # In a random order of sites, so that rounding favours none of them.
        order = rng.permutation(len(shares))
        cuts = np.round(np.cumsum(shares[order, label])[:-1] * len(members)).astype(int)
        for site, part in zip(order, np.split(members, cuts), strict=True):
            owners[part] = site
    return owners


def _fill_up(
    owners: Owners, labels: Labels, shares: Shares, least: int, rng: np.random.Generator
) -> int:
    """Move cases, in place, until every site has ``least``; return how many were moved.

    A case comes from the largest site that can spare one, of a class the receiver holds anyway
    if there is such a site.
    """
    count = len(shares)
    if len(owners) < count * least:
        return 0
    moved = 0
    sizes = np.bincount(owners, minlength=count)
    while sizes.min() < least:
        receiver = int(sizes.argmin())
        spare = (sizes > least)[owners]
        own_classes = spare & (shares[receiver] > 1e-6)[labels]
        candidates = np.flatnonzero(own_classes if own_classes.any() else spare)
        donor = owners[candidates][sizes[owners[candidates]].argmax()]
        case = rng.choice(candidates[owners[candidates] == donor])
        owners[case] = receiver
        sizes[donor] -= 1
        sizes[receiver] += 1
        moved += 1
    return moved


def leave_out(
    partition: Partition, dropped: Mapping[str, Mapping[Split, Sequence[int]]]
) -> Partition:
    """The partition without some cases."""
    return Partition(
        {
            site: {
                split: tuple(i for i in indices if i not in dropped.get(site, {}).get(split, ()))
                for split, indices in splits.items()
            }
            for site, splits in partition.sites.items()
        },
        partition.draws,
        partition.moved,
    )


def class_counts(
    partition: Partition, labels: Mapping[Split, Labels], classes: int
) -> dict[str, dict[Split, list[int]]]:
    """Number of cases of each class, per site and split."""
    return {
        site: {
            split: np.bincount(labels[split][list(indices)], minlength=classes).tolist()
            for split, indices in splits.items()
        }
        for site, splits in partition.sites.items()
    }


def write_partition(path: Path, partition: Partition, header: Mapping[str, Any]) -> None:
    """Write a partition as JSON, with ``header`` saying what it was made from."""
    write_json(
        path,
        {
            **header,
            "draws": partition.draws,
            "moved": partition.moved,
            "sites": {site: dict(splits) for site, splits in partition.sites.items()},
        },
    )


def read_cases(splits: Mapping[str, Any]) -> dict[Split, tuple[int, ...]]:
    """The cases of one site, as they stand in a file.

    Raises:
        KeyError: a split is missing.
        ValueError: something that is not a case's number.
    """
    result: dict[Split, tuple[int, ...]] = {}
    for split in SPLITS:
        cases = tuple(splits[split])
        if not all(type(case) is int and case >= 0 for case in cases):
            raise ValueError(f"{split} holds what is not a case's number")
        result[split] = cases
    return result


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConsiliumError(
            f"The partition {path} cannot be read ({error!r}). Make it again with "
            "`consilium prepare EXPERIMENT`."
        ) from error


def read_partition(path: Path) -> Partition:
    """Read a partition written by :func:`write_partition`.

    Raises:
        ConsiliumError: the file is missing or not such a file, or no site can have such a name.
    """
    value = read_partition_file(path)
    with _readable(path):
        sites = {
            refuse_site_name(site, f" (in {path})"): read_cases(splits)
            for site, splits in value["sites"].items()
        }
        return Partition(sites, value["draws"], value["moved"])


def read_partition_file(path: Path) -> dict[str, Any]:
    """A partition's file as plain values, with its header.

    Raises:
        ConsiliumError: it is missing or not such a file.
    """
    with _readable(path):
        value = read_json(path)
        return {**value, "draws": value["draws"], "moved": value["moved"]}


def read_case_counts(path: Path, cases: Mapping[str, Any]) -> CaseCounts:
    """The ``cases`` of the file ``path``: how many each site has in each split.

    Raises:
        ConsiliumError: something else than that, or no site can have such a name.
    """
    with _readable(path):
        sites = {
            refuse_site_name(site, f" (in {path})"): {split: splits[split] for split in SPLITS}
            for site, splits in cases.items()
        }
        numbers = [number for splits in sites.values() for number in splits.values()]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("cases are not counts")
        return CaseCounts(sites)


def read_site_cases(path: Path) -> dict[Split, tuple[int, ...]]:
    """The cases of one site, from its own file.

    Raises:
        ConsiliumError: it is missing or not such a file.
    """
    with _readable(path):
        return read_cases(read_json(path))
