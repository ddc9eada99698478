"""The privacy ledger of a site: what it has released, before it releases it.

One file a data set of a site, one JSON object a line, only ever appended to. A release is entered
and synced to the disk first, so that a crash can count a release that never happened, and never
miss one that did. Each line holds the hash of the line before it, and ``head.json`` beside the file
the number of lines and the last hash: an edited, removed or cut off line is noticed. Whoever can
rewrite both files can forge both; runs keep the heads that they saw.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Any, Literal

from federated.errors import ConsiliumError, RefusalError
from federated.files import locked, read_json, write_json
from federated.home import consilium_home, private_folder
from federated.privacy.accounting import RDP_ONLY, UNACCOUNTED, Accountant, Release, epsilon

Unit = Literal["record", "site"]
FIRST = "0" * 64


@dataclass(frozen=True)
class Spending:
    """One entry: a mechanism on a site's data, in a round of a run.

    ``clip`` is the norm that one unit's contribution is clipped to.
    """

    mechanism: str
    unit: Unit
    noise_multiplier: float
    sampling_rate: float
    steps: int
    clip: float
    round_number: int
    run: str
    experiment: str
    site: str

    @property
    def release(self) -> Release:
        """What accountants compose."""
        return Release(self.noise_multiplier, self.sampling_rate, self.steps)


@dataclass(frozen=True)
class Budget:
    """The most that may be spent of a site's data, for one unit."""

    unit: Unit
    epsilon: float
    delta: float


@dataclass(frozen=True)
class Head:
    """How many entries a ledger has, and the hash of the last one."""

    count: int = 0
    hash: str = FIRST


