"""The additive statistics of classification with what a temperature is fitted and judged by.

Beside those of :mod:`federated.learning.classification_statistics` a site tells, at each of a fixed
list of temperatures, the sum of losses and the reliability bins. None depends on a temperature that
was fitted, so that one message is enough, and every protection sums it.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from federated.calibration.temperature import MOST_LOSS, TEMPERATURES, UNCHANGED, tempered
from federated.data.dataset import DatasetInfo
from federated.learning import classification_statistics as plain
from federated.learning.classification_metrics import (
    CALIBRATION_BINS,
    Probabilities,
    calibration_bins,
    loss_sum,
)
from federated.learning.statistics import EvaluationStatistics, Form, Part
from federated.learning.suppression import Table, smallest_group
from federated.update import Arrays

LOSS, RELIABILITY, CONFIDENCE = "tempered_loss", "tempered_reliability", "tempered_confidence"
NAMES: Final = (LOSS, RELIABILITY, CONFIDENCE)
STEPS: Final = len(TEMPERATURES)


def form(info: DatasetInfo) -> Form:
    """The arrays: those without a temperature and, of T temperatures,

    - ``tempered_loss`` ``(T,)``: the sum of the negative log likelihoods, in nats;
    - ``tempered_reliability`` ``(T, 15, 2)``: of each bin of confidence the cases predicted
      wrongly, rightly;
    - ``tempered_confidence`` ``(T, 15)``: the sum of the confidences in each of these bins.
    """
    return {
        **plain.form(info),
        LOSS: Part((STEPS,), real=True, most=MOST_LOSS),
        RELIABILITY: Part((STEPS, CALIBRATION_BINS, 2), each_case=STEPS),
        CONFIDENCE: Part((STEPS, CALIBRATION_BINS), real=True, most=1.0),
    }


def statistics(predictions: Arrays, info: DatasetInfo) -> EvaluationStatistics:
    """The statistics of ``labels`` ``(n,)`` and ``probabilities`` ``(n, classes)``; n may be 0."""
    labels, probabilities = predictions["labels"], predictions["probabilities"]
    right = (probabilities.argmax(axis=1) == labels).astype(np.int64)
    losses = np.zeros(STEPS)
    reliability = np.zeros((STEPS, CALIBRATION_BINS, 2), np.int64)
    confidence = np.zeros((STEPS, CALIBRATION_BINS))
    for step, temperature in enumerate(TEMPERATURES):
        found = tempered(probabilities, temperature)
        bins = calibration_bins(_confidence(found))
        losses[step] = loss_sum(labels, found)
        np.add.at(reliability[step], (bins, right), 1)
        np.add.at(confidence[step], bins, _confidence(found))
    added = {LOSS: losses, RELIABILITY: reliability, CONFIDENCE: confidence}
    return EvaluationStatistics({**plain.statistics(predictions, info).arrays, **added})


def _confidence(probabilities: Probabilities) -> Probabilities:
    found: Probabilities = probabilities.max(axis=1, initial=0.0)
    return found


def suppressed(predictions: Arrays, info: DatasetInfo, minimum: int) -> frozenset[str]:
    """The arrays that a site withholds, so that no count below ``minimum`` can be read.

    Losses at many temperatures tell cases apart whose probabilities differ at all, so that they go
    with a table in which such cases are in cells of their own.
    """
    gone = plain.suppressed(predictions, info, minimum)
    if not minimum:
        return gone
    labels, probabilities = predictions["labels"], predictions["probabilities"]
    cells = np.unique(np.column_stack([labels, probabilities]), axis=0, return_inverse=True)[1]
    table = Table(NAMES, cells.reshape(len(labels), 1))
    return gone | (frozenset(NAMES) if smallest_group([table.cells]) < minimum else frozenset())


def contradictions(told: EvaluationStatistics, info: DatasetInfo) -> Iterator[str]:
    """Why statistics can be those of no cases, at a temperature or without one."""
    yield from plain.contradictions(told, info)
    cases, arrays = told.cases, told.arrays
    there = [name for name in NAMES if name in arrays]
    if there and len(there) != len(NAMES):
        yield f"{there[0]!r} is told without {min(set(NAMES) - set(there))!r}"
        return
    if not there:
        return
    counts, confidence, losses = arrays[RELIABILITY], arrays[CONFIDENCE], arrays[LOSS]
    if (counts.sum(axis=(1, 2)) != cases).any():
        yield f"{RELIABILITY!r} does not count each of {cases} cases once at each temperature"
    if len(np.unique(counts[:, :, 1].sum(axis=1))) > 1:
        yield f"{RELIABILITY!r} has other numbers of right predictions at other temperatures"
    level, total = np.arange(CALIBRATION_BINS + 1) / CALIBRATION_BINS, counts.sum(axis=2)
    low, high = level[:-1] * total - plain.ROUNDING, level[1:] * total + plain.ROUNDING
    if not ((low <= confidence) & (confidence <= high)).all():
        yield f"{CONFIDENCE!r} is not between the edges of its bins"
    most = MOST_LOSS * cases + plain.ROUNDING
    if not ((losses >= -plain.ROUNDING) & (losses <= most)).all():
        yield f"{LOSS!r} has a value that is not from 0 to {most:.6g}"
    # At 1 nothing is divided: what is told there is told twice.
    for name, found in (
        ("loss", losses[UNCHANGED : UNCHANGED + 1]),
        ("reliability", counts[UNCHANGED]),
        ("confidence", confidence[UNCHANGED]),
    ):
        if name in arrays and (np.abs(arrays[name] - found) > plain.ROUNDING).any():
            yield f"'tempered_{name}' at the temperature 1 is not {name!r}"


TEMPERED_STATISTICS = replace(
    plain.CLASSIFICATION_STATISTICS,
    form=form,
    of=statistics,
    suppressed=suppressed,
    contradictions=contradictions,
)
