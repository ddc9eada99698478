"""Which subgroup a case is in, by a cell of its table: the same at every site, whatever is in it.

An experiment names the values of an attribute, or the numbers between which its groups lie. What a
table says otherwise, or does not say, is counted in a last group: texts of a site's own never leave
it, since a rare one could name a patient.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite

import numpy as np
import numpy.typing as npt

from federated.settings.subgroups import Bounds, Subgroups

# The last group of every attribute.
OTHER = "other or not stated"
# How tables say the same of a patient's sex.
SEX_WORDS: Mapping[str, str] = {
    **dict.fromkeys(("f", "female", "w", "woman"), "female"),
    **dict.fromkeys(("m", "male", "man"), "male"),
    **dict.fromkeys(("o", "other", "d", "diverse"), "other"),
}

# The group of each case ``(n,)``.
Places = npt.NDArray[np.int64]


def told_alike(text: str) -> str:
    """A cell without what makes no difference: upper case, and how much white space there is."""
    return " ".join(text.lower().split())


def number_in(text: str) -> float | None:
    """The number that a cell says, also an age as DICOM writes it (``063Y``); ``None`` if none."""
    try:
        found = float(told_alike(text).removesuffix("y").replace(",", "."))
    except ValueError:
        return None
    return found if isfinite(found) else None


def group_names(bounds: Bounds) -> tuple[str, ...]:
    """The groups of an attribute in their order, the last one of what is said otherwise or not."""
    if not _are_numbers(bounds):
        return (*map(str, bounds), OTHER)
    ends = [f"{end:g}" for end in bounds]
    between = [f"{low} to below {high}" for low, high in pairwise(ends)]
    return (f"below {ends[0]}", *between, f"{ends[-1]} and above", OTHER)


def group_of(attribute: str, bounds: Bounds, text: str) -> int:
    """The place of a cell in :func:`group_names`.

    Args:
        attribute: the column's name.
        bounds: its values, or the numbers between which groups lie. A number that is one of them is
            in the group above.
        text: the cell; empty where nothing is known.
    """
    last = len(group_names(bounds)) - 1
    if _are_numbers(bounds):
        number = number_in(text)
        ends = [float(end) for end in bounds]
        return last if number is None else int(np.searchsorted(ends, number, side="right"))
    values = [_meant(attribute, str(value)) for value in bounds]
    found = _meant(attribute, text)
    return values.index(found) if found in values else last


def meant_twice(attribute: str, bounds: Bounds) -> str | None:
    """A value that means the same as one before it, as ``female`` after ``F``; ``None`` without."""
    if _are_numbers(bounds):
        return None
    seen: set[str] = set()
    for value in map(str, bounds):
        meant = _meant(attribute, value)
        if meant in seen:
            return value
        seen.add(meant)
    return None


def _meant(attribute: str, text: str) -> str:
    told = told_alike(text)
    return SEX_WORDS.get(told, told) if told_alike(attribute) == "sex" else told


def _are_numbers(bounds: Bounds) -> bool:
    return not isinstance(bounds[0], str)


def places_of(
    cells: Sequence[Mapping[str, str]] | None, cases: int, subgroups: Subgroups
) -> dict[str, Places]:
    """The group of each case ``(cases,)``, for each attribute.

    Args:
        cells: of each case what its table says, by columns in lower case; ``None`` where the data
            set says nothing of its cases.
        cases: how many there are.
        subgroups: the attributes with their bounds.
    """
    known: Sequence[Mapping[str, str]] = [{}] * cases if cells is None else cells
    return {
        name: np.array(
            [group_of(name, bounds, each.get(name.lower(), "")) for each in known], np.int64
        )
        for name, bounds in subgroups.items()
    }
