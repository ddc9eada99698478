"""What a site sends of its evaluation, and what is made of what all sites sent.

``evaluation.share`` decides: every case's predictions, additive statistics, the site's own metrics
alone, or statistics of which others learn the sum over the sites alone. A site computes what it
sends from its predictions; nothing else leaves it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from federated.data.dataset import SPLITS, DatasetInfo, Split
from federated.data.partition import CaseCounts
from federated.errors import ConsiliumError
from federated.learning.base import LearningTask
from federated.learning.calibrating import calibration_of
from federated.learning.classification_metrics import Metrics
from federated.learning.evaluation import Evaluation, site_spread
from federated.learning.quantised_statistics import (
    refuse_inconsistent,
    statistics_bounds,
    summed_statistics,
    whole_statistics,
)
from federated.learning.scoring import evaluation_of
from federated.learning.statistics import EvaluationStatistics, Total, add, from_wire, to_wire
from federated.learning.task_statistics import Measured
from federated.protection.digits import Bounds, WholeNumbers
from federated.settings.sections import EvaluationSettings
from federated.update import Arrays

# By site and split, what the sites sent or predict.
BySite = Mapping[str, Mapping[Split, Arrays]]


def overall_metrics(task: LearningTask, settings: EvaluationSettings) -> tuple[str, ...]:
    """The names of the metrics that can have a value over the cases of all sites.

    Of the sites' own metrics means follow and nothing else. Where small counts are withheld,
    histograms of scores are, which nearly always have some.
    """
    given = {"means", "counts", "scores"} - ({"scores"} if settings.min_count else set())
    if settings.share == "metrics":
        given = {"means"}
    return tuple(known.name for known in task.metrics if known.needs in given)


def shared_arrays(
    task: LearningTask, predictions: Arrays, info: DatasetInfo, settings: EvaluationSettings
) -> Arrays:
    """The arrays that a site sends of its predictions on one split.

    With ``predictions`` they are these themselves. With ``statistics`` they are those of
    :func:`federated.learning.statistics.to_wire`; with ``sums`` it is :func:`summed_vector` that
    leaves a site, and these are what it sums. With ``metrics`` they are the metrics, each
    ``(1,)`` float64 and NaN where it has no value, and the counts that weigh them, ``(1,)`` int32.
    Where ``min_count`` withholds statistics, metrics are made of what is left.
    """
    if settings.share == "predictions":
        return predictions
    kind = task.statistics
    gone = kind.suppressed(predictions, info, settings.min_count)
    statistics = kind.of(predictions, info).without(gone)
    if settings.share in ("statistics", "sums"):
        return to_wire(statistics)
    own = kind.measure(statistics, info).metrics
    if not settings.min_count:
        own = task.exact(predictions, info)
    weights = {name: statistics.arrays[name] for name in kind.weights if name not in gone}
    return {
        **{name: count.astype(np.int32) for name, count in weights.items()},
        **{
            f"metric {name}": np.array([np.nan if value is None else value])
            for name, value in own.items()
        },
    }


def evaluate_shared(
    task: LearningTask,
    sent: BySite | Iterable[tuple[str, Mapping[Split, Arrays]]],
    info: DatasetInfo,
    settings: EvaluationSettings,
) -> Evaluation:
    """The evaluation that follows from what sites sent, with :func:`shared_arrays`.

    Of statistics one site's are in memory at a time, where ``sent`` reads them as it goes, unless
    prediction sets of each site are asked for.

    Raises:
        ConsiliumError: what a site sent is not of the form that ``evaluation.share`` says.
    """
    told = sent.items() if isinstance(sent, Mapping) else sent
    if settings.share == "predictions":
        return _of_predictions(task, dict(told), info, settings)
    if settings.share == "metrics":
        return _of_metrics(task, dict(told), info)
    return _of_statistics(task, told, info, settings)


def evaluate_here(
    task: LearningTask, predictions: BySite, info: DatasetInfo, settings: EvaluationSettings
) -> Evaluation:
    """The evaluation that others would get of these predictions, where all of them are at hand."""
    sent = {
        site: {s: shared_arrays(task, found, info, settings) for s, found in by_split.items()}
        for site, by_split in predictions.items()
    }
    found = evaluate_shared(task, sent, info, settings)
    return _without_sites(task, found, list(sent)) if settings.share == "sums" else found


def summed_bounds(task: LearningTask, counts: CaseCounts, info: DatasetInfo) -> Bounds:
    """The bounds of what :func:`summed_vector` gives at any site, which all parties know."""
    form, bounds = task.statistics.form(info), Bounds(())
    for split in SPLITS[1:]:
        most = max((own[split] for own in counts.sites.values()), default=0)
        bounds += statistics_bounds(form, most)
    return bounds


def summed_vector(
    task: LearningTask, predictions: Mapping[Split, Arrays], info: DatasetInfo
) -> WholeNumbers:
    """The statistics of a site's predictions on all splits as whole numbers, to be summed.

    Raises:
        ConsiliumError: there is no room for a number.
    """
    kind = task.statistics
    form = kind.form(info)
    return np.concatenate(
        [whole_statistics(kind.of(predictions[split], info), form) for split in SPLITS[1:]]
    )


def evaluate_summed(
    task: LearningTask,
    total: WholeNumbers,
    info: DatasetInfo,
    counts: CaseCounts,
    summed: Sequence[str],
    settings: EvaluationSettings,
) -> Evaluation:
    """The evaluation that follows from the sum of vectors of :func:`summed_vector`.

    No site's own metrics are in it: they have no value.

    Args:
        task: the task.
        total: the sum.
        info: of the data set.
        counts: how many cases each site of the run has.
        summed: the sites in the sum.
        settings: what sites share, and what is to follow from it.

    Raises:
        ConsiliumError: the sum cannot be that of so many cases.
    """
    kind = task.statistics
    form = kind.form(info)
    overall: dict[Split, Measured] = {}
    together: dict[Split, EvaluationStatistics] = {}
    for split, own in zip(SPLITS[1:], np.split(total, len(SPLITS) - 1), strict=True):
        told = summed_statistics(own, form)
        refuse_inconsistent(told, form, sum(counts.sites[site][split] for site in summed))
        overall[split], together[split] = kind.measure(told, info), told
    known = replace(
        evaluation_of(overall, {}, ()),
        statistics=together,
        calibration=calibration_of(together, {}, info, settings),
    )
    return _without_sites(task, known, list(counts.sites))


def _without_sites(task: LearningTask, known: Evaluation, sites: Sequence[str]) -> Evaluation:
    """An evaluation without what is known of single sites, each metric of which has no value."""
    untold: dict[Split, Metrics] = {
        split: dict.fromkeys(metrics) for split, metrics in known.overall.items()
    }
    per_site = dict.fromkeys(sites, untold)
    compared = task.metrics_in("site_spread")
    spread = {split: site_spread(per_site, split, compared) for split in known.overall}
    calibrated = known.calibration and replace(known.calibration, sites={})
    return replace(
        known, per_site=per_site, site_spread=spread, absent_at={}, calibration=calibrated
    )


def _of_predictions(
    task: LearningTask, sent: BySite, info: DatasetInfo, settings: EvaluationSettings
) -> Evaluation:
    kind, form = task.statistics, task.statistics.form(info)
    parts = {
        site: {split: kind.of(by_split[split], info) for split in SPLITS[1:]}
        for site, by_split in sent.items()
    }
    together = {split: add((own[split] for own in parts.values()), form) for split in SPLITS[1:]}
    return replace(
        task.score(sent, info),
        statistics=together,
        calibration=calibration_of(together, parts, info, settings),
    )


def _of_statistics(
    task: LearningTask,
    told: Iterable[tuple[str, Mapping[Split, Arrays]]],
    info: DatasetInfo,
    settings: EvaluationSettings,
) -> Evaluation:
    kind = task.statistics
    form = kind.form(info)
    totals = {split: Total(form) for split in SPLITS[1:]}
    own: dict[str, dict[Split, Measured]] = {}
    parts: dict[str, dict[Split, EvaluationStatistics]] = {}
    for site, by_split in told:
        read = {split: from_wire(by_split[split], form, site) for split in SPLITS[1:]}
        own[site] = {split: kind.measure(part, info) for split, part in read.items()}
        for split, part in read.items():
            totals[split].add(part)
        if settings.conformal is not None:
            parts[site] = read
    together = {split: total.statistics for split, total in totals.items()}
    overall = {split: kind.measure(found, info) for split, found in together.items()}
    return replace(
        evaluation_of(overall, own, task.metrics_in("site_spread")),
        statistics=together,
        calibration=calibration_of(together, parts, info, settings),
    )


def _of_metrics(task: LearningTask, sent: BySite, info: DatasetInfo) -> Evaluation:
    found = {
        split: _metrics_of_split(task, {site: told[split] for site, told in sent.items()}, info)
        for split in SPLITS[1:]
    }
    own = {site: {split: found[split][0][site] for split in SPLITS[1:]} for site in sent}
    overall = {split: together for split, (_, together) in found.items()}
    return evaluation_of(overall, own, task.metrics_in("site_spread"))


def _metrics_of_split(
    task: LearningTask, sent: Mapping[str, Arrays], info: DatasetInfo
) -> tuple[dict[str, Measured], Measured]:
    """What is known of each site, and of all together."""
    kind = task.statistics
    names = list(kind.measure(kind.of_nothing(info), info).metrics)
    own: list[Metrics] = []
    weights: list[dict[str, int]] = []
    for site, arrays in sent.items():
        _refuse_other_metrics(arrays, names, kind.weights, site)
        values = {name: float(arrays[f"metric {name}"][0]) for name in names}
        own.append({name: None if np.isnan(v) else v for name, v in values.items()})
        weights.append({name: int(arrays[name][0]) for name in kind.weights if name in arrays})
    measured = {site: Measured(metrics) for site, metrics in zip(sent, own, strict=True)}
    return measured, Measured(kind.mean_of_sites(own, weights))


def _refuse_other_metrics(
    arrays: Arrays, names: list[str], weights: tuple[str, ...], site: str
) -> None:
    """Refuse what are not the metrics of a site.

    Raises:
        ConsiliumError: an array is missing, not known, or no single number.
    """
    expected = {f"metric {name}" for name in names} | {weights[0]}
    wrong = expected - set(arrays) | set(arrays) - expected - set(weights)
    wrong |= {name for name, array in arrays.items() if array.shape != (1,)}
    if wrong:
        raise ConsiliumError(
            f"The metrics of {site} are refused: {min(wrong)!r:.80} is missing, not known, or no "
            "single number. They may be of another version, or of another evaluation.share than "
            "the run's. Remove the round's folder and resume the run, so that they are made again."
        )
