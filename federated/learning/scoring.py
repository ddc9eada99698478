"""An evaluation, from what was measured of all sites together and at each."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from federated.data.dataset import SPLITS, DatasetInfo, Split
from federated.learning.classification_metrics import Metrics
from federated.learning.evaluation import Evaluation, site_spread
from federated.learning.task_statistics import Measured
from federated.update import Arrays


def evaluation_of(
    overall: Mapping[Split, Measured],
    own: Mapping[str, Mapping[Split, Measured]],
    compared: Sequence[str],
) -> Evaluation:
    """The evaluation with these measurements; ``compared`` are the metrics whose spread it has."""
    per_site: dict[str, dict[Split, Metrics]] = {
        site: {split: measured.metrics for split, measured in by_split.items()}
        for site, by_split in own.items()
    }
    return Evaluation(
        overall={split: found.metrics for split, found in overall.items()},
        per_site=per_site,
        site_spread={split: site_spread(per_site, split, compared) for split in SPLITS[1:]},
        confusion={s: m.confusion for s, m in overall.items() if m.confusion is not None},
        classes_absent=_absent(overall),
        absent_at={site: _absent(by_split) for site, by_split in own.items()},
        intervals={split: found.intervals for split, found in overall.items() if found.intervals},
    )


def score_cases(
    predictions: Mapping[str, Mapping[Split, Arrays]],
    info: DatasetInfo,
    measure: Callable[[Arrays, DatasetInfo], Measured],
    compared: Sequence[str],
) -> Evaluation:
    """The evaluation of what all sites wrote, whose first axes count cases.

    Args:
        predictions: by site and split, the arrays.
        info: of the data set.
        measure: measures the arrays of some cases.
        compared: the metrics whose spread over sites is told.
    """
    own = {
        site: {split: measure(part, info) for split, part in by_split.items()}
        for site, by_split in predictions.items()
    }
    overall: dict[Split, Measured] = {}
    for split in SPLITS[1:]:
        parts = [by_split[split] for by_split in predictions.values()]
        together = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        overall[split] = measure(together, info)
    return evaluation_of(overall, own, compared)


def _absent(measured: Mapping[Split, Measured]) -> dict[Split, tuple[str, ...]]:
    """The classes that no case of a split has, of the splits where that is known."""
    return {split: found.absent for split, found in measured.items() if found.absent is not None}
