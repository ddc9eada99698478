"""What a page is made of: the values of a run, and numbers that say where they are from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, TypeGuard

from markupsafe import Markup

from federated.configuration.experiment import Experiment
from federated.data.dataset import DatasetInfo, Split
from federated.learning.statistics import EvaluationStatistics

# Of more sites than a person reads, a table or a list has as many.
MOST_LISTED = 100
# In place of a number that there is not.
NONE = Markup('<span class="none">–</span>')


@dataclass(frozen=True)
class RunValues:
    """A finished run, as the coordinator knows it.

    Attributes:
        summary: ``summary.json``.
        experiment: the resolved configuration.
        info: of the data set.
        records: the records of all rounds, in order.
        cases: how many cases each site has, by split.
        statistics: what sites have told of their test cases in the round that is kept, summed over
            sites; ``None`` where nothing is known.
        validation: ``validation.json``, as far as the coordinator may read it; ``None`` where sites
            keep it.
        population: ``statistics.json`` of the same cases, where sites have counted them.
        pictures: PNG files of test cases with their masks, by ``SITE-worst`` and so on.
        groups: of each attribute of subgroups the statistics of its test cases, in the order of the
            groups, summed over the sites that tell them.
        planned: whether sites have counted their training cases for a plan before the first round.
        left_out: sentences on what could not be read, and is not on the page.
    """

    summary: Mapping[str, Any]
    experiment: Experiment
    info: DatasetInfo
    records: Sequence[Mapping[str, Any]]
    cases: Mapping[str, Mapping[Split, int]]
    statistics: EvaluationStatistics | None = None
    validation: Mapping[str, Any] | None = None
    population: Mapping[str, Any] | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    groups: Mapping[str, Sequence[EvaluationStatistics | None]] = field(default_factory=dict)
    planned: bool = False
    left_out: Sequence[str] = ()

    @property
    def private(self) -> bool:
        """Whether there is differential privacy, so that times and findings stay at the sites."""
        return self.experiment.privacy.unit is not None

    @property
    def phantom(self) -> bool:
        """Whether the images were generated."""
        return bool(self.summary["data_source"] == "phantom")


class Numbers:
    """Writes numbers of a JSON document so that each can be traced back to its place there.

    A number is a ``data`` element with the number as it is, and its place as a JSON pointer
    (RFC 6901): a test, and a person, can hold what a page shows against the document.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def at(self, *path: str | int) -> Any:
        """The value at a place; ``None`` where there is none."""
        value: Any = self._document
        for key in path:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def __call__(self, *path: str | int, form: str = ".3f", scale: float = 1.0) -> Markup:
        """The number at a place as text of a page; a dash where there is none.

        Args:
            path: the keys that lead to it.
            form: how it is written.
            scale: what it is divided by before that.
        """
        value = self.at(*path)
        if not is_number(value):
            return NONE
        shown = written(value / scale if scale != 1 else value, form)
        return Markup('<data value="{}" data-at="{}">{}</data>').format(
            repr(value), pointer(path), shown
        )


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of a JSON document is a finite number, so that it can be drawn and written.

    JSON of Python has NaN and infinity too.
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def written(value: float, form: str = ".3f") -> str:
    """A number for a person; one that ``form`` would write as 0, and is not, has its digits."""
    said = format(value, form)
    if value and not float(said.rstrip("%").replace(",", "")):
        said = format(value, f"{'+' * form.startswith('+')}.3g")
    return said.replace("-", "−")


def pointer(path: Sequence[str | int]) -> str:
    """A place in a JSON document, after RFC 6901."""
    return "".join(f"/{str(key).replace('~', '~0').replace('/', '~1')}" for key in path)


def p_of(value: float) -> str:
    """The p of a test, in a sentence."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def size_of(amount: float) -> str:
    """Bytes for a person."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if amount >= least:
            return (
                f"{amount / least:.3g} {unit}"
                if amount < 999.5 * least
                else (f"{amount / least:.0f} {unit}")
            )
    return f"{amount:.0f} B"


def time_of(seconds: float) -> str:
    """A time for a person."""
    if seconds < 1:
        return f"{written(seconds * 1000, '.0f')} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def count_of(number: int, thing: str, things: str = "") -> str:
    """A number of things, as ``1 site`` and ``3 sites``."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}".replace(",", "\u202f")


def more_of(total: int, which: str, where: str) -> str:
    """That a table or a list is not of all sites; ``""`` where it is.

    Args:
        total: of how many there is something to tell.
        which: those that it has, as ``those that differ most``.
        where: where all are, as ``per_site in summary.json``.
    """
    if total <= MOST_LISTED:
        return ""
    return f"{MOST_LISTED} of {total} sites, {which}; all are in {where}."


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def small_number(value: float) -> str:
    """A number such as δ, as a power of ten where that is shorter."""
    if value >= 1e-3:
        return f"{value:g}"
    digits, _, exponent = f"{value:.3g}".partition("e")
    if not exponent:
        return f"{value:g}"
    power = "10" + str(int(exponent)).translate(_RAISED)
    return power if digits == "1" else f"{digits} · {power}"


def share_of(value: float) -> str:
    """A share in per cent, which is never rounded up to all of it."""
    if value >= 1:
        return "100 %"
    if value < 0.0005:
        return f"{written(100 * value, '.1f')} %"
    for digits in range(1, 12):
        said = f"{100 * value:.{digits}f}"
        if float(said) < 100:
            return f"{said} %"
    return "nearly 100 %"
