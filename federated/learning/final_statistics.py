"""What a site tells of its test cases once, after a run's last round: small enough for subgroups.

Of each task it is what its metrics follow from; of a classifier without reliability, and with
:mod:`federated.learning.coarse_scores` in place of fine histograms. Where it was asked for, how far
segmentations change with the image turned over is beside it.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from federated.data.dataset import DatasetInfo
from federated.learning import flip_statistics as flips
from federated.learning.base import LearningTask
from federated.learning.coarse_scores import (
    COARSE_BINS,
    coarse_bins,
    coarse_counts,
    mean_coarse_area,
)
from federated.learning.multilabel_statistics import CLASSES as TWO
from federated.learning.statistics import EvaluationStatistics, Form, Part
from federated.learning.suppression import Table
from federated.learning.task_statistics import Measured, TaskStatistics
from federated.settings.sections import EvaluationSettings
from federated.update import Arrays

COARSE = "coarse_scores"
# What is left out of a classifier's statistics.
FINE = frozenset({"scores", "places", "reliability", "confidence"})
# Metrics that follow from what is left out.
UNTOLD = frozenset({"ece", "micro_auc"})


def final_statistics(
    task: LearningTask, info: DatasetInfo, settings: EvaluationSettings
) -> TaskStatistics:
    """The statistics of a task that are told at the end of a run."""
    kind = task.statistics
    if info.task in ("classification", "multilabel"):
        kind = _coarse(kind)
    return _with_flips(kind) if settings.uncertainty == "flips" else kind


def _coarse(plain: TaskStatistics) -> TaskStatistics:
    """The statistics of a classifier with coarse histograms in place of fine ones.

    Beside the others it is ``coarse_scores`` ``(C, 2, 128)``: of each class or label how many
    scores of cases without and with it are in each bin.
    """

    def form(info: DatasetInfo) -> Form:
        columns = len(info.classes)
        kept = {name: part for name, part in plain.form(info).items() if name not in FINE}
        return kept | {COARSE: Part((columns, 2, COARSE_BINS), each_case=columns)}

    def bins_of(predictions: Arrays, info: DatasetInfo) -> tuple[np.ndarray, np.ndarray]:
        labels, probabilities = predictions["labels"], predictions["probabilities"]
        if _exclusive(info):
            positive = labels[:, None] == np.arange(len(info.classes))
            return coarse_bins(probabilities), positive.astype(np.int64)
        return coarse_bins(probabilities, TWO), labels

    def of(predictions: Arrays, info: DatasetInfo) -> EvaluationStatistics:
        found = plain.of(predictions, info).arrays
        kept = {name: array for name, array in found.items() if name not in FINE}
        return EvaluationStatistics(kept | {COARSE: coarse_counts(*bins_of(predictions, info))})

    def tables(predictions: Arrays, info: DatasetInfo, minimum: int) -> list[Table]:
        known = plain.tables(predictions, info, minimum)
        kept = [table for table in known if not FINE & set(table.names)]
        return [*kept, Table((COARSE,), np.concatenate(bins_of(predictions, info), axis=1))]

    def measure(told: EvaluationStatistics, info: DatasetInfo) -> Measured:
        found = plain.measure(told, info)
        metrics = {name: value for name, value in found.metrics.items() if name not in UNTOLD}
        bounds = dict(found.intervals)
        counts = told.arrays.get(COARSE)
        area = None if counts is None else mean_coarse_area(counts, exclusive=_exclusive(info))
        if area is not None:
            metrics["auc"], bounds["auc"] = area.value, (area.low, area.high)
        return replace(found, metrics=metrics, intervals=bounds)

    def contradictions(told: EvaluationStatistics, info: DatasetInfo) -> Iterator[str]:
        yield from plain.contradictions(told, info)
        counts = told.arrays.get(COARSE)
        if counts is None:
            return
        if (counts.sum(axis=(1, 2)) != told.cases).any():
            yield f"{COARSE!r} does not have each of {told.cases} cases once"
        true, confusion = counts[:, 1].sum(axis=1), told.arrays.get("confusion")
        if confusion is None:
            return
        having = confusion.sum(axis=1) if _exclusive(info) else confusion[:, 1].sum(axis=1)
        if (having != true).any():
            yield f"{COARSE!r} and 'confusion' have other numbers of cases of a class"

    return replace(
        plain, form=form, of=of, tables=tables, measure=measure, contradictions=contradictions
    )


def _exclusive(info: DatasetInfo) -> bool:
    """Whether a case has one class alone."""
    return info.task == "classification"


def _with_flips(plain: TaskStatistics) -> TaskStatistics:
    """The statistics of segmentation with those of flips beside them."""

    def form(info: DatasetInfo) -> Form:
        return {**plain.form(info), **flips.FORM}

    def of(predictions: Arrays, info: DatasetInfo) -> EvaluationStatistics:
        found = plain.of(predictions, info).arrays
        return EvaluationStatistics({**found, **flips.statistics(predictions)})

    def tables(predictions: Arrays, info: DatasetInfo, minimum: int) -> list[Table]:
        return [*plain.tables(predictions, info, minimum), flips.table(predictions)]

    def measure(told: EvaluationStatistics, info: DatasetInfo) -> Measured:
        found = plain.measure(told, info)
        return replace(found, metrics={**found.metrics, **flips.measure(told)})

    def contradictions(told: EvaluationStatistics, info: DatasetInfo) -> Iterator[str]:
        yield from plain.contradictions(told, info)
        yield from flips.contradictions(told)

    return replace(
        plain, form=form, of=of, tables=tables, measure=measure, contradictions=contradictions
    )
