"""Statistics that a site tells beside those of its task, where an experiment asks for more."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from federated.data.dataset import DatasetInfo
from federated.learning.statistics import EvaluationStatistics, Form
from federated.learning.suppression import Table
from federated.learning.task_statistics import TaskStatistics
from federated.update import Arrays


@dataclass(frozen=True)
class Addition:
    """More arrays of a classifier's cases, which are told all or none.

    ``form`` gives their names and shapes, ``of`` the arrays of what a task's ``predict`` gives, and
    ``contradictions`` why what is told can be that of no cases, beside what else is told of them.
    """

    form: Callable[[DatasetInfo], Form]
    of: Callable[[Arrays, DatasetInfo], Mapping[str, np.ndarray]]
    contradictions: Callable[[EvaluationStatistics, DatasetInfo], Iterator[str]]


def with_additions(plain: TaskStatistics, additions: Sequence[Addition]) -> TaskStatistics:
    """The statistics of classification with more arrays; metrics follow from the others as ever."""

    def form(info: DatasetInfo) -> Form:
        found = dict(plain.form(info))
        for addition in additions:
            found |= addition.form(info)
        return found

    def of(predictions: Arrays, info: DatasetInfo) -> EvaluationStatistics:
        found = dict(plain.of(predictions, info).arrays)
        for addition in additions:
            found |= addition.of(predictions, info)
        return EvaluationStatistics(found)

    def tables(predictions: Arrays, info: DatasetInfo, minimum: int) -> list[Table]:
        """Which cases are told apart: by additions any two that differ at all.

        Sums at many temperatures tell cases apart whose probabilities differ at all.
        """
        cells = np.column_stack([predictions["labels"], predictions["probabilities"]])
        names = tuple(name for addition in additions for name in addition.form(info))
        return [*plain.tables(predictions, info, minimum), Table(names, _numbered(cells))]

    def contradictions(told: EvaluationStatistics, info: DatasetInfo) -> Iterator[str]:
        yield from plain.contradictions(told, info)
        for addition in additions:
            names = set(addition.form(info))
            missing = names - set(told.arrays)
            if missing and missing != names:
                yield f"{min(names - missing)!r} is told without {min(missing)!r}"
            elif not missing:
                yield from addition.contradictions(told, info)

    return replace(plain, form=form, of=of, tables=tables, contradictions=contradictions)


def _numbered(rows: np.ndarray) -> np.ndarray:
    """For each row the number of its value ``(n, 1)``, the same for rows that are equal."""
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(len(rows), 1)
