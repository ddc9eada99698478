"""How good a model is over the cases of all sites together, and at each site."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from federated.calibration.result import Calibration
from federated.data.dataset import Split
from federated.learning.classification_metrics import Confusion, Metrics
from federated.learning.statistics import EvaluationStatistics

# Why a site has told no metrics of a model that predicts what is no finite number.
PREDICTS_NONE: Final = (
    "the model predicts no numbers: training diverged, or a site has sent an update that spoils "
    "it. Lower training.lr, or strategy.server_lr where the strategy has one."
)

SiteSpread = dict[str, Metrics]


@dataclass(frozen=True)
class Evaluation:
    """Metrics over the cases of all sites together (``overall``), and at each site.

    ``site_spread`` tells how fair the model is: over the sites where a metric has a value, its
    ``worst`` value, its ``mean`` and its ``sd`` (the population's standard deviation), where all
    sites count alike. ``confusion`` are counts ``[true][predicted]`` over all cases, in
    classification alone. ``classes_absent`` are the classes that no case of a split has; they are
    left out of means over classes. Those are classes absent from all sites together; ``absent_at``
    names the classes absent at each site. Where that is not known, nothing is said of a split.
    ``intervals`` are bounds of overall metrics that are not known exactly, as an AUC that follows
    from histograms. ``missing`` are the sites that were asked and whose evaluation does not count,
    and why: no metric has their cases in it. ``statistics`` are the additive statistics of a split
    over all sites together, where these are known: curves and intervals follow from them.
    ``calibration`` is that of probabilities, where it was asked for and follows from what is told.
    """

    overall: Mapping[Split, Metrics]
    per_site: Mapping[str, Mapping[Split, Metrics]]
    site_spread: Mapping[Split, Mapping[str, Metrics]]
    confusion: Mapping[Split, Confusion]
    classes_absent: Mapping[Split, Sequence[str]] = field(default_factory=dict)
    absent_at: Mapping[str, Mapping[Split, Sequence[str]]] = field(default_factory=dict)
    intervals: Mapping[Split, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    # Arrays are neither equal nor not: two evaluations are equal if their metrics are.
    statistics: Mapping[Split, EvaluationStatistics] = field(default_factory=dict, compare=False)
    calibration: Calibration | None = None


def site_spread(
    per_site: Mapping[str, Mapping[Split, Metrics]], split: Split, names: Sequence[str]
) -> SiteSpread:
    """The worst value, mean and standard deviation over the sites, for each metric of ``names``.

    The smallest value counts as the worst, so larger has to be better for these metrics.
    """
    result = {}
    for name in names:
        found = [metrics[split][name] for metrics in per_site.values()]
        values = [value for value in found if value is not None]
        result[name] = {
            "worst": min(values) if values else None,
            "mean": float(np.mean(values)) if values else None,
            "sd": float(np.std(values)) if values else None,
        }
    return result
