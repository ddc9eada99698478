"""`consilium watch`: how far a run is, on a terminal, from the files of its folder alone."""

import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from federated.errors import ConsiliumError, printable
from federated.learning import metrics_in
from federated.run.folder import RunFolder
from federated.run.runs import latest_run, newest_first, seen_at_work
from federated.run.status import RunStatus, State, Unreadable, status_or_why
from flows.progress import counted
from flows.tables import show, table

# In seconds, between two looks.
LOOK = 2.0
# The states in which there is more to come of a run.
GOES_ON: tuple[State, ...] = ("starts", "works", "paused")
# In characters, of a reason in a row.
LONGEST = 60


def watched_run(runs: Path, experiment: str | None) -> RunFolder:
    """The newest run that is worked on, of an experiment or of all; without one, the newest.

    Raises:
        ConsiliumError: there is no such run.
    """
    at_work = seen_at_work(runs, experiment)
    if at_work is not None:
        # Also one that is still starting.
        return at_work
    if experiment is not None:
        return latest_run(runs, experiment)
    found = newest_first(runs)
    if not found:
        raise ConsiliumError(
            f"There is no run in {runs} to be watched. Begin one, as `consilium run demo`, or name "
            "the folder of runs with --runs."
        )
    return found[0]


def watch(console: Console, folder: RunFolder, *, once: bool) -> None:
    """Show how far a run is, until nobody works on it any more; once, where it is no terminal.

    Raises:
        ConsiliumError: one of its files is damaged.
    """
    if once or not console.is_terminal:
        show(status_lines(_status(folder)), console)
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            status = _status(folder)
            parts = [Text(part) if isinstance(part, str) else part for part in status_lines(status)]
            live.update(Group(*parts), refresh=True)
            if status.state not in GOES_ON:
                return
            time.sleep(LOOK)


def _status(folder: RunFolder) -> RunStatus:
    """How far a run is.

    Raises:
        ConsiliumError: one of its files is damaged.
    """
    found = status_or_why(folder)
    if isinstance(found, Unreadable):
        raise ConsiliumError(found.why)
    return found


def status_lines(status: RunStatus) -> Iterator[Table | str]:
    """How far a run is, as lines and a table of its sites."""
    yield (
        f"{status.experiment} {status.run}: {status.state}, {status.done} of "
        f"{counted(status.rounds, 'round')} done, {time_left(status)}"
    )
    if status.state not in GOES_ON:
        yield "nobody works on it now; one that was begun a moment ago is seen once it has a folder"
    shown = [f"{name} {status.metrics[name]:.3f}" for name in metrics_in("round")
             if name in status.metrics]  # fmt: skip
    if shown:
        yield f"validation: {', '.join(shown)}"
    if status.stages:
        took = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in status.stages.items())
        yield f"the newest round: {took}"
    rows = [
        [
            site.name,
            str(site.summed),
            epsilon(site.spent),
            epsilon(site.left),
            printable(site.why_not)[:LONGEST],
        ]
        for site in status.sites
    ]
    if rows:
        yield table(["site", "rounds\nin the sum", "ε\nspent", "ε\nleft", "why not"], rows)


def time_left(status: RunStatus) -> str:
    """When a run will be done, in words."""
    if status.state == "done":
        return "nothing left to do"
    if status.state not in GOES_ON:
        return f"goes on with `consilium resume {status.experiment} {status.run}`"
    if status.seconds_left is None:
        return "time left not told"
    minutes, seconds = divmod(round(status.seconds_left), 60)
    return f"about {minutes} min {seconds:02} s left"


def epsilon(value: float | None) -> str:
    """An ε in a cell; a dash where none is told."""
    return "-" if value is None else f"{value:.3g}"
