"""Which site has which cases, for data sets of every task."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from federated.data.dataset import SPLITS, Dataset, Split
from federated.data.folders.dataset import FolderDataset
from federated.data.label_partition import partition_labels
from federated.data.labelling import LABELLINGS
from federated.data.partition import Partition
from federated.errors import ConsiliumError
from federated.settings.names import refuse_site_name
from federated.settings.sections import SitesSettings

AnyDataset = Dataset | FolderDataset
# The indices of cases that are held, for each split.
Held = Mapping[Split, Sequence[int]]


def partition_dataset(dataset: AnyDataset, settings: SitesSettings, seed: int) -> Partition:
    """Deal every case to exactly one site.

    Where cases are dealt by what they show, that is their class; or their rarest label; or their
    number, in ten groups of about as many cases; see :mod:`federated.data.labelling`.
    All cases of one patient in a folder go to one site. ``natural`` sites are those that the data
    name, each divided evenly where ``count`` is a multiple of their number. Sites of a folder may
    get fewer than ``min_cases``: validation names them, beside everything else that is wrong with
    the files.

    Raises:
        ConsiliumError: there are too few cases or patients for so many sites; or sites are to be
            natural, and the data name none, or another number.
    """
    if isinstance(dataset, Dataset):
        strata = LABELLINGS[dataset.info.task].strata(dataset.labels)
        return partition_labels(strata, settings, seed)
    if settings.partition == "natural":
        return _natural(dataset, settings, seed)
    everyone: Held = {split: range(len(dataset.cases[split])) for split in SPLITS}
    return _by_patient(dataset, everyone, settings, seed)


def _by_patient(
    dataset: FolderDataset, held: Held, settings: SitesSettings, seed: int
) -> Partition:
    """Deal those cases to ``settings.count`` sites, all cases of one patient to one site."""
    patient = {split: [case.patient for case in dataset.cases[split]] for split in SPLITS}
    names = {split: list(dict.fromkeys(patient[split][i] for i in held[split])) for split in SPLITS}
    labels = {split: np.zeros(len(names[split]), np.int64) for split in SPLITS}
    even = len(labels["train"]) // settings.count
    floor = min(settings.min_cases, even) or settings.min_cases
    drawn = partition_labels(labels, settings.model_copy(update={"min_cases": floor}), seed)

    def cases(split: Split, chosen: Sequence[int]) -> tuple[int, ...]:
        patients = {names[split][index] for index in chosen}
        return tuple(index for index in held[split] if patient[split][index] in patients)

    sites = {
        site: {split: cases(split, chosen) for split, chosen in splits.items()}
        for site, splits in drawn.sites.items()
    }
    return Partition(sites, drawn.draws, drawn.moved)


def _natural(dataset: FolderDataset, settings: SitesSettings, seed: int) -> Partition:
    names = sorted({case.site for cases in dataset.cases.values() for case in cases if case.site})
    unknown = [c.name for cases in dataset.cases.values() for c in cases if c.site is None]
    if unknown:
        raise ConsiliumError(
            f"sites.partition=natural, but the files of {dataset.info.name} do not say which site "
            f"{len(unknown)} cases come from, for example {unknown[0]}. Put the data set's table "
            f"of sites beside them (expected: {dataset.family.layout}), or use "
            "sites.partition=iid."
        )
    for case in (case for cases in dataset.cases.values() for case in cases):
        refuse_site_name(
            str(case.site),
            f": the data set's table gives it to case {case.name} ({case.images[0]})",
        )
    if settings.count % len(names):
        raise ConsiliumError(
            f"sites.partition=natural, and {dataset.info.name} has {len(names)} sites "
            f"({', '.join(names)}), but sites.count={settings.count}. Set sites.count to "
            f"{len(names)}, or to a multiple of it, which divides each of them evenly by patient."
        )
    parts = settings.model_copy(update={"count": settings.count // len(names), "partition": "iid"})
    sites: dict[str, Mapping[Split, tuple[int, ...]]] = {}
    for name in names:
        held: dict[Split, tuple[int, ...]] = {
            split: tuple(i for i, case in enumerate(dataset.cases[split]) if case.site == name)
            for split in SPLITS
        }
        if parts.count == 1:
            sites[f"site-{name}"] = held
            continue
        patients = {dataset.cases["train"][index].patient for index in held["train"]}
        if len(patients) < parts.count:
            raise ConsiliumError(
                f"sites.count={settings.count} divides each of the {len(names)} sites that "
                f"{dataset.info.name} names into {parts.count}, but {name} has {len(patients)} "
                f"patients for training. Set sites.count={len(names) * max(1, len(patients))} or "
                "lower."
            )
        for part, splits in _by_patient(dataset, held, parts, seed).sites.items():
            sites[f"site-{name}-{part.removeprefix('site-')}"] = splits
    return Partition(sites, draws=0, moved=0)


def counted_labels(dataset: AnyDataset) -> tuple[str, ...]:
    """The classes or labels that :func:`case_counts` tells apart; none where there are none."""
    if isinstance(dataset, Dataset):
        return LABELLINGS[dataset.info.task].counted(dataset.info)
    return ()


def case_counts(dataset: AnyDataset, partition: Partition) -> Mapping[str, Mapping[Split, Any]]:
    """The number of cases for each site, split and class, or each label, of which a case has some.

    In segmentation every case has all classes, and in regression none has any, so there is one
    number for each site and split.
    """
    if isinstance(dataset, Dataset):
        labelling, info = LABELLINGS[dataset.info.task], dataset.info
        return {
            site: {
                split: labelling.counts(dataset.labels[split][list(indices)], info)
                for split, indices in splits.items()
            }
            for site, splits in partition.sites.items()
        }
    return {
        site: {split: [len(indices)] for split, indices in splits.items()}
        for site, splits in partition.sites.items()
    }
