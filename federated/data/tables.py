"""The table of facts of each site's cases, for data sets of every task."""

import pandas as pd

from federated.data.dataset import SPLITS, Dataset, Split
from federated.data.folders.dataset import FolderDataset
from federated.data.folders.families import Listing
from federated.data.folders.table import folder_tables
from federated.data.medmnist.table import case_tables
from federated.data.partition import Partition
from federated.data.partitioning import AnyDataset

# The group of files that belong to no case, and so to no site.
NO_SITE = "no site"


def site_tables(dataset: AnyDataset, partition: Partition) -> dict[str, pd.DataFrame]:
    """A table for each site, with a row for each case.

    Files that belong to no case are in a table for :data:`NO_SITE`. All tables have the columns
    ``split``, ``index``, which is the case's number in its split, and ``where``, by which a person
    finds it; the others are those of ``case_tables`` or ``folder_tables``.
    """
    if isinstance(dataset, Dataset):
        tables = case_tables(dataset, partition)
        for table in tables.values():
            places = zip(table["split"], table["index"], strict=True)
            table["where"] = [_where(dataset, split, index) for split, index in places]
        if dataset.unmatched:
            rows = [{"split": "none", "index": -1, "where": str(p)} for p in dataset.unmatched]
            tables[NO_SITE] = pd.DataFrame(rows)
        return tables
    return _folder_tables(dataset, partition)


def _where(dataset: Dataset, split: Split, index: int) -> str:
    """How a person finds a case: by its file, or by its number."""
    if dataset.origins is not None:
        return dataset.origins[split][index].where
    return f"{split} case {index}"


def _folder_tables(dataset: FolderDataset, partition: Partition) -> dict[str, pd.DataFrame]:
    places = {
        site: [(split, index) for split in SPLITS for index in splits[split]]
        for site, splits in partition.sites.items()
    }
    groups = {
        site: Listing(tuple(dataset.cases[split][index] for split, index in own), ())
        for site, own in places.items()
    }
    if dataset.unmatched:
        groups[NO_SITE] = Listing((), dataset.unmatched)
    tables = folder_tables(dataset.family, groups)
    for site, table in tables.items():
        own = places.get(site, [("none", -1)] * len(table))
        table["split"] = [split for split, _ in own]
        table["index"] = [index for _, index in own]
        table["where"] = table["path"].where(table["path"] != "", table["mask_path"])
    return tables
