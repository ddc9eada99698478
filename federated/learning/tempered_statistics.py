"""The additive statistics that a temperature is fitted and judged by.

Beside those of :mod:`federated.learning.classification_statistics` a site tells, at each of a fixed
list of temperatures, the sum of losses and the reliability bins. None depends on a temperature that
was fitted, so that one message is enough, and every protection sums it.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from federated.calibration.temperature import MOST_LOSS, NEAREST, TEMPERATURES, UNCHANGED, tempered
from federated.data.dataset import DatasetInfo
from federated.learning.added_statistics import Addition
from federated.learning.classification_metrics import (
    CALIBRATION_BINS,
    Probabilities,
    calibration_bins,
    loss_sum,
)
from federated.learning.classification_statistics import ROUNDING
from federated.learning.statistics import EvaluationStatistics, Form, Part
from federated.update import Arrays

LOSS, RELIABILITY, CONFIDENCE = "tempered_loss", "tempered_reliability", "tempered_confidence"
STEPS: Final = len(TEMPERATURES)


def form(info: DatasetInfo) -> Form:  # noqa: ARG001 - as every addition's
    """The arrays, of T temperatures.

    - ``tempered_loss`` ``(T,)``: the sum of the negative log likelihoods, in nats;
    - ``tempered_reliability`` ``(T, 15, 2)``: of each bin of confidence the cases predicted
      wrongly, rightly;
    - ``tempered_confidence`` ``(T, 15)``: the sum of the confidences in each of these bins.
    """
    return {
        LOSS: Part((STEPS,), real=True, most=MOST_LOSS),
        RELIABILITY: Part((STEPS, CALIBRATION_BINS, 2), each_case=STEPS),
        CONFIDENCE: Part((STEPS, CALIBRATION_BINS), real=True, most=1.0),
    }


def summed(predictions: Arrays, info: DatasetInfo) -> Mapping[str, np.ndarray]:  # noqa: ARG001
    """The arrays of ``labels`` ``(n,)`` and ``probabilities`` ``(n, classes)``; n may be 0."""
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
    return {LOSS: losses, RELIABILITY: reliability, CONFIDENCE: confidence}


def _confidence(probabilities: Probabilities) -> Probabilities:
    found: Probabilities = probabilities.max(axis=1, initial=0.0)
    return found


def _possible(counts: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest sums of losses ``(T,)`` of predictions in these bins.

    A right prediction has its confidence as likelihood. A wrong one has at most that, and at most
    what is left beside it; of two classes exactly what is left, of more it may be next to nothing.

    Args:
        counts: ``(T, bins, 2)``, of each bin of confidence the cases predicted wrongly, rightly.
        classes: how many there are.
    """
    level = np.arange(CALIBRATION_BINS + 1) / CALIBRATION_BINS
    low, high = level[:-1], level[1:]
    wrong, right = counts[:, :, 0], counts[:, :, 1]
    least = right @ -np.log(high) + wrong @ -np.log(np.minimum(high, 1 - low))
    unlikeliest = np.maximum(1 - high, NEAREST) if classes == 2 else NEAREST
    largest = right @ -np.log(np.maximum(low, 1 / classes)) + wrong @ np.broadcast_to(
        -np.log(unlikeliest), low.shape
    )
    return least, largest


def contradictions(told: EvaluationStatistics, info: DatasetInfo) -> Iterator[str]:
    """Why they can be those of no cases, by themselves or beside what is told without them."""
    cases, arrays = told.cases, told.arrays
    counts, confidence, losses = arrays[RELIABILITY], arrays[CONFIDENCE], arrays[LOSS]
    if (counts.sum(axis=(1, 2)) != cases).any():
        yield f"{RELIABILITY!r} does not count each of {cases} cases once at each temperature"
    if len(np.unique(counts[:, :, 1].sum(axis=1))) > 1:
        yield f"{RELIABILITY!r} has other numbers of right predictions at other temperatures"
    level, total = np.arange(CALIBRATION_BINS + 1) / CALIBRATION_BINS, counts.sum(axis=2)
    low, high = level[:-1] * total - ROUNDING, level[1:] * total + ROUNDING
    if not ((low <= confidence) & (confidence <= high)).all():
        yield f"{CONFIDENCE!r} is not between the edges of its bins"
    most = MOST_LOSS * cases + ROUNDING
    if not ((losses >= -ROUNDING) & (losses <= most)).all():
        yield f"{LOSS!r} has a value that is not from 0 to {most:.6g}"
    least, largest = _possible(counts, len(info.classes))
    if not ((losses >= least - ROUNDING) & (losses <= largest + ROUNDING)).all():
        yield f"{LOSS!r} is not one that predictions of these confidences have"
    # At 1 nothing is divided: what is told there is told twice.
    for name, found in (
        ("loss", losses[UNCHANGED : UNCHANGED + 1]),
        ("reliability", counts[UNCHANGED]),
        ("confidence", confidence[UNCHANGED]),
    ):
        if name in arrays and (np.abs(arrays[name] - found) > ROUNDING).any():
            yield f"'tempered_{name}' at the temperature 1 is not {name!r}"


TEMPERED = Addition(form, summed, contradictions)