class Ledger:
    """A ledger file; every method reads it anew, under a lock where it writes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def head_path(self) -> Path:
        """Where the head lies."""
        return self.path.with_suffix(".head.json")

    def spend(self, spending: Spending) -> Head:
        """Enter a release and sync it to the disk; only then may it happen.

        Raises:
            ConsiliumError: it would pass a budget, or the ledger is not whole. Nothing is entered.
        """
        with self._locked():
            entries = self._whole()
            releases = [*_spendings(entries), spending]
            for budget in _budgets(entries).values():
                _refuse_beyond(budget, releases, spending.site)
            return self._append(entries, {"kind": "spending", **asdict(spending)})

    def set_budget(self, budget: Budget) -> Head:
        """Enter a budget, which replaces that of the same unit.

        Raises:
            ConsiliumError: the ledger is not whole.
        """
        with self._locked():
            return self._append(self._whole(), {"kind": "budget", **asdict(budget)})

    def spendings(self, run: str | None = None) -> list[Spending]:
        """All releases, or those of one run.

        Raises:
            ConsiliumError: the ledger is not whole.
        """
        return [s for s in _spendings(self._whole()) if run is None or s.run == run]

    def budgets(self) -> dict[Unit, Budget]:
        """The budgets in force.

        Raises:
            ConsiliumError: the ledger is not whole.
        """
        return _budgets(self._whole())

    def head(self) -> Head:
        """The head, once the ledger is found whole.

        Raises:
            ConsiliumError: it is not: says what was changed.
        """
        return _head(self._whole())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with ExitStack() as held:
            try:
                private_folder(self.path.parent)
                held.enter_context(locked(self.path.with_suffix(".lock")))
            except OSError as error:
                raise ConsiliumError(
                    f"The privacy ledger {self.path} cannot be written to: {error.strerror}. "
                    "Nothing is released without an entry. Make its folder writable, or name "
                    "another with CONSILIUM_LEDGER."
                ) from error
            yield

    def _append(self, entries: list[dict[str, Any]], content: dict[str, Any]) -> Head:
        before = _head(entries)
        entry = {**content, "time": datetime.now(UTC).isoformat(), "previous": before.hash}
        entry["hash"] = _hash(entry)
        line = (json.dumps(entry) + "\n").encode()
        whole = sum(len(part) for part in self._lines())
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # What a crash left of an entry was never followed by its release.
            os.ftruncate(handle, whole)
            os.lseek(handle, whole, os.SEEK_SET)
            written = 0
            while written < len(line):
                written += os.write(handle, line[written:])
            os.fsync(handle)
        finally:
            os.close(handle)
        head = Head(before.count + 1, entry["hash"])
        # Synced with its folder, so the ledger's own name is durable by then too.
        write_json(self.head_path, asdict(head), 0o600)
        return head

    def _lines(self) -> list[bytes]:
        """The complete lines; a crash may have left a part of one more."""
        if not self.path.is_file():
            return []
        return [line for line in self.path.read_bytes().splitlines(True) if line.endswith(b"\n")]

    def _whole(self) -> list[dict[str, Any]]:
        """The entries, once the chain is found unbroken and complete."""
        entries: list[dict[str, Any]] = []
        previous = FIRST
        for number, line in enumerate(self._lines(), 1):
            try:
                entry = json.loads(line)
                right = entry["hash"] == _hash(entry) and entry["previous"] == previous
            except (ValueError, KeyError, TypeError):
                right = False
            if not right:
                raise self._changed(f"entry {number} was changed, or one before it removed")
            previous = entry["hash"]
            entries.append(entry)
        known = Head(**read_json(self.head_path)) if self.head_path.is_file() else Head()
        # The head follows the entry, so that a crash between the two leaves it one behind.
        if known.count > len(entries):
            raise self._changed(f"{known.count - len(entries)} entries at its end are missing")
        if known.count and entries[known.count - 1]["hash"] != known.hash:
            raise self._changed("its entries are not those that its head was written for")
        if len(entries) > known.count + 1:
            raise self._changed("its head is older than its last entry by more than a crash allows")
        return entries

    def _changed(self, how: str) -> ConsiliumError:
        return RefusalError(
            f"The privacy ledger {self.path} is not whole: {how}. Nothing more is released from "
            "this data. Put back the ledger and its head from a copy, or find out who changed it."
        )


def ledger_root() -> Path:
    """The folder of all ledgers, absolute."""
    return Path(os.environ.get("CONSILIUM_LEDGER") or consilium_home() / "ledger").resolve()


def spent(spendings: list[Spending], unit: Unit, delta: float, accountant: Accountant) -> float:
    """The composed ε of a unit.

    A release at site level protects each record too: with one record exchanged, the clipped update
    moves by up to twice the clipping norm, so that half the noise multiplier counts. A release at
    record level says nothing of a site as a whole, one that is :data:`UNACCOUNTED` of nobody. Where
    only Rényi divergences are known of a mechanism, ε is by those whatever ``accountant`` says.
    """
    releases = []
    for spending in spendings:
        if spending.mechanism == UNACCOUNTED:
            return inf
        if spending.mechanism == RDP_ONLY:
            accountant = "rdp"
        release = spending.release
        if spending.unit != unit:
            if unit == "site":
                return inf
            half = release.noise_multiplier / 2
            release = Release(half, release.sampling_rate, release.steps)
        releases.append(release)
    return epsilon(releases, delta, accountant)


def _refuse_beyond(budget: Budget, spendings: list[Spending], site: str) -> None:
    # RDP first, which is quick; PRV, the tighter, has the last word.
    order: tuple[Accountant, ...] = ("rdp", "prv")
    needed = inf
    for accountant in order:
        needed = spent(spendings, budget.unit, budget.delta, accountant)
        if needed <= budget.epsilon:
            return
        if needed == inf:
            break
    before = spent(spendings[:-1], budget.unit, budget.delta, "prv")
    raise RefusalError(
        f"{site} has a privacy budget of epsilon={budget.epsilon:g} at delta={budget.delta:g} for "
        f"each {budget.unit} and has spent {before:.3g}; round {spendings[-1].round_number} of run "
        f"{spendings[-1].run} would make it {needed:.3g}, so it was not started there. Let the run "
        "go on without it (sites.on_dropout=continue), add more noise, or have the site's data "
        "protection officer change it with `consilium ledger budget`."
    )


def _spendings(entries: list[dict[str, Any]]) -> list[Spending]:
    names = Spending.__dataclass_fields__
    return [
        Spending(**{name: entry[name] for name in names})
        for entry in entries
        if entry["kind"] == "spending"
    ]


def _budgets(entries: list[dict[str, Any]]) -> dict[Unit, Budget]:
    budgets: dict[Unit, Budget] = {}
    for entry in entries:
        if entry["kind"] == "budget":
            budgets[entry["unit"]] = Budget(entry["unit"], entry["epsilon"], entry["delta"])
    return budgets


def _head(entries: list[dict[str, Any]]) -> Head:
    return Head(len(entries), entries[-1]["hash"]) if entries else Head()


def _hash(entry: dict[str, Any]) -> str:
    content = {key: value for key, value in entry.items() if key != "hash"}
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
