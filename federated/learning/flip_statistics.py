"""How far a segmentation changes with the image turned over, as sums over a site's cases.

Of each case the variance of :mod:`federated.learning.flip_variance` is meaned over the voxels in
which the mask that was predicted or the true one has something, the region; and over those of them
that were predicted rightly, and wrongly. Where it is larger in what was predicted wrongly, it says
something of where errors are.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from federated.data.cases import Cases
from federated.data.folders.families import Family
from federated.learning.classification_metrics import Metrics
from federated.learning.flip_variance import flip_variance
from federated.learning.segmentation import segment
from federated.learning.statistics import EvaluationStatistics, Form, Part
from federated.learning.suppression import Table
from federated.update import Arrays

# What is meaned over in each case, and what the metrics are called.
PARTS: Final = ("", "_right", "_wrong")
FLIP: Final = "flip_variance"
FLIP_CASES: Final = "flip_cases"
# No variance of numbers from 0 to 1 is larger.
LARGEST: Final = 0.25
ROUNDING: Final = 1e-6

FORM: Form = {
    FLIP_CASES: Part((len(PARTS),)),
    FLIP: Part((len(PARTS),), real=True, most=LARGEST),
}


def predict_flips(model: nn.Module, cases: Cases, device: torch.device) -> Arrays:
    """Of each case the mean variances ``(n, 3)``, and which of them there are ``(n, 3)``.

    They are of the region, of what of it was predicted rightly, and wrongly, on the grid that the
    network sees. A mean over no voxel is 0 and said not to be there.
    """
    from federated.data.folders.segmented_cases import SegmentedCases

    assert isinstance(cases, SegmentedCases)
    rows = []
    for index in range(len(cases)):
        case = cases.case(index)
        assert case.whole_mask is not None
        probabilities = partial(_probabilities, model, cases.family, device)
        variance = flip_variance(probabilities, case.whole)
        predicted = probabilities(case.whole).argmax(dim=0)
        rows.append(_means(variance, predicted, case.whole_mask.long()))
    means = np.array(rows, np.float64).reshape(-1, len(PARTS), 2)
    return {FLIP: means[..., 0], FLIP_CASES: means[..., 1] > 0}


def _probabilities(model: nn.Module, family: Family, device: torch.device, image: Tensor) -> Tensor:
    return segment(model, image, family, device).softmax(dim=0).cpu()


def _means(variance: Tensor, predicted: Tensor, truth: Tensor) -> list[tuple[float, float]]:
    region, right = (predicted > 0) | (truth > 0), predicted == truth
    parts = (region, region & right, region & ~right)
    return [
        (float(variance[part].mean()), 1.0) if bool(part.any()) else (0.0, 0.0) for part in parts
    ]


def statistics(predictions: Arrays) -> Mapping[str, np.ndarray]:
    """The sums of :func:`predict_flips` over cases, and over how many."""
    return {
        FLIP_CASES: predictions[FLIP_CASES].sum(axis=0).astype(np.int64),
        FLIP: predictions[FLIP].sum(axis=0),
    }


def table(predictions: Arrays) -> Table:
    """Which cases they tell apart: those of which something was predicted wrongly, and rightly."""
    return Table((FLIP_CASES, FLIP), predictions[FLIP_CASES].astype(np.int64))


def contradictions(told: EvaluationStatistics) -> Iterator[str]:
    """Why they can be those of no cases."""
    there, sums = told.arrays.get(FLIP_CASES), told.arrays.get(FLIP)
    if (there is None) != (sums is None):
        yield f"{FLIP!r} and {FLIP_CASES!r} are not told together"
    if there is None or sums is None:
        return
    if (there > told.cases).any() or (there[1:] > there[0]).any():
        yield f"{FLIP_CASES!r} counts more cases than there are"
    if there[0] > there[1:].sum():
        yield f"{FLIP_CASES!r} has cases in which nothing is right or wrong"
    if (sums < -ROUNDING).any() or (sums > LARGEST * there + ROUNDING).any():
        yield f"{FLIP!r} is not from 0 to {LARGEST:g} for each case"


def measure(told: EvaluationStatistics) -> Metrics:
    """The means over cases, by the names of the metrics."""
    there, sums = told.arrays.get(FLIP_CASES), told.arrays.get(FLIP)
    if there is None or sums is None:
        return {f"{FLIP}{part}": None for part in PARTS}
    return {
        f"{FLIP}{part}": float(total / count) if count else None
        for part, total, count in zip(PARTS, sums, there, strict=True)
    }
