"""What a ledger says of records: what touched them, and which budgets are in force for them."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from federated.privacy.composition import (
    Histories,
    Touched,
    meet,
    touched_patients,
    touched_records,
    touched_sites,
)
from federated.privacy.record_sets import Records, RecordSet
from federated.privacy.spending import Budget, Kind, Spending
from federated.settings.base import Unit

Totals = Mapping[str | None, Counter[Kind]]
# This stands for a record of the holder that no entry and no budget names.
UNNAMED = ""


@dataclass(frozen=True)
class Account:
    """What a ledger's entries add up to.

    Args:
        trained: for each set of records, what touched it by training; ``None`` is the set of every
            record.
        evaluated: the same for evaluation.
        budgets: in the order in which they were set.
        read: gives the records of a set.
        copies: gives how often a set has each of those records that it has several times.
        kept: what depends on the sets alone, kept from one call to the next.
    """

    trained: Totals
    evaluated: Totals
    budgets: Sequence[Budget]
    read: Callable[[str], Records]
    copies: Callable[[str], Mapping[str, int]]
    kept: dict[Any, Touched]

    def everything(self) -> Records:
        """Every record that is named anywhere, and :data:`UNNAMED`."""
        named = {*self.trained, *self.evaluated, *(budget.records for budget in self.budgets)}
        return frozenset({UNNAMED}).union(*(self.read(name) for name in named if name is not None))

    def trained_on(self) -> Records | None:
        """The records that any training has touched; ``None`` where that may be any record."""
        if None in self.trained:
            return None
        return frozenset().union(*(self.read(name) for name in self.trained if name is not None))

    def in_force(self, unit: Unit, records: Records) -> Iterator[tuple[Budget, Records]]:
        """The budgets for a unit, each with those of ``records`` for which it is the latest."""
        left = records
        for budget in reversed(self.budgets):
            if budget.unit != unit:
                continue
            own = left if budget.records is None else left & self.read(budget.records)
            if own:
                yield budget, own
                left -= own
            if not left:
                return

    def histories(self, records: Collection[str], unit: Unit) -> Histories:
        """What was released of each of ``records``, or of a site that has them."""
        sets = self._sets()
        if unit == "record":
            touched = touched_records(records, sets, self._copies())
        else:
            touched = touched_sites([frozenset(records)] if records else [], sets)
        return Histories(self._totals(), touched, unit)

    def of_patients(self, patients: Mapping[str, Sequence[str]]) -> Histories:
        """What was released of each patient, whose records are given."""
        touched = touched_patients(patients, self._sets(), self._copies())
        return Histories(self._totals(), touched, "record")

    def with_spending(
        self, spending: Spending, touched: RecordSet | None, unit: Unit, own: Records
    ) -> Histories:
        """What will have been released once ``spending`` is entered.

        Args:
            spending: the entry.
            touched: the records that it touches; ``None`` for all.
            unit: whether the histories are those of records or of sites.
            own: with records as units, those whose histories are asked for, all of which it
                touches; with sites as units the histories are those of every site that it touches.
        """
        name = touched.name if touched else None
        totals = dict(self._totals())
        totals[name] = Counter(totals.get(name, ()))
        totals[name][Kind.of(spending)] += spending.steps
        sets = {**self._sets(), name: touched.records if touched else None}
        # What touches what stays the same from round to round.
        key = (unit, name, frozenset(sets), own)
        if key not in self.kept:
            if len(self.kept) > 64:
                self.kept.clear()
            if unit == "record":
                copies = {**self._copies(), name: touched.copies if touched else {}}
                self.kept[key] = touched_records(own, sets, copies)
            else:
                others = [sets[trained] for trained in self.trained]
                met = [other for other in others if meet(other, sets[name])]
                self.kept[key] = touched_sites([sets[name], *met], sets)
        return Histories(totals, self.kept[key], unit)

    def _totals(self) -> dict[str | None, Counter[Kind]]:
        both: dict[str | None, Counter[Kind]] = {
            name: Counter(kinds) for name, kinds in self.trained.items()
        }
        for name, kinds in self.evaluated.items():
            both.setdefault(name, Counter()).update(kinds)
        return both

    def _copies(self) -> dict[str | None, Mapping[str, int]]:
        names = (*self.trained, *self.evaluated)
        return {name: {} if name is None else self.copies(name) for name in names}

    def _sets(self) -> dict[str | None, Records | None]:
        return {
            name: None if name is None else self.read(name)
            for name in (*self.trained, *self.evaluated)
        }
