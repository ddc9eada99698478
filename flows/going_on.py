"""How a person goes on with what their command has begun, once it was stopped."""

from collections.abc import Iterator, Mapping, Sequence
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


def preparing(
    experiment: str,
    overrides: Sequence[str],
    params: Path,
    folder: Path,
    step: str | None = None,
) -> str:
    """The sentence for the preparation of data, which has no rounds, or for one step of it.

    Args:
        experiment: the experiment's name.
        overrides: what was set on the command line.
        params: the parameter file.
        folder: the prepared folder.
        step: the step that was to be done alone.
    """
    command = ["consilium", "prepare", experiment, *(["--step", step] if step else [])]
    command += [word for item in overrides for word in ("--set", item)]
    command += [] if params == Path("params.yaml") else ["--params", str(params)]
    return (
        f"Data that were downloaded wholly are kept, and {folder} is not complete; prepare it "
        f"again with: {join(command)}"
    )


def stating(experiment: str, overrides: Sequence[str], params: Path) -> str:
    """The sentence for statistics over the sites, which have no rounds.

    Args:
        experiment: the experiment's name.
        overrides: what was set on the command line.
        params: the parameter file.
    """
    command = ["consilium", "statistics", experiment]
    command += [word for item in overrides for word in ("--set", item)]
    command += [] if params == Path("params.yaml") else ["--params", str(params)]
    return (
        "What sites have entered in their ledgers stays there, and there are no statistics; begin "
        f"again with: {join(command)}"
    )


def joining(experiment: str, options: Mapping[str, str]) -> str:
    """The sentence for a site that joins a finished run, which nothing of it changes.

    ``options`` are those of the command that begins it anew, by their names.
    """
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return (
        "The run that is joined is as it was, and what was released of the site stays in its "
        f"ledger; the site trains from the beginning with: "
        f"{join(['consilium', 'sites', 'join', experiment, *words])}"
    )


def resuming(experiment: str, run_id: str, runs: Path) -> str:
    """The sentence for a run of rounds, with a command that can be copied."""
    return f"Complete rounds are kept; go on with: {resume_command(experiment, run_id, runs)}"


def resume_command(experiment: str, run_id: str, runs: Path) -> str:
    """The command that goes on with a run; it names the folder of runs where it is another one."""
    where = [] if runs.resolve() == Path("runs").resolve() else ["--runs", str(runs)]
    return join(["consilium", "resume", experiment, run_id, *where])
