"""Labelled cases to sites: a pure function of labels, settings and seed.

Every kind of partition is a matrix of shares, ``shares[k, c]`` = the part of class c's cases that
site k holds (each column sums to 1). The same matrix deals the train, validation and test cases, so
that a site is evaluated on the mix of classes that it trains on, and the test cases of all sites
together are the official test split.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from federated.data.dataset import SPLITS, Labels, Split
from federated.data.partition import Partition
from federated.errors import ConsiliumError
from federated.randomness import numpy_generator
from federated.settings.sections import SitesSettings

Shares = npt.NDArray[np.float64]
Owners = npt.NDArray[np.int64]

MAX_DRAWS = 200


def site_names(count: int) -> list[str]:
    """The names ``site-00``, ``site-01`` … of simulated sites."""
    width = max(2, len(str(count - 1)))
    return [f"site-{index:0{width}d}" for index in range(count)]


def floors(settings: SitesSettings, labels: Mapping[Split, Labels]) -> dict[Split, int]:
    """The least number of cases that a site gets, for each split.

    In training it is ``min_cases``. In validation and test it is as many, but at most half of an
    even share and, where there are enough cases, at least one.
    """
    result: dict[Split, int] = {"train": settings.min_cases}
    for split in ("val", "test"):
        even = len(labels[split]) // settings.count
        result[split] = min(settings.min_cases, max(even // 2, min(even, 1)))
    return result


def partition_labels(
    labels: Mapping[Split, Labels], settings: SitesSettings, seed: int
) -> Partition:
    """Deal every case to exactly one site; labels are ``(n,)`` for each split.

    ``iid`` gives even shares of each class. ``dirichlet`` draws shares for each class from Dir(β,
    …, β) (Hsu et al. 2019), again until every site has its floor of training cases, at most
    :data:`MAX_DRAWS` times; then cases are moved from the largest sites. ``pathological`` gives
    each site ``classes_per_site`` classes (McMahan et al. 2017). ``quantity`` draws the sizes of
    sites from Dir(β, …, β), with the classes mixed evenly.

    Raises:
        ConsiliumError: there are fewer cases than sites × floor, or classes that no site would
            hold.
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
        owners[members] = np.repeat(order, np.diff(cuts, prepend=0, append=len(members)))
    return owners


def _fill_up(
    owners: Owners, labels: Labels, shares: Shares, least: int, rng: np.random.Generator
) -> int:
    """Move cases, in place, until every site has ``least``; return how many were moved.

    A case comes from the largest site that can spare one, and is of a class that the receiver holds
    anyway if there is such a site.
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
