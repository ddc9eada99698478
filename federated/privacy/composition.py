"""ε of what a ledger says, for each record and for a site: different records, different histories.

Records that the same entries touched have one history. Histories whose entries count alike are not
told apart either, so that there are few, and ε is computed once for each.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt

from federated.privacy.accounting import Accountant, Release, epsilon
from federated.privacy.record_sets import Records
from federated.privacy.spending import Counted, Kind, Spending
from federated.settings.base import Unit

Integers = npt.NDArray[np.int64]
# For each set of records, the steps of each kind of entry that touched it; None is every record.
Totals = Mapping[str | None, Mapping[Kind, int]]
# For each set, how often it holds each record that it holds more than once.
Copies = Mapping[str | None, Mapping[str, int]]
# PRV takes a tenth of a second for a history; beyond these, histories count by RDP, which is never
# lower.
MOST_BY_PRV = 64


def spent(
    spendings: Iterable[Spending],
    unit: Unit,
    delta: float,
    accountant: Accountant,
    cases: int = 1,
) -> float:
    """The composed ε for a unit that all of ``spendings`` touched; infinite if one has no bound.

    Where only Rényi divergences are known of a mechanism, ε is computed from those, whatever
    ``accountant`` says.

    Args:
        spendings: entries of a ledger.
        unit: whom the ε is for.
        delta: δ, in (0, 1).
        accountant: what composes.
        cases: how many of the records are one patient's, as in :meth:`Kind.for_unit`.
    """
    steps: Counter[Kind] = Counter()
    for spending in spendings:
        steps[Kind.of(spending)] += spending.steps
    counted = {kind: kind.for_unit(unit, cases) for kind in steps}
    return _composed([(counted[kind], number) for kind, number in steps.items()], delta, accountant)


def _composed(
    parts: Sequence[tuple[Counted | None, int]], delta: float, accountant: Accountant
) -> float:
    releases = []
    for counted, steps in parts:
        if counted is None:
            return inf
        if counted.rdp_only:
            accountant = "rdp"
        releases.append(Release(counted.noise_multiplier, counted.sampling_rate, steps))
    return epsilon(releases, delta, accountant)


@dataclass(frozen=True)
class Touched:
    """Which sets of records touch which units.

    ``cases`` ``(units, sets)`` is how many records of each unit are in each set, and ``counts``
    ``(units,)`` how many units each row stands for.
    """

    sets: tuple[str | None, ...]
    cases: Integers
    counts: Integers


def touched_records(
    records: Iterable[str], sets: Mapping[str | None, Records | None], copies: Copies
) -> Touched:
    """Which sets touch each record, where a record is the unit.

    ``sets`` has the members of each set, ``None`` for all records. A record that a set has several
    times is like a patient of as many cases.
    """
    return _touched([(record,) for record in records], sets, copies)


def touched_patients(
    patients: Mapping[str, Sequence[str]],
    sets: Mapping[str | None, Records | None],
    copies: Copies,
) -> Touched:
    """Which sets touch each patient, with the records given for each."""
    return _touched([tuple(set(records)) for records in patients.values()], sets, copies)


def touched_sites(
    sites: Sequence[Records | None], sets: Mapping[str | None, Records | None]
) -> Touched:
    """Which sets touch each site: those with any record of it; ``None`` stands for all records."""
    cases = np.zeros((len(sites), len(sets)), np.int64)
    for row, site in enumerate(sites):
        for column, members in enumerate(sets.values()):
            cases[row, column] = meet(site, members)
    return _distinct(tuple(sets), cases)


def meet(one: Records | None, other: Records | None) -> bool:
    """Whether two sets have a record in common; ``None`` is the set of all records."""
    return one is None or other is None or not one.isdisjoint(other)


def _touched(
    units: Sequence[Sequence[str]], sets: Mapping[str | None, Records | None], copies: Copies
) -> Touched:
    places: dict[str, list[int]] = {}
    for row, unit in enumerate(units):
        for record in unit:
            places.setdefault(record, []).append(row)
    cases = np.zeros((len(units), len(sets)), np.int64)
    sizes = np.array([len(unit) for unit in units], np.int64)
    for column, (name, members) in enumerate(sets.items()):
        if members is None:
            cases[:, column] = sizes
            continue
        met, several = places.keys() & members, copies.get(name, {})
        rows = [row for record in met for row in places[record]]
        often = [several.get(record, 1) for record in met for _ in places[record]]
        np.add.at(cases[:, column], rows, often)
    return _distinct(tuple(sets), cases)


def _distinct(sets: tuple[str | None, ...], cases: Integers) -> Touched:
    rows, counts = np.unique(cases, axis=0, return_counts=True) if len(cases) else (cases, [])
    return Touched(sets, rows, np.asarray(counts, np.int64))


class Histories:
    """What was released of each of some units; histories that count alike are taken together.

    Args:
        totals: for each set of records, what touched it.
        touched: which sets touch which units.
        unit: whether the units are records or sites.
    """

    def __init__(self, totals: Totals, touched: Touched, unit: Unit) -> None:
        columns: dict[Counted, Integers] = {}
        unbounded = np.zeros(len(touched.cases), np.int64)
        for number, name in enumerate(touched.sets):
            column = touched.cases[:, number]
            for cases in np.unique(column[column > 0]):
                here = (column == cases).astype(np.int64)
                for kind, steps in totals.get(name, {}).items():
                    counted = kind.for_unit(unit, int(cases) if unit == "record" else 1)
                    if counted is None:
                        unbounded |= here
                    else:
                        start = columns.setdefault(counted, np.zeros_like(unbounded))
                        columns[counted] = start + here * steps
        self._columns = tuple(columns)
        stacked = np.stack([unbounded, *columns.values()], axis=1)
        stacked[unbounded > 0, 1:] = 0
        rows, place = np.unique(stacked, axis=0, return_inverse=True)
        self._rows: Integers = rows
        self.counts: Integers = np.bincount(
            place.reshape(-1), weights=touched.counts, minlength=len(rows)
        ).astype(np.int64)

    def epsilons(self, delta: float, accountant: Accountant) -> list[float]:
        """The ε of each history, ``(histories,)``; ``counts`` says how many units have it.

        By ``prv``, the :data:`MOST_BY_PRV` histories that have spent most by RDP are computed by
        PRV, and the others by RDP.
        """
        found = [self._epsilon(row, delta, "rdp") for row in self._rows]
        if accountant == "prv":
            finite = [number for number, value in enumerate(found) if value != inf]
            for number in sorted(finite, key=lambda n: -found[n])[:MOST_BY_PRV]:
                found[number] = self._epsilon(self._rows[number], delta, "prv")
        return found

    def worst(self, delta: float, accountant: Accountant) -> float:
        """The largest ε of all histories; 0 if there is none.

        By ``prv``, histories are tried from the largest ε by RDP downwards, until the rest is
        certain to be smaller. If :data:`MOST_BY_PRV` of them do not settle it, the result is the
        largest of the others by RDP, which is never lower.
        """
        by_rdp = sorted(
            ((self._epsilon(row, delta, "rdp"), number) for number, row in enumerate(self._rows)),
            reverse=True,
        )
        if accountant == "rdp" or not by_rdp or by_rdp[0][0] == inf:
            return by_rdp[0][0] if by_rdp else 0.0
        most = 0.0
        for tried, (bound, number) in enumerate(by_rdp):
            if bound <= most:
                break
            if tried == MOST_BY_PRV:
                return bound
            most = max(most, self._epsilon(self._rows[number], delta, "prv"))
        return most

    def within(self, limit: float, delta: float) -> bool:
        """Whether no history has an ε above ``limit``; RDP is asked first, because it is quick."""
        if not len(self._rows):
            return True
        if self._rows[:, 0].any():
            return False
        # A history that has everything that any of them has.
        most = self._rows.max(axis=0)
        if self._epsilon(most, delta, "rdp") <= limit:
            return True
        return self.worst(delta, "rdp") <= limit or self.worst(delta, "prv") <= limit

    def _epsilon(self, row: Integers, delta: float, accountant: Accountant) -> float:
        if row[0]:
            return inf
        parts = [
            (counted, int(steps))
            for counted, steps in zip(self._columns, row[1:], strict=True)
            if steps
        ]
        return _composed(parts, delta, accountant)
