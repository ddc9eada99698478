"""The privacy ledger of a holder: what is released of its records, before it is released.

A holder has one ledger, in its home, for all its records and whatever is done with them: every run,
experiment, seed and partition, with privacy and without. An entry names the set of records that it
touched, so that ε is that of a record, whatever was dropped, added or dealt anew since. An entry is
synced to the disk before anything is released, so that a crash can count a release that never
happened, and never miss one that did.

``HOLDER.jsonl`` is a :mod:`federated.privacy.hash_chain`. The sets of records lie in ``records/``
beside it; heads that were seen lie in another folder of the home.
"""

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, replace
from math import inf
from pathlib import Path
from typing import Any

from federated.privacy.account import Account
from federated.privacy.budget import UNITS, refuse_beyond
from federated.privacy.composition import Histories
from federated.privacy.hash_chain import Checked, HashChain, Head
from federated.privacy.kept_heads import by_number, home_heads
from federated.privacy.ledger_contents import Contents
from federated.privacy.record_sets import Records, RecordSets, record_set
from federated.privacy.spending import Budget, Spending
from federated.secrets.home import consilium_home
from federated.settings.base import Unit

__all__ = ["Budget", "Head", "Ledger", "Spending", "Unit", "ledger_root"]


# For each path, what this process has read of it; a whole file is read once.
_READ: dict[Path, Contents] = {}


