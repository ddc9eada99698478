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
    tables = {
        site: pd.DataFrame(
            [
                {"split": split, "index": index, **_facts(dataset.images[split][index])}
                for split in SPLITS
                for index in splits[split]
            ]
        )
        for site, splits in partition.sites.items()
    }
    everything = pd.concat(tables.values())
    trained = everything.loc[everything["split"] == "train", "digest"].value_counts()
    labelling = LABELLINGS[dataset.info.task]
    for site, table in tables.items():
        own = partition.sites[site]
        labels = np.concatenate([dataset.labels[split][list(own[split])] for split in SPLITS])
        is_train = table["split"] == "train"
        table["in_train"] = table["digest"].map(trained).fillna(0).where(~is_train, 0).astype(int)
        for name, values in labelling.columns(labels, is_train.to_numpy(bool)).items():
            table[name] = values
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
