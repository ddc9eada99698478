"""The runs of an experiment: a new run, one to go on with, and the latest."""

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname
from uuid import uuid4

from federated.configuration.experiment import Experiment
from federated.configuration.explain import closest
from federated.configuration.load import resolve
from federated.configuration.params_file import experiment_names
from federated.errors import ConsiliumError
from federated.files import OTHERS, PRIVATE_FOLDER, held, is_held, make_folders, write_json
from federated.privacy import Private
from federated.run.folder import RunFolder
from federated.settings.names import refuse_name

# Of more experiments a sentence does not name all.
MOST_NAMED = 12


def new_run(runs: Path, experiment: Experiment) -> RunFolder:
    """Make the folder of a new run, with its configuration; its id begins with the time in UTC.

    The folder is open to its owner alone.

    Raises:
        ConsiliumError: the folder cannot be written to.
    """
    run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid4().hex[:4]}"
    root = runs / experiment.name / run_id
    try:
        make_folders(root.parent)
        root.mkdir(PRIVATE_FOLDER)
    except OSError as error:
        raise ConsiliumError(
            f"Cannot write to the folder {root.parent}: {error.strerror}. Make it writable, free "
            "some space, or name another folder."
        ) from error
    write_json(root / "config.json", experiment.to_json())
    return RunFolder(root.resolve())


def reopen_run(
    runs: Path, name: str, run_id: str, rounds: int | None
) -> tuple[RunFolder, Experiment]:
    """A run to go on with, by its id or ``latest``, and its configuration.

    The folder is closed to others, as those of older versions were not.

    Args:
        runs: the folder that holds all runs.
        name: the experiment's name.
        run_id: the run's id, or ``latest``.
        rounds: replaces the number of rounds in all; ``None`` to keep it.

    Raises:
        ConsiliumError: there is no such run, it is somebody else's, or the noise of a private run
            was found for another number of rounds.
    """
    refuse_name(name, "an experiment's name")
    if run_id != "latest":
        refuse_name(run_id, "a run's id")
    folder = latest_run(runs, name) if run_id == "latest" else RunFolder(runs / name / run_id)
    if not (folder.root / "config.json").is_file():
        raise ConsiliumError(
            f"There is no run {run_id!r} of {name!r} in {runs}.{_nearest_run(runs, name, run_id)} "
            f"`ls {runs / name}` lists them; without an id, the latest is taken."
        )
    folder = RunFolder(folder.root.resolve())
    experiment = folder.experiment()
    privacy = experiment.privacy
    target = privacy.epsilon if isinstance(privacy, Private) else None
    if rounds is not None and rounds != experiment.rounds and target is not None:
        raise ConsiliumError(
            f"Run {folder.run_id} of {name!r} is to spend privacy.epsilon={target:g} in all, and "
            f"its noise was made for {experiment.rounds} rounds: {rounds} rounds with the same "
            "noise spend another epsilon than was asked for. Resume it without --rounds, or start "
            "a new run."
        )
    try:
        if folder.root.stat().st_mode & OTHERS:
            folder.root.chmod(PRIVATE_FOLDER)
    except OSError as error:
        raise ConsiliumError(
            f"The folder {folder.root} cannot be closed to others: {error.strerror}. Go on with "
            f"the run as the user who began it, or close it: chmod 700 {folder.root}"
        ) from error
    if rounds is not None:
        value = experiment.to_json() | {"rounds": rounds}
        where = f"run {folder.run_id}"
        experiment = resolve(value.pop("name"), value, where, {"rounds": "--rounds"})
    return folder, experiment


def refuse_older_run(folder: RunFolder) -> None:
    """Refuse to go on with a run of which an older version of the program has done rounds.

    There the sites had no homes: what they kept between rounds lies in other files.

    Raises:
        ConsiliumError: it is such a run.
    """
    if folder.done_rounds() and not folder.coordinator_path.is_dir():
        name = folder.root.parent.name
        raise ConsiliumError(
            f"Run {folder.run_id} of {name!r} was begun by an older version of the program, in "
            "which its sites kept what they know in other files and signed nothing, so this "
            f"version cannot go on with it. Its {folder.done_rounds()} rounds stay as they are. Go "
            f"on with the version that began it, or start a new run: consilium run {name}"
        )


# Locked by the process that works on the run.
WORKED_ON = ".worked-on"


