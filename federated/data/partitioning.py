"""Which site has which cases, for data sets of every task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from federated.data.dataset import SPLITS, Dataset, Split
from federated.data.folders.dataset import FolderDataset
from federated.data.label_partition import partition_labels
from federated.data.labelling import LABELLINGS, refuse_constant
from federated.data.partition import Partition
from federated.errors import ConsiliumError
from federated.settings.names import refuse_site_name
from federated.settings.sections import SitesSettings

AnyDataset = Dataset | FolderDataset
# The indices of cases that are held, for each split.
Held = Mapping[Split, Sequence[int]]


@dataclass(frozen=True)
class _Case:
    """What a partition needs of a case; ``stratum`` is 0 where there is no group to deal by."""

    name: str
    patient: str
    site: str | None
    where: str
    stratum: int


@dataclass(frozen=True)
class _Dealt:
    """The cases of a data set that tells whose each is."""

    name: str
    cases: Mapping[Split, Sequence[_Case]]
    layout: str


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
            natural, and the data name none, or another number; or the training cases of several
            sites all have the same labels.
    """
    if isinstance(dataset, Dataset) and settings.count > 1:
        refuse_constant(dataset.labels["train"], dataset.info)
    if isinstance(dataset, Dataset) and dataset.origins is None:
        if settings.partition == "natural":
            raise ConsiliumError(
                f"sites.partition=natural, but {dataset.info.name} does not say which hospital a "
                "case comes from. Use another sites.partition."
            )
        strata = LABELLINGS[dataset.info.task].strata(dataset.labels)
        return partition_labels(strata, settings, seed)
    dealt = _dealt(dataset)
    if settings.partition == "natural":
        return _natural(dealt, settings, seed)
    everyone: Held = {split: range(len(dealt.cases[split])) for split in SPLITS}
    return _by_patient(dealt, everyone, settings, seed)


def _dealt(dataset: AnyDataset) -> _Dealt:
    if isinstance(dataset, FolderDataset):
        files = {
            split: [
                _Case(case.name, case.patient, case.site, str(case.images[0]), 0)
                for case in dataset.cases[split]
            ]
            for split in SPLITS
        }
        return _Dealt(dataset.info.name, files, dataset.family.layout)
    assert dataset.origins is not None
    strata = LABELLINGS[dataset.info.task].strata(dataset.labels)
    images = {
        split: [
            _Case(o.name, o.patient, o.site, o.where, int(stratum))
            for o, stratum in zip(dataset.origins[split], strata[split], strict=True)
        ]
        for split in SPLITS
    }
    return _Dealt(dataset.info.name, images, "a column `site` in cases.csv")


def _by_patient(dealt: _Dealt, held: Held, settings: SitesSettings, seed: int) -> Partition:
    """Deal those cases to ``settings.count`` sites, all cases of one patient to one site.

    Where images have labels, a patient counts with the group of the first image.
    """
    stratum: dict[Split, dict[str, int]] = {split: {} for split in SPLITS}
    for split in SPLITS:
        for index in held[split]:
            case = dealt.cases[split][index]
            stratum[split].setdefault(case.patient, case.stratum)
    names = {split: list(stratum[split]) for split in SPLITS}
    labels = {split: np.array([*stratum[split].values()], np.int64) for split in SPLITS}
    even = len(labels["train"]) // settings.count
    floor = min(settings.min_cases, even) or settings.min_cases
    drawn = partition_labels(labels, settings.model_copy(update={"min_cases": floor}), seed)

    def cases(split: Split, chosen: Sequence[int]) -> tuple[int, ...]:
        patients = {names[split][index] for index in chosen}
        return tuple(i for i in held[split] if dealt.cases[split][i].patient in patients)

    sites = {
        site: {split: cases(split, chosen) for split, chosen in splits.items()}
        for site, splits in drawn.sites.items()
    }
    return Partition(sites, drawn.draws, drawn.moved)


def _natural(dealt: _Dealt, settings: SitesSettings, seed: int) -> Partition:
    everyone = [case for split in SPLITS for case in dealt.cases[split]]
    names = sorted({case.site for case in everyone if case.site})
    unknown = [case.name for case in everyone if case.site is None]
    if unknown:
        raise ConsiliumError(
            f"sites.partition=natural, but the files of {dealt.name} do not say which site "
            f"{len(unknown)} cases come from, for example {unknown[0]}. Put the data set's table "
            f"of sites beside them (expected: {dealt.layout}), or use "
            "sites.partition=iid."
        )
    for case in everyone:
        refuse_site_name(
            str(case.site), f": the data set's table gives it to case {case.name} ({case.where})"
        )
    if settings.count % len(names):
        raise ConsiliumError(
            f"sites.partition=natural, and {dealt.name} has {len(names)} sites "
            f"({', '.join(names)}), but sites.count={settings.count}. Set sites.count to "
            f"{len(names)}, or to a multiple of it, which divides each of them evenly by patient."
        )
    parts = settings.model_copy(update={"count": settings.count // len(names), "partition": "iid"})
    sites: dict[str, Mapping[Split, tuple[int, ...]]] = {}
    for name in names:
        held: dict[Split, tuple[int, ...]] = {
            split: tuple(i for i, case in enumerate(dealt.cases[split]) if case.site == name)
            for split in SPLITS
        }
        if parts.count == 1:
            sites[f"site-{name}"] = held
            continue
        patients = {dealt.cases["train"][index].patient for index in held["train"]}
        if len(patients) < parts.count:
            raise ConsiliumError(
                f"sites.count={settings.count} divides each of the {len(names)} sites that "
                f"{dealt.name} names into {parts.count}, but {name} has {len(patients)} "
                f"patients for training. Set sites.count={len(names) * max(1, len(patients))} or "
                "lower."
            )
        for part, splits in _by_patient(dealt, held, parts, seed).sites.items():
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
