"""Which columns of a table could be what is to be learned: a class, several labels, or a number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor, log10
from typing import Any

from federated.data.folders.described.table_roles import ATTRIBUTES
from federated.data.folders.families.side_table import known_number, known_value
from federated.settings.description import DescribedTask

# A column with so many values at most may be a class.
MOST_CLASSES = 20


@dataclass(frozen=True)
class ProposedLabels:
    """What may be learned of a table without masks.

    ``keys`` are those of ``dataset.yaml`` that say it, beside the task and its ``columns``, and
    ``doubts`` what a person has to look at.
    """

    task: DescribedTask
    columns: tuple[str, ...]
    keys: Mapping[str, Any]
    doubts: tuple[str, ...] = field(default=())

    @property
    def label(self) -> str | list[str]:
        """The value of ``columns.label``."""
        return list(self.columns) if self.task == "multilabel" else self.columns[0]


def proposed_labels(
    named: str | None, columns: Mapping[str, Sequence[str]], left: Sequence[str]
) -> ProposedLabels | None:
    """The columns that are taken for labels; ``None`` where none could be.

    A column whose name says that it is the label comes first. Then several of 0 and 1 are labels,
    one of few values is a class, and one of other numbers is a number.

    Args:
        named: the column that is called as a label is, if there is one.
        columns: the cells of each column.
        left: the columns whose names mean nothing else.
    """
    if named and could_be_class(columns[named]):
        return _classes(named, columns)
    if named and _numbers(columns[named]):
        return _number(named, columns)
    others = [name for name in left if name not in ATTRIBUTES]
    classes = [name for name in others if could_be_class(columns[name])]
    if len(classes) > 1 and all(_of_0_and_1(columns[name]) for name in classes):
        doubt = (
            f"the columns {', '.join(classes)} hold 0 and 1, and are taken for labels of which a "
            "case may have several; one that is none belongs under attributes"
        )
        return ProposedLabels("multilabel", tuple(classes), {}, (doubt,))
    if classes:
        doubt = f"{classes[0]} is taken for the label; {', '.join(classes[1:]) or 'none'} else"
        return _classes(classes[0], columns, doubt)
    numbers = [name for name in others if _numbers(columns[name])]
    if numbers:
        doubt = f"{numbers[0]} is taken for the number; {', '.join(numbers[1:]) or 'none'} else"
        return _number(numbers[0], columns, doubt)
    return None


def could_be_class(cells: Sequence[str]) -> bool:
    """Whether cells have few values, each of several cases."""
    values = {known_value(cell) or cell for cell in cells if cell}
    return 2 <= len(values) <= min(MOST_CLASSES, len(cells) / 2)


def _classes(name: str, columns: Mapping[str, Sequence[str]], *doubts: str) -> ProposedLabels:
    labels = {value: value for value in sorted(set(columns[name]))}
    return ProposedLabels("classification", (name,), {"labels": labels}, doubts)


def _number(name: str, columns: Mapping[str, Sequence[str]], *doubts: str) -> ProposedLabels:
    found = _numbers(columns[name])
    step = 10.0 ** floor(log10(max(found) - min(found)))
    low, high = floor(min(found) / step) * step, ceil(max(found) / step) * step
    whole = all(number == round(number) for number in found)
    target = {"low": round(low, 9), "high": round(high, 9), "whole": whole}
    doubt = (
        f"the range of {name} is that of the labels here, made somewhat wider: write the one that "
        "is known beforehand, since every model of the set tells it, and labels beyond are refused"
    )
    return ProposedLabels("regression", (name,), {"target": target}, (*doubts, doubt))


def _of_0_and_1(cells: Sequence[str]) -> bool:
    return {known_value(cell) for cell in cells} == {"0", "1"}


def _numbers(cells: Sequence[str]) -> list[float]:
    """The numbers of cells; none where a cell has none, or all have the same."""
    found = [number for cell in cells if (number := known_number(cell)) is not None]
    return found if len(found) == len(cells) and len(set(found)) > 1 else []
