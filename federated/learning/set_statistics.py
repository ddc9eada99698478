"""The additive statistics that thresholds of prediction sets follow from, and how good sets are.

Two histograms of probabilities, in the steps of :mod:`federated.learning.score_histogram`: of each
case's true class, from which a threshold and the coverage follow; and of all classes of each case,
from which the size of sets does. The histograms of scores for the AUC are of 16 steps a bin: where
a model says nearly the same of many cases, so many share a bin that sets would be larger than they
have to be.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from federated.data.dataset import DatasetInfo
from federated.learning.added_statistics import Addition
from federated.learning.places import PLACES
from federated.learning.score_histogram import WHOLE, score_steps
from federated.learning.statistics import EvaluationStatistics, Form, Part
from federated.update import Arrays

STEPS: Final = WHOLE * PLACES
OF_TRUE, OF_EVERY = "true_steps", "every_step"


def form(info: DatasetInfo) -> Form:
    """The arrays, of C classes.

    - ``true_steps`` ``(8192,)``: how many cases have the probability of their true class in each;
    - ``every_step`` ``(8192,)``: how many probabilities, of any class of a case, are in each.
    """
    classes = len(info.classes)
    return {
        OF_TRUE: Part((STEPS,), each_case=1),
        OF_EVERY: Part((STEPS,), each_case=classes, most=float(classes)),
    }


def counted(predictions: Arrays, info: DatasetInfo) -> Mapping[str, np.ndarray]:  # noqa: ARG001
    """The arrays of ``labels`` ``(n,)`` and ``probabilities`` ``(n, classes)``; n may be 0."""
    labels, steps = predictions["labels"], score_steps(predictions["probabilities"])
    true = steps[np.arange(len(labels)), labels]
    return {
        OF_TRUE: np.bincount(true, minlength=STEPS),
        OF_EVERY: np.bincount(steps.ravel(), minlength=STEPS),
    }


def contradictions(told: EvaluationStatistics, info: DatasetInfo) -> Iterator[str]:
    """Why they can be those of no cases: counts of the same probabilities that differ."""
    arrays, cases = told.arrays, told.cases
    true, every = arrays[OF_TRUE], arrays[OF_EVERY]
    if int(true.sum()) != cases or int(every.sum()) != cases * len(info.classes):
        yield f"{OF_TRUE!r} and {OF_EVERY!r} do not count each of {cases} cases once"
    if (true > every).any():
        yield f"{OF_TRUE!r} has more true classes than {OF_EVERY!r} has classes"
    if "scores" in arrays:
        whole = arrays["scores"][:, :, :WHOLE]
        for name, fine, coarse in (
            (OF_TRUE, true, whole[:, 1].sum(axis=0)),
            (OF_EVERY, every, whole.sum(axis=(0, 1))),
        ):
            if (fine.reshape(WHOLE, PLACES).sum(axis=1) != coarse).any():
                yield f"{name!r} and 'scores' have other numbers of probabilities in a bin"


SETS = Addition(form, counted, contradictions)
