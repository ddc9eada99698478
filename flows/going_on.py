"""How a person goes on with what their command has begun, once it was stopped."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import join

# The sentence of the outermost block that runs, or in which the command was stopped.
_said: list[str] = []


@contextmanager
def goes_on_by(sentence: str) -> Iterator[None]:
    """Say how to go on, should the block be stopped: :func:`how_to_go_on` has the sentence then.

    Of blocks within each other the outermost says it, as the comparison that a run belongs to.
    """
    outermost = not _said
    if outermost:
        _said.append(sentence)
    yield
    # Not reached where the block is stopped: the sentence is still to be said then.
    if outermost:
        _said.clear()


def how_to_go_on() -> str:
    """The sentence of what was stopped; ``""`` where nothing is there to go on with."""
    return "".join(_said)


def nothing_begun() -> None:
    """Forget what another command of this process has begun."""
    _said.clear()


def resuming(experiment: str, run_id: str, runs: Path) -> str:
    """The sentence for a run of rounds, with a command that can be copied."""
    where = [] if runs == Path("runs") else ["--runs", str(runs)]
    command = join(["consilium", "resume", experiment, run_id, *where])
    return f"Complete rounds are kept; go on with: {command}"