class Ledger:
    """The privacy ledger in the file at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sets = RecordSets(path.parent / "records")
        self._chain = HashChain(path, "privacy ledger")

    @property
    def head_path(self) -> Path:
        """The file that the head is in."""
        return self._chain.head_path

    @property
    def holder(self) -> str:
        """The name of the holder whose ledger it is."""
        return self.path.stem

    def spend(self, spending: Spending, records: Collection[str] | None = None) -> Head:
        """Enter a release and sync it to the disk; only then may it happen.

        ``records`` are the digests of the records that it touches; without them it is entered for
        all of the holder's.

        Raises:
            ConsiliumError: it would pass a budget, or the ledger is not whole. Nothing is entered
                then.
        """
        touched = None if records is None else record_set(records)
        spending = replace(spending, records=touched.name if touched else None)
        with self._chain.locked(writing=True):
            contents = self._read()
            if contents.budgets:
                refuse_beyond(self._account(contents), spending, touched)
            if touched:
                self.sets.store(touched)
            return self._append(contents, {"kind": "spending", **asdict(spending)})

    def refuse(self, spending: Spending, records: Collection[str]) -> None:
        """Refuse what :meth:`spend` would refuse, and enter nothing.

        Raises:
            ConsiliumError: the release would pass a budget, or the ledger is not whole.
        """
        refuse_beyond(self._account(self._current()), spending, record_set(records))

    def set_budget(self, budget: Budget, records: Collection[str] | None = None) -> Head:
        """Enter a budget for ``records``, or for all that the holder has and will have.

        If several budgets for a unit are for a record, the latest of them holds for it.

        Raises:
            ConsiliumError: the ledger is not whole.
        """
        covered = None if records is None else record_set(records)
        with self._chain.locked(writing=True):
            contents = self._read()
            if covered:
                self.sets.store(covered)
            entry = replace(budget, records=covered.name if covered else None)
            return self._append(contents, {"kind": "budget", **asdict(entry)})

    def keep_set(self, records: Collection[str]) -> str:
        """Store a set of records that entries are to name, and return its name."""
        found = record_set(records)
        self.sets.store(found)
        return found.name

    def take_over(self, source: str, head: str, entries: list[dict[str, Any]]) -> Head:
        """Enter what a file of an older version has, all of it in one line or none of it.

        What was taken over before is not entered again.

        Args:
            source: the path of that file.
            head: the hash of its last entry.
            entries: its entries in today's form.

        Raises:
            ConsiliumError: the ledger is not whole.
        """
        with self._chain.locked(writing=True):
            contents = self._read()
            if contents.migrated.get(source) == head:
                return contents.checked.head
            content = {"kind": "migrated", "source": source, "head": head, "entries": entries}
            return self._append(contents, content)

    def spendings(self, run: str | None = None) -> list[Spending]:
        """All releases, or those of one run, in the order in which they were entered.

        Raises:
            ConsiliumError: the ledger is not whole.
        """
        contents = self._current()
        return list(contents.spendings if run is None else contents.by_run.get(run, []))

    def budgets(self, records: Collection[str] | None = None) -> list[Budget]:
        """The budgets in force for any of ``records``, or for any record; those for the site last.

        Raises:
            ConsiliumError: the ledger is not whole.
        """
        account = self._account(self._current())
        own = account.everything() if records is None else frozenset(records)
        return [budget for unit in UNITS for budget, _ in account.in_force(unit, own)]

    def migrated(self) -> dict[str, str]:
        """The files of older versions that were taken over, with their last hashes.

        Raises:
            ConsiliumError: the ledger is not whole.
        """
        return dict(self._current().migrated)

    def head(self) -> Head:
        """The head, after the whole ledger and its sets of records are read anew and found whole.

        Raises:
            ConsiliumError: they are not whole; the message says what was changed.
        """
        contents = self._current(anew=True)
        for name in {
            *contents.trained,
            *contents.evaluated,
            *(b.records for b in contents.budgets),
        }:
            if name is not None:
                self.sets.check(name)
        return contents.checked.head

    def last(self) -> Head:
        """The head, as far as this process has read and checked the ledger.

        Raises:
            ConsiliumError: the ledger is not whole.
        """
        return self._current().checked.head

    def hashes(self) -> list[str]:
        """The hash of every entry, in order, read anew.

        Raises:
            ConsiliumError: the ledger is not whole.
        """
        checked = Checked()
        found: list[str] = []
        with self._chain.locked(writing=False):
            found.extend(checked.head.hash for _ in self._chain.read(checked, {}))
        return found

    def trained_on(self) -> Records | None:
        """The records that any training has touched; ``None`` where that may be any record.

        Raises:
            ConsiliumError: the ledger is not whole.
        """
        return self._account(self._current()).trained_on()

    def evaluated_only(self) -> Records:
        """The records that were evaluated in the clear and that no training is known to touch.

        Raises:
            ConsiliumError: the ledger is not whole.
        """
        contents = self._current()
        sets = [name for name in contents.evaluated if name is not None]
        known = [self.sets.read(name) for name in contents.trained if name is not None]
        return frozenset[str]().union(*map(self.sets.read, sets)).difference(*known)

    def histories(self, records: Collection[str], unit: Unit) -> Histories:
        """What was released of each of ``records``, or of a site that has them.

        For a site every entry counts that touched any of its records: neighbouring federations
        differ in all these updates being zero. Records that were only evaluated, and never trained
        on, are left out; a record that was both has no bound.

        Raises:
            ConsiliumError: the ledger is not whole.
        """
        account = self._account(self._current())
        trained = account.trained_on()
        own = [record for record in records if trained is None or record in trained]
        return account.histories(own, unit)

    def left(self, records: Collection[str]) -> list[tuple[Budget, list[tuple[float, int]]]]:
        """How much of the budgets for a record is left to how many of ``records``.

        Returns:
            The budgets in force, each with what is left of ε, largest first, and the number of
            records that have so much left; -∞ stands for records without a guarantee.

        Raises:
            ConsiliumError: the ledger is not whole.
        """
        account = self._account(self._current())
        found = []
        for budget, own in account.in_force("record", frozenset(records)):
            if budget.epsilon == inf:
                continue
            histories = self.histories(own, "record")
            parts = Counter({budget.epsilon: len(own) - int(histories.counts.sum())})
            epsilons = histories.epsilons(budget.delta, "prv")
            for epsilon, count in zip(epsilons, histories.counts, strict=True):
                parts[budget.epsilon - epsilon] += int(count)
            found.append((budget, sorted(((v, n) for v, n in parts.items() if n), reverse=True)))
        return found

    def of_patients(self, patients: dict[str, list[str]]) -> Histories:
        """What was released of each patient, whose records are given.

        Raises:
            ConsiliumError: the ledger is not whole.
        """
        return self._account(self._current()).of_patients(patients)

    def _current(self, anew: bool = False) -> Contents:
        if not self.path.is_file() and not self.head_path.is_file() and not home_heads(self.path):
            return Contents()
        with self._chain.locked(writing=False):
            return self._read(anew)

    def _read(self, anew: bool = False) -> Contents:
        """What the file says now, once it is found whole; the lock has to be held."""
        known = _READ.pop(self.path, None)
        heads: dict[int, str] = {}
        if anew or known is None or not self._chain.extends(known.checked):
            known = Contents()
            heads = by_number(kept.head for kept in home_heads(self.path))
        for entry in self._chain.read(known.checked, heads):
            known.add(entry)
        _READ[self.path] = known
        return known

    def _append(self, contents: Contents, entry: dict[str, Any]) -> Head:
        _READ.pop(self.path, None)
        head = self._chain.append(contents.checked, entry)
        contents.add(entry)
        _READ[self.path] = contents
        return head

    def _account(self, contents: Contents) -> Account:
        return Account(
            contents.trained,
            contents.evaluated,
            contents.budgets,
            self.sets.read,
            self.sets.copies,
            contents.touched,
        )


def ledger_root() -> Path:
    """The folder of all ledgers, as an absolute path."""
    return Path(os.environ.get("CONSILIUM_LEDGER") or consilium_home() / "ledger").resolve()
