"""What a site has told of its evaluation, checked before it touches what the others have told.

A sum or a mean over sites has no value, or a wrong one, as soon as one part of it is none. So the
part of each site has to be one that *could* follow from as many cases as the site is known to have.
That it does follow from them nobody can check: what is possible is the site's word.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from federated.data.dataset import SPLITS, DatasetInfo, Split
from federated.errors import ConsiliumError
from federated.learning.base import LearningTask
from federated.learning.metric import Metric
from federated.learning.statistics import CASES, from_wire
from federated.settings.sections import EvaluationSettings
from federated.update import Arrays

METRIC = "metric "
LARGEST = float(np.finfo(np.float64).max)


def refuse_told(
    task: LearningTask,
    told: Mapping[Split, Arrays],
    info: DatasetInfo,
    settings: EvaluationSettings,
    cases: Mapping[Split, int],
    whose: str,
) -> None:
    """Refuse what cannot be an evaluation of a site's cases.

    Args:
        task: what is learned.
        told: what the site has sent, with :func:`federated.learning.sharing.shared_arrays`.
        info: of the data set.
        settings: what sites share.
        cases: how many cases the site has in each split.
        whose: the site.

    Raises:
        ConsiliumError: it cannot be one; the message says why.
    """
    wrong = {
        "statistics": _wrong_statistics,
        "metrics": _wrong_metrics,
        "predictions": _wrong_predictions,
    }[settings.share]
    for split in SPLITS[1:]:
        for reason in wrong(task, told.get(split, {}), info, settings, cases[split]):
            raise ConsiliumError(
                f"What {whose} has told of its evaluation on {split} is refused: {reason}."
            )


def _wrong_statistics(
    task: LearningTask, arrays: Arrays, info: DatasetInfo, settings: EvaluationSettings, cases: int
) -> Iterator[str]:
    try:
        statistics = from_wire(arrays, task.statistics.form(info), "the site")
    except ConsiliumError as error:
        yield str(error).rstrip(".")
        return
    if statistics.cases != cases:
        yield f"it is of {statistics.cases} cases, and the site has {cases}"
    if statistics.withheld and not settings.min_count:
        yield f"{min(statistics.withheld)!r} is missing, and nothing is to be withheld"
    yield from task.statistics.contradictions(statistics, info)


def _wrong_metrics(
    task: LearningTask, arrays: Arrays, info: DatasetInfo, settings: EvaluationSettings, cases: int
) -> Iterator[str]:
    weights = task.statistics.weights
    optional = set(weights[1:]) if settings.min_count else set()
    nothing = task.statistics.of_nothing(info)
    names = {f"{METRIC}{name}" for name in task.statistics.measure(nothing, info).metrics}
    other = (names | set(weights)) ^ set(arrays)
    if other - optional:
        yield f"{min(other - optional)!r:.80} is missing or not known"
        return
    for name, array in arrays.items():
        expected = "float64" if name in names else "int32"
        if array.shape != (1,) or array.dtype.name != expected:
            yield f"{name!r:.80} is {array.dtype.name} {array.shape}, not {expected} (1,)"
            return
    if int(arrays[CASES][0]) != cases:
        yield f"it is of {int(arrays[CASES][0])} cases, and the site has {cases}"
    for name in set(weights) & set(arrays):
        if not (cases > 0) <= int(arrays[name][0]) <= cases:
            yield f"{name!r} is {int(arrays[name][0])}, of {cases} cases"
    for name in names:
        plain = name.removeprefix(METRIC)
        known, value = task.metric_of(plain), float(arrays[name][0])
        if np.isnan(value):
            if plain == known.name and known.always and cases and not settings.min_count:
                yield f"{plain} has no value, and there are {cases} cases"
        elif not _within(value, known):
            yield f"{plain} is {value:.6g}"


def _within(value: float, metric: Metric) -> bool:
    """Whether a metric can have a value; a mean may be beyond an end by rounding."""
    least = -LARGEST if metric.least is None else metric.least - 1e-9
    largest = LARGEST if metric.largest is None else metric.largest + 1e-9
    return least <= value <= largest


def _wrong_predictions(
    task: LearningTask,
    arrays: Arrays,
    info: DatasetInfo,
    settings: EvaluationSettings,  # noqa: ARG001 - as every form's
    cases: int,
) -> Iterator[str]:
    forms = task.forms(info)
    if arrays.keys() != forms.keys():
        yield f"{min(arrays.keys() ^ forms.keys())!r:.80} is missing or not known"
        return
    for name, form in forms.items():
        array = arrays[name]
        if array.shape != (cases, *form.shape) or array.dtype.kind not in form.kinds:
            yield (
                f"{name!r} is {array.dtype.name} {array.shape}, and of {cases} cases it has the "
                f"shape {(cases, *form.shape)}"
            )
        elif array.size and not (form.least <= array.min() and array.max() <= form.most(cases)):
            # NaN is not between any two numbers.
            yield f"{name!r} has a value out of range"
        elif form.distribution and (np.abs(array.sum(axis=1) - 1) > 1e-6).any():
            yield f"{name} of a case do not sum to 1"
