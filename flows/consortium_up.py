"""`consilium consortium up`: a whole consortium on this machine, to try it.

A coordinator and sites are processes of their own, each with a home of its own, which meet at one
loopback port over HTTPS as they would over the world. The cases of an experiment are dealt to the
sites as it says, and each site gets files of its own cases alone.
"""

import os
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import numpy as np
import psutil

from federated.configuration.experiment import Experiment
from federated.data.dataset import SPLITS, LocatedFile, Split
from federated.data.folders.dataset import FolderDataset, found_cases, split_cases
from federated.data.folders.described.dealing import deal_cases
from federated.data.folders.described.family import described_family
from federated.data.folders.families import CaseFiles
from federated.data.load import folder_name, load, locate
from federated.data.medmnist.files import file_name
from federated.data.partitioning import AnyDataset, partition_dataset
from federated.errors import ConsiliumError
from federated.exchange.policy import PERMISSIVE
from federated.files import make_folders, write_text
from federated.secrets.home import private_folder
from federated.settings.names import refuse_site_name
from flows.ports import listen, port_of

# In seconds, for a process to come up, and to end. One that fails ends by itself, and a coordinator
# waits for each of its servers up to five minutes on a busy machine: nobody gives it up before.
STARTUP, ENDING = 900, 20
HOST = "127.0.0.1"
# `consilium`, which ends with who started it, however that one ends.
PROGRAM = ("-m", "flows.ends_with_parent", "flows.program")
# The variables of a party's environment that say where it keeps what it has.
HOMES = ("CONSILIUM_HOME", "PREFECT_HOME")
POLICY = PERMISSIVE.replace("this simulated site", "this site, which is here to try it,")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Party:
    """A party of the consortium: its name, its home, and the folder that it works in."""

    name: str
    home: Path

    def environment(self) -> dict[str, str]:
        """What its processes get: homes of its own, and nothing of the one who starts them."""
        mine = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_"))}
        mine.pop("CONSILIUM_DATA", None)
        return mine | {
            "CONSILIUM_HOME": str(self.home / "consilium"),
            "PREFECT_HOME": str(self.home / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "1",
            "PYTHONUNBUFFERED": "1",
        }


def deal_files(experiment: Experiment, folders: Mapping[str, Path]) -> LocatedFile:
    """Give each site the files of its own cases, below its folder, as a hospital has them.

    Args:
        experiment: whose data are dealt, as it says, to so many sites as there are folders.
        folders: for each site, the folder that its data sets lie in.

    Returns:
        What was dealt.

    Raises:
        ConsiliumError: the data cannot be had, or not be dealt to so many sites.
    """
    located = locate(experiment.data)
    dataset = load(located, experiment.data)
    settings = experiment.sites.model_copy(update={"count": len(folders)})
    partition = partition_dataset(dataset, settings, experiment.seed)
    for splits, site in zip(partition.sites.values(), folders, strict=True):
        _give(experiment, located, dataset, splits, site, folders[site])
    return located


def of_files(dealt: LocatedFile) -> list[str]:
    """What a run of dealt files has to say of them: none of them is the file that was published."""
    return ["data.source=files"] if dealt.source == "medmnist" else []


def _give(
    experiment: Experiment,
    located: LocatedFile,
    dataset: AnyDataset,
    splits: Mapping[Split, Sequence[int]],
    site: str,
    folder: Path,
) -> None:
    """Write the cases of one site below its folder.

    Args:
        experiment: whose data they are.
        located: where those of all sites lie.
        dataset: of all sites.
        splits: which of its cases the site has.
        site: the site.
        folder: that its data sets lie in.
    """
    if located.path.suffix == ".npz":
        # Of generated images the file has another name.
        path = folder / "medmnist" / file_name(experiment.data.dataset, experiment.data.size)
        path.parent.mkdir(parents=True)
        with np.load(located.path) as arrays:
            own = {
                f"{split}_{what}": arrays[f"{split}_{what}"][list(splits[split])]
                for split in SPLITS
                for what in ("images", "labels")
            }
        np.savez(path, **own)
        return
    root = folder / folder_name(experiment.data)
    described = experiment.data.described
    if described is not None and located.source == "phantom":
        raise ConsiliumError(
            f"Generated images of {experiment.data.dataset}, a described set, cannot be "
            "dealt out as files. Try it with files of its own (data.source=files), or with a "
            "set of MedMNIST."
        )
    if described is not None and described.layout == "table":
        cases = found_cases(located.path, described_family(experiment.data.dataset, described))
        dealt = split_cases(located.path, experiment.data.dataset, cases.cases)
        mine: Mapping[Split, Sequence[CaseFiles]] = {
            split: [dealt[split][index] for index in splits[split]] for split in SPLITS
        }
        deal_cases(located.path, described, mine, site, root)
        return
    if not isinstance(dataset, FolderDataset):
        raise ConsiliumError(
            f"The images of {experiment.data.dataset} cannot be dealt out as files. Try it with a "
            "set of MedMNIST or with one that has a cases.csv, or give each site its own folder."
        )
    for split in SPLITS:
        for index in splits[split]:
            case = dataset.cases[split][index]
            for path in case.paths:
                target = root / path.relative_to(located.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    for path in located.path.iterdir():
        if path.is_file() and not (root / path.name).exists():
            shutil.copyfile(path, root / path.name)


def up(
    names: Sequence[str],
    experiment: Experiment,
    overrides: Sequence[str],
    params: Path,
    folder: Path,
    say: Say,
) -> int:
    """Start a consortium, have it run an experiment, and end it.

    Args:
        names: of its sites.
        experiment: what it runs.
        overrides: ``section.key=value`` items of the run.
        params: the parameter file.
        folder: below which the parties have their homes; it is made.
        say: tells a person a line.

    Returns:
        The exit code of the run.

    Raises:
        ConsiliumError: the folder is there already, or a party does not come up.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConsiliumError(
            f"The folder {folder} is not empty. A consortium to try needs one of its own: remove "
            "it, or name another with --folder."
        )
    for name in names:
        refuse_site_name(name)
    private_folder(folder, folder)
    coordinator = Party("coordinator", folder / "coordinator")
    sites = [Party(name, folder / "sites" / name) for name in names]
    for party in (coordinator, *sites):
        make_folders(party.home, private=True)
    data = deal_files(experiment, {site.name: site.home / "data" for site in sites})
    say(f"the cases of {experiment.data.dataset} ({data.source}) are dealt to {len(names)} sites")
    kit = folder / "consilium-kit.json"
    listening = listen()
    port = port_of(listening)
    listening.close()
    listened = ["--name", HOST, "--host", HOST, "--port", str(port)]
    command(coordinator, say, "coordinator", "init", *listened, "--kit", str(kit))
    policy = folder / "site-policy.yaml"
    write_text(policy, POLICY)
    generated = ["--generated"] if data.source == "phantom" else []

    def make(site: Party) -> None:
        given = ["--kit", str(kit), "--data", str(site.home / "data"), "--policy", str(policy)]
        command(site, say, "site", "init", site.name, *generated, *given, "--out", str(folder))
        command(coordinator, say, "sites", "enrol", str(folder / f"{site.name}.enrolment.json"))

    # Each is a process that imports for a second or two.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(make, sites))
    places = ["--params", str(params.resolve()), "--runs", str((folder / "runs").resolve())]
    with at_work(coordinator, sites, places, say):
        seen = shlex.join(["--runs", places[-1]])
        home = shlex.quote(coordinator.environment()["CONSILIUM_HOME"])
        say(f"from another terminal: consilium watch {experiment.name} {seen}")
        say(f"                       consilium pause {experiment.name} {seen}")
        say(f"                       CONSILIUM_HOME={home} consilium coordinator status {seen}")
        sets = [*of_files(data), *overrides]
        return begin_run(coordinator, experiment.name, sets, places, say)


@contextmanager
def at_work(
    coordinator: Party, sites: Sequence[Party], places: Sequence[str], say: Say
) -> Iterator[None]:
    """Run the processes of a coordinator and of its sites, until the block ends.

    Args:
        coordinator: which is started first.
        sites: which it has enrolled.
        places: the options that say where parameters and runs lie.
        say: tells a person a line.

    Raises:
        ConsiliumError: a party does not come up.
    """
    with ExitStack() as stack:
        started: list[Started] = []

        def start(party: Party, *arguments: str) -> Started:
            started.append(stack.enter_context(process(party, say, *arguments)))
            return started[-1]

        try:
            wait_for_line(start(coordinator, "coordinator", "start", *places), "coordinator at ")
            for each in [start(site, "site", "start") for site in sites]:
                wait_for_line(each, "site ")
            yield
        finally:
            # All at the same time: each may take a while, and the stack waits for one by one.
            for each in started:
                each.end()


def begin_run(
    coordinator: Party,
    name: str,
    overrides: Sequence[str],
    places: Sequence[str],
    say: Say,
) -> int:
    """Begin a run of the consortium at the coordinator, and wait for its end.

    Args:
        coordinator: where it is begun.
        name: the experiment's.
        overrides: ``section.key=value`` items of the run.
        places: the options that say where parameters and runs lie.
        say: tells a person a line.

    Returns:
        The exit code of the run.
    """
    own = ("runner.name=sites", "data.source=files")
    sets = [item for each in (*overrides, *own) for item in ("--set", each)]
    servers = exported(coordinator)
    with process(
        coordinator, say, "run", name, *sets, *places, label="run", more=servers
    ) as running:
        running.process.wait()
        return int(running.process.returncode)


def exported(coordinator: Party) -> dict[str, str]:
    """What another terminal needs to be let in by the coordinator's Prefect and MLflow.

    Raises:
        ConsiliumError: the coordinator cannot say it.
    """
    with process(coordinator, silent, "coordinator", "start", "--env") as running:
        running.process.wait()
    pairs = [shlex.split(line)[-1] for line in running.lines if line.startswith("export ")]
    if not pairs:
        raise ConsiliumError(f"`consilium coordinator start --env` said {running.lines[-3:]}.")
    return dict(pair.split("=", 1) for pair in pairs)


def silent(_: str) -> None:
    """Say nothing."""


@dataclass
class Started:
    """A process of a party, and the lines that it has said."""

    process: "subprocess.Popen[str]"
    label: str
    lines: list[str]
    # What begins it again; and whether it is being ended.
    again: str = ""
    is_ending: bool = False
    # What it had started when it was told to end: workers, servers, and what these have started.
    below: list[psutil.Process] = field(default_factory=list)

    def end(self) -> None:
        """Tell it to end, and do not wait for that."""
        self.is_ending = True
        if self.process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                self.below += psutil.Process(self.process.pid).children(recursive=True)
            self.process.terminate()


@contextmanager
def process(
    party: Party,
    say: Say,
    *arguments: str,
    label: str = "",
    more: Mapping[str, str] | None = None,
) -> Iterator[Started]:
    """Run a command of a party, told line by line, until the block or this process ends.

    It is a process group of its own: Ctrl-C in a terminal reaches this process alone, which then
    has all of them end.

    Args:
        party: whose command it is.
        say: is told each line.
        arguments: of `consilium`.
        label: what stands before its lines, if not the party's name.
        more: variables of its environment beside the party's own.
    """
    started = subprocess.Popen(  # noqa: S603 - our own commands
        [sys.executable, *PROGRAM, *arguments],
        env=party.environment() | dict(more or {}),
        cwd=party.home,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    running = Started(started, label or party.name, [], _command_again(party, arguments))
    reader = Thread(target=_read, args=(running, say), daemon=True)
    reader.start()
    try:
        yield running
    finally:
        running.end()
        try:
            started.wait(ENDING)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
        end_all(running.below)
        reader.join(2)


def end_all(processes: Iterable[psutil.Process]) -> None:
    """Wait for processes that are about to end, and kill those that do not in :data:`ENDING`.

    Without it a command could be done while the last of what it started is still going down: a
    person who starts another one, or removes the folder, would meet it.
    """
    deadline = time.monotonic() + ENDING
    while (left := [each for each in processes if _runs(each)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    for each in left:
        with suppress(psutil.NoSuchProcess):
            each.kill()


def _runs(process: psutil.Process) -> bool:
    # One that has ended stays in the system's list until whoever inherited it has looked, which the
    # first process of a container may never do.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _read(running: Started, say: Say) -> None:
    assert running.process.stdout is not None
    for line in running.process.stdout:
        text = line.rstrip()
        running.lines.append(text)
        if text:
            say(f"{running.label:12} {text}")
    # A process that a person has killed, to see what becomes of it, or that has failed.
    if not running.is_ending and (code := running.process.wait()):
        say(f"{running.label:12} has ended ({code}); begin it again with: {running.again}")


def _command_again(party: Party, arguments: Sequence[str]) -> str:
    """The command of a party, as a person calls it in a terminal."""
    homes = [f"{name}={shlex.quote(party.environment()[name])}" for name in HOMES]
    command = shlex.join(["consilium", *arguments])
    return f"cd {shlex.quote(str(party.home))} && {' '.join(homes)} {command}"


def wait_for_line(running: Started, start: str) -> str:
    """Wait until a process has said a line that begins so, and return it.

    Raises:
        ConsiliumError: it has ended, or :data:`STARTUP` has passed.
    """
    deadline = time.monotonic() + STARTUP
    while time.monotonic() < deadline:
        for line in list(running.lines):
            if line.startswith(start):
                return line
        if running.process.poll() is not None:
            break
        time.sleep(0.05)
    said = "; ".join(running.lines[-3:]) or "nothing"
    raise ConsiliumError(f"{running.label} did not come up. The last that it said: {said}")


def command(party: Party, say: Say, *arguments: str) -> None:
    """Run a command of a party to its end.

    Raises:
        ConsiliumError: it fails.
    """
    with process(party, say, *arguments) as running:
        if running.process.wait():
            time.sleep(0.1)
            raise ConsiliumError(
                f"`consilium {' '.join(arguments[:2])}` failed: {'; '.join(running.lines[-3:])}"
            )


def new_folder() -> Path:
    """A folder for a consortium to try, which is not there yet."""
    return Path("consortium") / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
