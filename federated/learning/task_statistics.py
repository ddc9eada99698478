"""What the additive statistics of a task are, as one value for each task."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from federated.data.dataset import DatasetInfo
from federated.learning.classification_metrics import Confusion, Metrics
from federated.learning.metric import Metric
from federated.learning.statistics import CASES, EvaluationStatistics, Form
from federated.learning.suppression import Table, withheld
from federated.update import Arrays


@dataclass(frozen=True)
class Measured:
    """The metrics of one split, of a site or of all sites together.

    ``confusion`` are counts ``[true][predicted]``, and ``absent`` the classes that no case has;
    both are ``None`` where that is not known. ``intervals`` are bounds between which a metric lies
    that is not known exactly.
    """

    metrics: Metrics
    confusion: Confusion | None = None
    absent: tuple[str, ...] | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskStatistics:
    """The statistics of one kind of task.

    ``form`` gives the names and shapes for a data set, ``of`` computes the statistics of what a
    task's ``predict`` gives, and ``tables`` says which cases they tell apart, so that a site can
    withhold what a count below a minimum could be read from; that minimum is its last argument.
    ``measure`` makes metrics of statistics. ``mean_of_sites`` makes
    overall metrics of the sites' own, as far as that is possible; ``weights`` names the counts by
    which it weighs sites. ``contradictions`` says why statistics can be those of no cases.
    """

    form: Callable[[DatasetInfo], Form]
    of: Callable[[Arrays, DatasetInfo], EvaluationStatistics]
    tables: Callable[[Arrays, DatasetInfo, int], Sequence[Table]]
    measure: Callable[[EvaluationStatistics, DatasetInfo], Measured]
    mean_of_sites: Callable[[Sequence[Metrics], Sequence[Mapping[str, int]]], Metrics]
    contradictions: Callable[[EvaluationStatistics, DatasetInfo], Iterator[str]]
    weights: tuple[str, ...] = (CASES,)

    def suppressed(self, predictions: Arrays, info: DatasetInfo, minimum: int) -> frozenset[str]:
        """The arrays that a site withholds, so that no count below ``minimum`` can be read."""
        return withheld(self.tables(predictions, info, minimum), minimum)

    def of_nothing(self, info: DatasetInfo) -> EvaluationStatistics:
        """The statistics of no case."""
        form = self.form(info)
        return EvaluationStatistics({n: np.zeros(p.shape, int) for n, p in form.items()})


def only_site(own: Sequence[Metrics], weights: Sequence[Mapping[str, int]]) -> Metrics | None:
    """The metrics of the one site that has cases; ``None`` where several have, or none."""
    there = [metrics for metrics, weight in zip(own, weights, strict=True) if weight[CASES]]
    return there[0] if len(there) == 1 else None


def means_over_cases(
    known: Sequence[Metric], own: Sequence[Metrics], weights: Sequence[Mapping[str, int]]
) -> Metrics:
    """The overall metrics that follow from the sites' own: means over cases, and no others.

    An AUC, a root, or what is a mean over classes is no mean over cases, and no mean of the sites'
    values gives it: it is ``None``, unless one site has all cases.
    """
    alone = only_site(own, weights)
    if alone is not None:
        return dict(alone)
    means = {metric.name for metric in known if metric.needs == "means"}
    by_cases = [weight[CASES] for weight in weights]
    names = own[0] if own else [metric.name for metric in known]
    return {
        name: weighted_mean([metrics[name] for metrics in own], by_cases) if name in means else None
        for name in names
    }


def weighted_mean(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """The weighted mean; ``None`` where one that counts has no value, or none counts."""
    counted = [(value, weight) for value, weight in zip(values, weights, strict=True) if weight]
    known = [(value, weight) for value, weight in counted if value is not None]
    if not known or len(known) < len(counted):
        return None
    return float(sum(value * weight for value, weight in known) / sum(w for _, w in known))
