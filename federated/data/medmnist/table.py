"""One row for each case, with the facts that validation judges."""

import hashlib

import numpy as np
import pandas as pd

from federated.data.dataset import SPLITS, Dataset
from federated.data.labelling import LABELLINGS
from federated.data.partition import Partition


def case_tables(dataset: Dataset, partition: Partition) -> dict[str, pd.DataFrame]:
    """A table for each site, with a row for each case.

    Its columns are ``split``, ``index`` (in the official split), ``shape``, ``dtype``, ``minimum``,
    ``maximum``, ``std`` (standard deviation of the intensities), ``missing`` (how many values are
    NaN or infinite), ``digest`` (the first 16 hexadecimal digits of the image's
    SHA-256), ``in_train`` (for validation and test cases, the number of training cases at any site
    with the same image), and what :class:`federated.data.labelling.Labelling` says of labels, as
    ``label`` and, of classes and labels, ``class_cases`` (the site's training cases of the same).
    """
    # In one table first: of many sites each operation on a table of its own takes a millisecond.
    everything = pd.DataFrame(
        [
            {"split": split, "index": index, **_facts(dataset.images[split][index])}
            for splits in partition.sites.values()
            for split in SPLITS
            for index in splits[split]
        ]
    )
    is_train = everything["split"] == "train"
    trained = everything.loc[is_train, "digest"].value_counts()
    copies = everything["digest"].map(trained).fillna(0)
    everything["in_train"] = copies.where(~is_train, 0).astype(int)
    labelling = LABELLINGS[dataset.info.task]
    tables: dict[str, pd.DataFrame] = {}
    start = 0
    for site, own in partition.sites.items():
        end = start + sum(len(own[split]) for split in SPLITS)
        table = everything.iloc[start:end].reset_index(drop=True)
        labels = np.concatenate([dataset.labels[split][list(own[split])] for split in SPLITS])
        trains = is_train.iloc[start:end].to_numpy(bool)
        tables[site] = table.assign(**labelling.columns(labels, trains))
        start = end
    return tables


def _facts(image: np.ndarray) -> dict[str, object]:
    values = np.asarray(image)
    finite = np.isfinite(values)
    return {
        "shape": "x".join(str(side) for side in values.shape),
        "dtype": str(values.dtype),
        "minimum": float(values.min()),
        "maximum": float(values.max()),
        "std": float(values.std()),
        "missing": int((~finite).sum()),
        "digest": hashlib.sha256(values.tobytes()).hexdigest()[:16],
    }
