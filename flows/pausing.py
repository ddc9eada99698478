"""Pausing a run between two rounds, and letting it go on, from another terminal."""

import time
from pathlib import Path

from federated.errors import ConsiliumError
from federated.files import write_text
from federated.run.folder import RunFolder
from federated.run.runs import being_worked_on, reopen_run, seen_at_work
from flows.going_on import resume_command
from flows.progress import tell

# In seconds, between two looks at whether the run may go on.
LOOK = 0.5


def wait_while_paused(folder: RunFolder) -> bool:
    """Wait as long as a run is paused; it is told when it is, and when it goes on.

    Returns:
        Whether it was paused.
    """
    if not folder.paused_path.is_file():
        return False
    tell(f"paused after round {folder.done_rounds()}: {_resume(folder)}")
    while folder.paused_path.is_file():
        time.sleep(LOOK)
    tell("the run goes on")
    return True


def pause(runs: Path, experiment: str, run_id: str) -> str:
    """Have a run wait before its next round; return what to tell.

    Raises:
        ConsiliumError: there is no such run, or nobody works on it.
    """
    at_work = seen_at_work(runs, experiment) if run_id == "latest" else None
    # `latest` does not point to a run that is still starting.
    folder, _ = reopen_run(runs, experiment, at_work.run_id if at_work else run_id, None)
    if not being_worked_on(folder):
        raise ConsiliumError(
            f"Nobody works on run {folder.run_id} of {experiment}, so there is nothing to pause. "
            f"It goes on with: {_resume(folder)}"
        )
    write_text(folder.paused_path, "")
    return (
        f"run {folder.run_id} of {experiment} stops before its next round, and goes on with: "
        f"{_resume(folder)}"
    )


def unpause(runs: Path, experiment: str, run_id: str) -> RunFolder | None:
    """Let a run go on that a process holds paused; the run, or ``None`` where there is none.

    Raises:
        ConsiliumError: there is no such run.
    """
    at_work = seen_at_work(runs, experiment) if run_id == "latest" else None
    if at_work and _unpaused(at_work):
        # It may be one that is still starting, which `latest` does not point to.
        return at_work
    folder, _ = reopen_run(runs, experiment, run_id, None)
    return folder if _unpaused(folder) else None


def _unpaused(folder: RunFolder) -> bool:
    was = folder.paused_path.is_file()
    folder.paused_path.unlink(missing_ok=True)
    return was and being_worked_on(folder)


def _resume(folder: RunFolder) -> str:
    runs = folder.root.parent.parent
    return resume_command(folder.root.parent.name, folder.run_id, runs)
