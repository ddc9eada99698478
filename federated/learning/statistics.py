"""What a site tells of how good a model is at its cases: counts and sums that add up over sites.

Which arrays there are, and their shapes, follow from the data set's classes alone and never from a
site's cases. So the statistics of all sites add up, whatever they are summed by; protections add
them as the whole numbers of :mod:`federated.learning.quantised_statistics`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from federated.errors import ConsiliumError
from federated.update import Arrays

# The names of the arrays of statistics, each with its shape and its kind.
Form = Mapping[str, "Part"]
# The number of cases: known of each site anyway, so it is never withheld.
CASES = "cases"


@dataclass(frozen=True)
class Part:
    """The form of one array: its shape, and whether it holds sums of real numbers or counts.

    ``each_case`` is how many cells count each case, where that is the same for all; ``occurs`` says
    that something is counted wherever there is a case. ``most`` is the largest number that one case
    adds to a value: 1 to a count, if it is left out; to a sum of real numbers any. No case adds
    less than 0.
    """

    shape: tuple[int, ...]
    real: bool = False
    each_case: int | None = None
    occurs: bool = False
    most: float | None = None


@dataclass(frozen=True)
class EvaluationStatistics:
    """Counts (int64) and sums (float64) over the cases of one split, by name.

    ``withheld`` are the names of arrays that were not told, by this site or by one of those that
    the statistics are summed over. They are not among ``arrays``: nothing may be computed of them.
    """

    arrays: Arrays
    withheld: frozenset[str] = field(default_factory=frozenset)

    @property
    def cases(self) -> int:
        """The number of cases."""
        return int(self.arrays[CASES][0])

    def without(self, names: Iterable[str]) -> "EvaluationStatistics":
        """The same without some arrays, which are withheld."""
        gone = frozenset(names)
        kept = {name: array for name, array in self.arrays.items() if name not in gone}
        return EvaluationStatistics(kept, self.withheld | gone)


class Total:
    """The sum of statistics that are added one after the other, as :func:`add` gives it."""

    def __init__(self, form: Form) -> None:
        self._sums: dict[str, npt.NDArray[Any]] = {
            name: np.zeros(part.shape, np.float64 if part.real else np.int64)
            for name, part in form.items()
        }
        self._withheld: frozenset[str] = frozenset()

    def add(self, part: EvaluationStatistics) -> None:
        """Add the statistics of some more cases, which are not kept."""
        self._withheld |= part.withheld
        for name, array in part.arrays.items():
            self._sums[name] = self._sums[name] + array

    @property
    def statistics(self) -> EvaluationStatistics:
        """Those over the cases of all parts so far."""
        return EvaluationStatistics(dict(self._sums)).without(self._withheld)


def add(parts: Iterable[EvaluationStatistics], form: Form) -> EvaluationStatistics:
    """The statistics over the cases of all parts together.

    What one of the parts withholds the sum has not: a sum over the others alone would be of other
    cases than its name says.
    """
    total = Total(form)
    for part in parts:
        total.add(part)
    return total.statistics


def to_wire(statistics: EvaluationStatistics) -> Arrays:
    """The arrays as they travel: counts as int32, sums as float64, and none that is withheld."""
    return {
        name: array if array.dtype.kind == "f" else array.astype(np.int32)
        for name, array in statistics.arrays.items()
    }


def from_wire(arrays: Arrays, form: Form, whose: str) -> EvaluationStatistics:
    """What :func:`to_wire` made, checked against the form; ``whose`` it is says a message.

    Raises:
        ConsiliumError: an array is not known, or has another shape, type or range.
    """
    wrong = [f"{name!r:.80} is not known" for name in arrays if name not in form]
    wrong += [f"{CASES!r} is missing"] if CASES not in arrays else []
    for name, part in form.items():
        found = arrays.get(name)
        if found is None:
            continue
        dtype = "float64" if part.real else "int32"
        if found.shape != part.shape or found.dtype.name != dtype:
            wrong.append(f"{name!r} is {found.dtype.name} {found.shape}, not {dtype} {part.shape}")
        elif not np.isfinite(found).all() or (not part.real and (found < 0).any()):
            wrong.append(f"{name!r} has what is no {'number' if part.real else 'count'}")
    if wrong:
        raise ConsiliumError(
            f"The evaluation statistics of {whose} are refused: {'; '.join(wrong[:3])}. They may "
            "be of another version, or of another evaluation.share than the run's. Remove the "
            "round's folder and resume the run, so that they are made again."
        )
    known = {
        name: array if form[name].real else array.astype(np.int64) for name, array in arrays.items()
    }
    return EvaluationStatistics(known, frozenset(form) - frozenset(arrays))
