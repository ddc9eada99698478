"""What the entries of a ledger say, taken in one by one as they are read or added."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from federated.privacy.composition import Touched
from federated.privacy.hash_chain import Checked, Entry
from federated.privacy.spending import Budget, Kind, Spending


@dataclass
class Contents:
    """What the entries of a ledger say; ``checked`` is how far its file was read."""

    checked: Checked = field(default_factory=Checked)
    spendings: list[Spending] = field(default_factory=list)
    by_run: dict[str, list[Spending]] = field(default_factory=dict)
    # What touched each set of records, by training and by evaluation.
    trained: dict[str | None, Counter[Kind]] = field(default_factory=dict)
    evaluated: dict[str | None, Counter[Kind]] = field(default_factory=dict)
    budgets: list[Budget] = field(default_factory=list)
    # The files of older versions whose entries were taken over, each with its last hash.
    migrated: dict[str, str] = field(default_factory=dict)
    # Which sets touch which records; this is kept as long as no other sets come.
    touched: dict[Any, Touched] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        """Take in an entry."""
        kind = entry["kind"]
        if kind == "spending":
            self._spend(Spending(**{name: entry[name] for name in Spending.__dataclass_fields__}))
        elif kind == "budget":
            names = Budget.__dataclass_fields__
            self.budgets.append(Budget(**{name: entry[name] for name in names}))
        elif kind == "migrated":
            self.migrated[entry["source"]] = entry["head"]
            for old in entry["entries"]:
                self.add(old)

    def _spend(self, spending: Spending) -> None:
        self.spendings.append(spending)
        self.by_run.setdefault(spending.run, []).append(spending)
        totals = self.trained if spending.trains else self.evaluated
        if spending.records not in totals:
            totals[spending.records] = Counter()
        totals[spending.records][Kind.of(spending)] += spending.steps
