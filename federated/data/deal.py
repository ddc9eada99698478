"""Which site has which cases, for data sets of either task."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from federated.configuration.sections import SitesSettings
from federated.data.dataset import SPLITS, Dataset, Split
from federated.data.families import CaseFiles
from federated.data.folder_dataset import FolderDataset
from federated.data.partition import Partition, class_counts, partition_cases
from federated.errors import ConsiliumError

AnyDataset = Dataset | FolderDataset


def deal(dataset: AnyDataset, settings: SitesSettings, seed: int) -> Partition:
    """Deal every case to exactly one site.

    Of a folder's cases, all of one patient go to one site; ``natural`` sites are those that the
    data name. Sites of a folder may get fewer than ``min_cases``: validation names them, beside
    all else that is wrong with the files.

    Raises:
        ConsiliumError: too few cases or patients for so many sites, or natural sites where the
            data have none or others.
    """
    if isinstance(dataset, Dataset):
        return partition_cases(dataset.labels, settings, seed)
    if settings.partition == "natural":
        return _natural(dataset, settings)
    patients = {
        split: list(dict.fromkeys(case.patient for case in dataset.cases[split]))
        for split in SPLITS
    }
    labels = {split: np.zeros(len(names), np.int64) for split, names in patients.items()}
    even = len(labels["train"]) // settings.count
    floor = min(settings.min_cases, even) or settings.min_cases
    dealt = partition_cases(labels, settings.model_copy(update={"min_cases": floor}), seed)
    return Partition(
        {
            site: {
                split: _cases_of({patients[split][i] for i in splits[split]}, dataset.cases[split])
                for split in SPLITS
            }
            for site, splits in dealt.sites.items()
        },
        dealt.draws,
        dealt.moved,
    )


def _cases_of(patients: set[str], cases: Sequence[CaseFiles]) -> tuple[int, ...]:
    return tuple(index for index, case in enumerate(cases) if case.patient in patients)


def _natural(dataset: FolderDataset, settings: SitesSettings) -> Partition:
    names = sorted({case.site for cases in dataset.cases.values() for case in cases if case.site})
    unknown = [c.name for cases in dataset.cases.values() for c in cases if c.site is None]
    if unknown:
        raise ConsiliumError(
            f"sites.partition=natural, but the files of {dataset.info.name} do not say which site "
            f"{len(unknown)} cases come from, for example {unknown[0]}. Put the data set's table "
            f"of sites beside them (expected: {dataset.family.layout}), or use "
            "sites.partition=iid."
        )
    if len(names) != settings.count:
        raise ConsiliumError(
            f"sites.partition=natural, and {dataset.info.name} has {len(names)} sites "
            f"({', '.join(names)}), but sites.count={settings.count}. Set sites.count={len(names)}."
        )
    sites: dict[str, dict[Split, tuple[int, ...]]] = {
        f"site-{name}": {
            split: tuple(i for i, case in enumerate(dataset.cases[split]) if case.site == name)
            for split in SPLITS
        }
        for name in names
    }
    return Partition(sites, draws=0, moved=0)


def case_counts(dataset: AnyDataset, partition: Partition) -> Mapping[str, Mapping[Split, Any]]:
    """Cases per class, site and split; in segmentation, where every case has all, cases alone."""
    if isinstance(dataset, Dataset):
        return class_counts(partition, dataset.labels, len(dataset.info.classes))
    return {
        site: {split: [len(indices)] for split, indices in splits.items()}
        for site, splits in partition.sites.items()
    }
