"""The additive statistics of regression, and the metrics that follow from them.

All numbers are in parts of the target's range, from 0 at its low end to 1 at its high end, where
labels lie and predictions are kept; so no sum exceeds the number of cases, and none is negative.
All metrics follow from six sums, whether these are of one site or of all.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from federated.data.dataset import DatasetInfo
from federated.learning.classification_metrics import Metrics
from federated.learning.metric import error_over_cases, metric
from federated.learning.statistics import CASES, EvaluationStatistics, Form, Part
from federated.learning.suppression import Table
from federated.learning.task_statistics import Measured, TaskStatistics, means_over_cases
from federated.settings.target import Target
from federated.update import Arrays

# Models are judged by the first of them.
METRICS = (
    replace(
        metric("r2", "round", "end", "csv", "site", "compared", "site_spread", "selects"),
        least=None,
    ),
    error_over_cases("mae", "round", "end", "csv", "site", "compared", "selects"),
    replace(error_over_cases("rmse", "end", "csv", "compared", "selects"), needs="counts"),
    replace(metric("pearson", "end", "compared"), least=-1.0),
    replace(error_over_cases("bias", "compared"), least=None, best="largest"),
    error_over_cases("loss", "round", "csv", "site", "selects"),
)
SUMS = (
    "labels",
    "label_squares",
    "predictions",
    "prediction_squares",
    "absolute_errors",
    "squared_errors",
)
# Labels with a smaller variance count as constant, in parts of the squared range: a protected sum
# is in steps of 2^-20, so that it could not tell this from rounding. The standard deviation is then
# below 0.14 % of the range.
CONSTANT = 2.0**-19


def target_of(info: DatasetInfo) -> Target:
    """The target of a data set for regression.

    Raises:
        ValueError: its description has none.
    """
    if info.target is None:
        raise ValueError(f"{info.name} describes no number")
    return info.target


def form(info: DatasetInfo) -> Form:  # noqa: ARG001 - as every task's
    """The arrays, each ``(1,)``: the number of cases, and sums over them, in parts of the range.

    Labels and their squares, predictions and theirs, absolute errors and squared errors. No case
    adds more than 1 to any of them.
    """
    return {CASES: Part((1,)), **{name: Part((1,), real=True, most=1) for name in SUMS}}


def statistics(predictions: Arrays, info: DatasetInfo) -> EvaluationStatistics:
    """The statistics of ``labels`` ``(n,)`` and ``predicted`` ``(n,)``; n may be 0."""
    target = target_of(info)
    labels, predicted = target.share(predictions["labels"]), target.share(predictions["predicted"])
    errors = predicted - labels
    sums = (labels, labels**2, predicted, predicted**2, np.abs(errors), errors**2)
    return EvaluationStatistics(
        {
            CASES: np.array([len(labels)]),
            **{name: np.array([s.sum()]) for name, s in zip(SUMS, sums, strict=True)},
        }
    )


def tables(
    predictions: Arrays,
    info: DatasetInfo,
    minimum: int,  # noqa: ARG001 - as every task's
) -> list[Table]:
    """Which cases the sums tell apart.

    A sum over whole numbers is a count: of grades 0 and 1 it says how many are 1. So where labels
    are whole numbers, those that are equal have to be ``minimum`` cases at least. Of others the
    ends of the range are events, and so are predictions at an end, and the cases of each kind have
    to be as many. All sums are told together or not at all.
    """
    target = target_of(info)
    labels, predicted = predictions["labels"], predictions["predicted"]
    kinds = [found == end for found in (labels, predicted) for end in (target.low, target.high)]
    events = np.stack(kinds, axis=1).astype(np.int64)
    if target.whole:
        events = np.concatenate([events, labels[:, None].astype(np.int64)], axis=1)
    return [Table(SUMS, events)]


# What sums of float64 may be off by rounding, for each case.
ROUNDING = 1e-9


def contradictions(told: EvaluationStatistics, info: DatasetInfo) -> Iterator[str]:  # noqa: ARG001
    """Why sums can be those of no cases.

    All numbers are from 0 to 1, so no square is above its number; and of n numbers, (Σ x)² ≤ n·Σ x²
    by the Cauchy-Schwarz inequality. Predictions differ from labels by their errors.
    """
    if any(name not in told.arrays for name in SUMS):
        return
    cases, room = told.cases, ROUNDING * max(told.cases, 1)
    sums = {name: float(told.arrays[name][0]) for name in SUMS}
    for name, found in sums.items():
        if not -room <= found <= cases + room:
            yield f"{name!r} is {found:.6g}, of {cases} cases"
            return
    for plain, squares in (
        ("labels", "label_squares"),
        ("predictions", "prediction_squares"),
        ("absolute_errors", "squared_errors"),
    ):
        least = sums[plain] ** 2 / cases if cases else 0.0
        if not least - room <= sums[squares] <= sums[plain] + room:
            yield f"{squares!r} is {sums[squares]:.6g}, which are squares of no such {plain!r}"
    if abs(sums["predictions"] - sums["labels"]) > sums["absolute_errors"] + room:
        yield "'predictions' differ from 'labels' by more than 'absolute_errors'"


def measure(told: EvaluationStatistics, info: DatasetInfo) -> Measured:
    """The metrics of statistics, of a site or of the sum over several.

    ``r2`` is the coefficient of determination 1 − Σ(y − ŷ)² / Σ(y − ȳ)², which is 1 at best, 0 for
    the mean label and below that for what is worse; it is ``None`` where all labels are the same,
    as those of a single case are. ``mae`` is the mean absolute error, ``rmse`` the root of the
    mean squared one, and ``bias`` the mean of prediction minus label, in the number's own unit.
    ``pearson`` is the correlation of labels and predictions, ``None`` too where all predictions are
    the same; twice their covariance is what their variances together are more than that of errors.
    ``loss`` is the mean squared error in standardised numbers. All are ``None`` where there is no
    case, or where the sums are withheld.
    """
    metrics: Metrics = {known.name: None for known in METRICS}
    if not told.cases or any(name not in told.arrays for name in SUMS):
        return Measured(metrics)
    target = target_of(info)
    means = {name: float(told.arrays[name][0]) / told.cases for name in SUMS}
    variance = means["label_squares"] - means["labels"] ** 2
    # A sum may be below 0 by rounding.
    squared = max(means["squared_errors"], 0.0)
    of_predictions = means["prediction_squares"] - means["predictions"] ** 2
    of_errors = squared - (means["predictions"] - means["labels"]) ** 2
    product = (variance + of_predictions - of_errors) / 2
    both = variance > CONSTANT and of_predictions > CONSTANT
    return Measured(
        {
            "r2": 1 - squared / variance if variance > CONSTANT else None,
            "mae": target.width * means["absolute_errors"],
            "rmse": target.width * squared**0.5,
            # Beyond an end by rounding alone.
            "pearson": float(np.clip(product / np.sqrt(variance * of_predictions), -1, 1))
            if both
            else None,
            "bias": target.width * (means["predictions"] - means["labels"]),
            "loss": squared * (target.width / target.scale) ** 2,
        }
    )


def measure_cases(part: Mapping[str, np.ndarray], info: DatasetInfo) -> Measured:
    """The metrics of ``labels`` and ``predicted``, both ``(n,)``."""
    return measure(statistics(part, info), info)


REGRESSION_STATISTICS = TaskStatistics(
    form=form,
    of=statistics,
    tables=tables,
    measure=measure,
    mean_of_sites=partial(means_over_cases, METRICS),
    contradictions=contradictions,
)
