"""How far a run is: its sites, stages, the time that is left, and what is left of ε.

All of it follows from the run's own records and from what sites tell at a run's end; nothing is
told that a record does not tell, so that of a private run there are no times.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from federated.errors import ConsiliumError
from federated.files import read_json
from federated.run.folder import RunFolder
from federated.run.round_record import STAGES
from federated.run.runs import being_worked_on

State = Literal["done", "starts", "works", "paused", "stopped"]
# From how many of the newest rounds the time that is left follows.
NEWEST = 5


@dataclass(frozen=True)
class SiteStatus:
    """A site in a run.

    Attributes:
        name: the site's.
        summed: in how many rounds its update was in the sum.
        why_not: why it was not in that of the newest round; empty where it was, or not selected.
        spent: ε that it has spent so far, as it tells; ``None`` where it tells of none.
        left: what is left of its budget, over all runs; ``None`` where it has told of no budget.
    """

    name: str
    summed: int
    why_not: str = ""
    spent: float | None = None
    left: float | None = None


@dataclass(frozen=True)
class RunStatus:
    """How far a run is.

    Attributes:
        experiment: its experiment.
        run: its id.
        state: whether it is done, is about to begin, is worked on, waits, or was stopped.
        done: how many rounds are done.
        rounds: how many there are to be.
        metrics: those of the validation split after the newest round that was evaluated.
        stages: seconds of each stage that ran in the newest round; none where they are not told.
        seconds_left: until all rounds are done, by the newest ones; ``None`` where it is not told.
        sites: its sites, in order.
    """

    experiment: str
    run: str
    state: State
    done: int
    rounds: int
    metrics: Mapping[str, float]
    stages: Mapping[str, float]
    seconds_left: float | None
    sites: Sequence[SiteStatus]


@dataclass(frozen=True)
class Unreadable:
    """A run of which nobody can say how far it is, and why."""

    experiment: str
    run: str
    why: str


def status_or_why(folder: RunFolder) -> RunStatus | Unreadable:
    """How far the run of a folder is, or why that cannot be said, whatever lies in it."""
    try:
        return status_of(folder)
    except ConsiliumError as error:
        why = str(error)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        why = f"Its folder {folder.root} is damaged, or of another version ({error!r:.200})."
    return Unreadable(folder.root.parent.name, folder.run_id, why)


def status_of(folder: RunFolder) -> RunStatus:
    """How far the run of a folder is.

    Raises:
        ConsiliumError: one of its files is damaged.
    """
    experiment, done = folder.experiment(), folder.done_rounds()
    records = folder.records(sites=()) if done else []
    state: State = "stopped"
    if being_worked_on(folder):
        state = "works" if folder.begun() else "starts"
        if folder.paused_path.is_file():
            state = "paused"
    elif folder.summary_path.is_file() and done >= 1:
        state = "done"
    names = folder.sites() if folder.begun() else []
    told: dict[str, Mapping[str, Any]] = {}
    for name in names:
        # Not there before a run's end, nor of a site that tells nothing.
        with suppress(OSError, ValueError, TypeError):
            told[name] = {
                key: float(value)
                for key, value in dict(read_json(folder.ledger_path(name))).items()
                if key in ("budget", "epsilon_ledger") and value is not None
            }
    return run_status(
        experiment.name, folder.run_id, state, experiment.rounds, records, sites_of(records, told)
        or [SiteStatus(name, 0) for name in names],
    )  # fmt: skip


def run_status(
    experiment: str,
    run: str,
    state: State,
    rounds: int,
    records: Sequence[Mapping[str, Any]],
    sites: Sequence[SiteStatus],
) -> RunStatus:
    """How far a run is, from the records of its rounds.

    Args:
        experiment: its experiment.
        run: its id.
        state: what becomes of it at the moment.
        rounds: how many there are to be.
        records: those of the rounds that are done, in order.
        sites: how its sites are.
    """
    evaluated = [record["metrics"]["val"] for record in records if record["metrics"].get("val")]
    metrics = {n: v for n, v in (evaluated[-1] if evaluated else {}).items() if v is not None}
    seconds = (records[-1].get("seconds") or {}) if records else {}
    return RunStatus(
        experiment,
        run,
        state,
        len(records),
        rounds,
        metrics,
        {name: seconds[name] for name in STAGES if seconds.get(name)},
        _left(records, rounds) if state != "done" else 0.0,
        sites,
    )


def sites_of(
    records: Sequence[Mapping[str, Any]], told: Mapping[str, Mapping[str, Any]]
) -> list[SiteStatus]:
    """How the sites of some rounds are; ``told`` is what sites say at a run's end of their ε."""
    names: set[str] = set(told)
    for record in records:
        # Those of older versions know no absence and no lost round.
        names |= {*record["sites"], *(record.get("dropped") or ()), *(record.get("absent") or ())}
    summed = Counter(
        site for record in records if not record.get("lost") for site in {*record["sites"]}
    )
    spent: dict[str, float | None] = {}
    for record in records:
        spent |= record.get("epsilon_rdp") or {}
    newest = records[-1] if records else {}
    absent, dropped = newest.get("absent") or {}, newest.get("dropped") or {}
    return [
        SiteStatus(
            name,
            summed[name],
            str(absent.get(name) or dropped.get(name, "")),
            spent.get(name),
            _budget_left(told.get(name, {})),
        )
        for name in sorted(names)
    ]


def _budget_left(told: Mapping[str, Any]) -> float | None:
    """How much of its budget a site has left; ``None`` where it has none, or does not tell."""
    budget, all_spent = told.get("budget"), told.get("epsilon_ledger")
    return None if budget is None or all_spent is None else max(0.0, budget - all_spent)


def _left(records: Sequence[Mapping[str, Any]], rounds: int) -> float | None:
    newest: list[float | None] = [
        (record.get("seconds") or {}).get("total") for record in records[-NEWEST:]
    ]
    known = [seconds for seconds in newest if seconds is not None]
    if not known or len(known) < len(newest):
        return None
    return sum(known) / len(known) * max(0, rounds - len(records))
