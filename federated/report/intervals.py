"""How uncertain a metric of the test cases is, from the statistics that sites share.

A metric of few cases varies with the cases that happened to be in the test split. Intervals here
are of 95 % and speak of nothing else: not of other seeds, other sites or other scanners.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from federated.data.dataset import DatasetInfo
from federated.learning.segmentation_metrics import NAMES
from federated.learning.statistics import EvaluationStatistics
from federated.randomness import numpy_generator
from federated.report.curves import Interval, Z, mean_interval, roc_curves

RESAMPLES = 2000


@dataclass(frozen=True)
class Intervals:
    """Intervals by the metric's name, and for a person the ways in which they were found."""

    of: Mapping[str, Interval]
    how: Sequence[str]


NONE = Intervals({}, ())


def intervals_of(statistics: EvaluationStatistics, info: DatasetInfo, seed: int) -> Intervals:
    """The intervals of metrics of test cases, as far as they follow from summed statistics.

    Args:
        statistics: over the test cases of all sites.
        info: of the data set.
        seed: what resampling draws by.
    """
    if not statistics.cases:
        return NONE
    found = {
        "classification": _classification,
        "multilabel": _multilabel,
        "regression": _regression,
        "segmentation": _segmentation,
    }[info.task](statistics, info, seed)
    parts = [part for part in found if part.of]
    return Intervals(
        {name: interval for part in parts for name, interval in part.of.items()},
        [line for part in parts for line in part.how],
    )


def _classification(
    statistics: EvaluationStatistics, info: DatasetInfo, seed: int
) -> list[Intervals]:
    return [_areas(statistics, info), _of_counts(statistics, seed)]


def _multilabel(
    statistics: EvaluationStatistics,
    info: DatasetInfo,
    seed: int,  # noqa: ARG001 - as every task's
) -> list[Intervals]:
    return [_areas(statistics, info)]


def _areas(statistics: EvaluationStatistics, info: DatasetInfo) -> Intervals:
    curves = roc_curves(statistics, info.classes, info.task)
    found = {f"auc_{c.name}": c.interval for c in curves} | {"auc": mean_interval(curves)}
    several = (
        " Of the mean over classes the interval is an upper bound: how the AUCs of two classes "
        "vary together is not shared."
        if len(curves) > 1
        else ""
    )
    return Intervals(
        {name: interval for name, interval in found.items() if interval is not None},
        [
            "AUC: DeLong's method, from the histograms of scores that sites share, over cases."
            + several
        ],
    )


def _of_counts(statistics: EvaluationStatistics, seed: int) -> Intervals:
    """The bootstrap of what follows from confusion counts, which needs no single case."""
    counts = statistics.arrays.get("confusion")
    if counts is None:
        return NONE
    draws = numpy_generator(seed, purpose="report").multinomial(
        statistics.cases, counts.ravel() / statistics.cases, RESAMPLES
    )
    resampled = draws.reshape(RESAMPLES, *counts.shape)
    there = counts.sum(axis=1) > 0
    true, predicted = resampled.sum(axis=2)[:, there], resampled.sum(axis=1)[:, there]
    hits = np.einsum("rcc->rc", resampled)[:, there]
    metrics: Mapping[str, Callable[[], npt.NDArray[np.float64]]] = {
        "accuracy": lambda: np.einsum("rcc->r", resampled) / statistics.cases,
        "balanced_accuracy": lambda: _mean(hits, true, true),
        "recall": lambda: _mean(hits, true, true),
        "precision": lambda: _mean(hits, np.maximum(predicted, 1), true),
        "f1": lambda: _mean(2 * hits, true + predicted, true),
    }
    return Intervals(
        {name: _percentiles(values()) for name, values in metrics.items()},
        [
            "Accuracy, precision, recall and F1: the bootstrap over cases, "
            f"{RESAMPLES} resamples, from the confusion counts."
        ],
    )


def _mean(
    upper: npt.NDArray[np.int64], lower: npt.NDArray[np.int64], true: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """The mean over the classes that a resample has cases of, of each resample."""
    there = true > 0
    shares = np.where(there, upper / np.maximum(lower, 1), 0.0)
    return np.asarray(shares.sum(axis=1) / np.maximum(there.sum(axis=1), 1))


def _percentiles(values: npt.NDArray[np.float64]) -> Interval:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def _segmentation(
    statistics: EvaluationStatistics,
    info: DatasetInfo,
    seed: int,  # noqa: ARG001 - as every task's
) -> list[Intervals]:
    """Student's t over patients: the sums of scores and of their products give the deviation."""
    arrays = statistics.arrays
    if any(name not in arrays for name in ("patients", "sums", "products", "with_class")):
        return []
    patients, labels = int(arrays["patients"][0]), info.classes[1:]
    there = np.flatnonzero(arrays["with_class"])
    if patients < 2 or not len(there):
        return []
    found: dict[str, Interval] = {}
    for number, name in enumerate(NAMES):
        groups = {name: there} | {f"{name}_{labels[label]}": np.array([label]) for label in there}
        most = 1.0 if name == "dice" else np.inf
        for key, classes in groups.items():
            mean = float(arrays["sums"][number][classes].mean()) / patients
            products = arrays["products"][number][np.ix_(classes, classes)]
            squares = float(products.sum()) / len(classes) ** 2
            variance = max(squares - patients * mean**2, 0.0) / (patients - 1)
            half = float(stdtrit(patients - 1, 0.975) * np.sqrt(variance / patients))
            found[key] = (max(mean - half, 0.0), min(mean + half, most))
    return [
        Intervals(
            found,
            [
                f"Student's t over {patients} patients, from the sums of their scores and of the "
                "squares of these that sites share."
            ],
        )
    ]


def _regression(
    statistics: EvaluationStatistics,
    info: DatasetInfo,
    seed: int,  # noqa: ARG001 - as every task's
) -> list[Intervals]:
    arrays, cases = statistics.arrays, statistics.cases
    names = ("absolute_errors", "squared_errors", "labels", "predictions")
    if any(name not in arrays for name in names) or cases < 2 or info.target is None:
        return []
    mae, squared, labels, predictions = (float(arrays[name][0]) / cases for name in names)
    bias, width = predictions - labels, info.target.width
    found: dict[str, Interval] = {}
    for name, mean in (("mae", mae), ("bias", bias)):
        half = Z * float(np.sqrt(max(squared - mean**2, 0.0) / (cases - 1)))
        low = mean - half if name == "bias" else max(mean - half, 0.0)
        found[name] = (width * low, width * (mean + half))
    return [
        Intervals(
            found,
            ["MAE and bias: the normal distribution over cases, from the sums that sites share."],
        )
    ]