@contextmanager
def worked_on(folder: RunFolder) -> Iterator[None]:
    """Work on a run as the only process that does, until the block ends or the process is gone.

    Raises:
        ConsiliumError: another process works on it, or the folder cannot be written to.
    """
    since = datetime.now(UTC).strftime("%H:%M UTC")
    me = f"process {os.getpid()} of {gethostname()}, since {since}"
    with held(folder.root / WORKED_ON, me) as other:
        if other is not None:
            raise ConsiliumError(
                f"Run {folder.run_id} of {folder.root.parent.name!r} is being worked on by another "
                f"process: {other or 'one that has just begun'}. Wait until it is done, or stop it "
                "first. Another run that was stopped goes on with its own id: consilium resume "
                f"{folder.root.parent.name} RUN"
            )
        yield


def being_worked_on(folder: RunFolder) -> bool:
    """Whether some process works on a run at the moment; nothing is written for the look.

    Raises:
        ConsiliumError: it cannot be seen, since the run is somebody else's.
    """
    return is_held(folder.root / WORKED_ON)


def newest_first(runs: Path, experiment: str | None = None) -> list[RunFolder]:
    """All runs below a folder, or an experiment's, the newest first: their ids begin with the time.

    A run that is still starting is among them, which ``latest`` does not point to yet.

    Raises:
        ConsiliumError: an experiment cannot have that name.
    """
    of = "*" if experiment is None else refuse_name(experiment, "an experiment's name")
    found = [path.parent for path in runs.glob(f"{of}/*/config.json")]
    roots = [root for root in found if not root.is_symlink()]
    return [RunFolder(root) for root in sorted(roots, key=lambda root: root.name, reverse=True)]


def seen_at_work(runs: Path, experiment: str | None = None) -> RunFolder | None:
    """The newest run that is seen to be worked on; of somebody else's it may not be seen.

    Args:
        runs: the folder that holds all runs.
        experiment: the experiment's name; any experiment if ``None``.

    Raises:
        ConsiliumError: an experiment cannot have that name.
    """
    for folder in newest_first(runs, experiment):
        with suppress(ConsiliumError):
            if being_worked_on(folder):
                return RunFolder(folder.root.resolve())
    return None


def latest_run(runs: Path, experiment: str) -> RunFolder:
    """The run that ``runs/<experiment>/latest`` points to.

    Raises:
        ConsiliumError: there is no run of that experiment.
    """
    latest = runs / refuse_name(experiment, "an experiment's name") / "latest"
    if not (latest / "config.json").is_file():
        raise ConsiliumError(
            f"There is no run of {experiment!r} in {runs}. {_instead(runs, experiment)}"
        )
    return RunFolder(latest.resolve())


def _nearest_run(runs: Path, name: str, run_id: str) -> str:
    known = [folder.run_id for folder in newest_first(runs, name)]
    return closest(run_id, known) or (f" The newest is {known[0]}." if known else "")


def _instead(runs: Path, name: str) -> str:
    """What to do where there is no run of that name: the command that was probably meant."""
    whose = {folder.run_id: folder.root.parent.name for folder in newest_first(runs)}
    if name in whose:
        return (
            f"It is the id of a run of {whose[name]!r}: give the experiment's name, {whose[name]}."
        )
    with_runs, elsewhere = sorted(set(whose.values())), "or name another folder of runs with --runs"
    experiments: list[str] = []
    with suppress(ConsiliumError):
        experiments = experiment_names()
    if name in experiments:
        return f"Start one with: consilium run {name}; {elsewhere}."
    said = (
        f"There are runs of: {', '.join(with_runs[:MOST_NAMED])}"
        if with_runs
        else "There is no run at all"
    )
    said += " and others" if len(with_runs) > MOST_NAMED else ""
    near = difflib.get_close_matches(name, [*with_runs, *experiments], n=1)
    if near and near[0] in with_runs:
        look = f"Look at its newest run with: consilium watch {near[0]}"
        return f"Did you mean {near[0]!r}? {look}. {said}; {elsewhere}."
    start = near[0] if near else "NAME"
    known = f", where NAME is one of {', '.join(experiments)}" if experiments and not near else ""
    meant = f"Did you mean {near[0]!r}, an experiment without a run? " if near else ""
    return f"{meant}{said}. Start one with: consilium run {start}{known}; {elsewhere}."


def point_latest(folder: RunFolder) -> None:
    """Make ``latest`` beside the run's folder point to it."""
    latest = folder.root.parent / "latest"
    temporary = folder.root.parent / f".latest.{folder.run_id}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.run_id)
    temporary.replace(latest)
