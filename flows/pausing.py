"""Pausing a run between two rounds, and letting it go on, from another terminal."""

import time
from pathlib import Path

from federated.errors import ConsiliumError
from federated.files import write_text
from federated.run.folder import RunFolder
from federated.run.runs import being_worked_on, reopen_run
from flows.progress import tell

# In seconds, between two looks at whether the run may go on.
LOOK = 0.5


def wait_while_paused(folder: RunFolder) -> None:
    """Wait as long as a run is paused; it is told when it is, and when it goes on."""
    if not folder.paused_path.is_file():
        return
    tell(f"paused after round {folder.done_rounds()}: consilium resume {_named(folder)}")
    while folder.paused_path.is_file():
        time.sleep(LOOK)
    tell("the run goes on")


def pause(runs: Path, experiment: str, run_id: str) -> str:
    """Have a run wait before its next round; return what to tell.

    Raises:
        ConsiliumError: there is no such run, or nobody works on it.
    """
    folder, _ = reopen_run(runs, experiment, run_id, None)
    if not being_worked_on(folder):
        raise ConsiliumError(
            f"Nobody works on run {folder.run_id} of {experiment}, so there is nothing to pause. "
            f"It goes on with: consilium resume {_named(folder)}"
        )
    write_text(folder.paused_path, "")
    return (
        f"run {folder.run_id} of {experiment} stops before its next round, and goes on with: "
        f"consilium resume {_named(folder)}"
    )


def unpause(folder: RunFolder) -> bool:
    """Let a run go on that a process holds paused; whether there was one."""
    was = folder.paused_path.is_file()
    folder.paused_path.unlink(missing_ok=True)
    return was and being_worked_on(folder)


def _named(folder: RunFolder) -> str:
    return f"{folder.root.parent.name} {folder.run_id}"
