"""A copy of the project whose `demo` is tiny, and real servers that end with the test."""

import os
import shutil
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from flows.ports import listen, port_of
from tests.conftest import PROJECT, TINY_PARAMS
from tests.system.browser import chromium
from tests.system.coordinator import Coordinator, running_coordinator

COPIED = ("flows", "tasks", "federated", "models", "prefect.yaml", "dvc.yaml", ".dvcignore")


@dataclass(frozen=True)
class Served:
    """The servers of a `consilium serve`: their addresses, the secret, and what told it.

    ``folder`` is where it was started, with Prefect's home and its own below; ``told`` is what
    `consilium serve --env` prints.
    """

    prefect: str
    mlflow: str
    secret: str
    folder: Path
    told: str

    @property
    def credentials(self) -> tuple[str, str]:
        return "consilium", self.secret


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory, empty_prefect: Path) -> Iterator[Served]:
    """`consilium serve --ui-only` on free ports, with a home of its own, for all who look at it.

    It ends with the last test of this folder, and not with the last of all: servers that nobody
    asks anything look for work every second.
    """
    folder = tmp_path_factory.mktemp("served")
    (folder / "prefect").mkdir()
    shutil.copy(empty_prefect, folder / "prefect" / "prefect.db")
    (folder / "params.yaml").write_text("defaults: {}\nexperiments: {}\n")
    with listen() as first, listen() as second:
        prefect, mlflow = port_of(first), port_of(second)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_API", "MLFLOW_T"))}
    environment = kept | {
        "CONSILIUM_HOME": str(folder / "home"),
        "PREFECT_HOME": str(folder / "prefect"),
        "PYTHONPATH": str(PROJECT),
        "PYTHONUNBUFFERED": "1",
    }
    consilium = [sys.executable, "-c", "from flows.cli import main; main()", "serve"]
    ports = ["--prefect-port", str(prefect), "--mlflow-port", str(mlflow)]
    process = subprocess.Popen(
        [*consilium, "--ui-only", *ports],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said = wait_for(process, "Stop with Ctrl-C")
        asked = subprocess.run(
            [*consilium, "--env"], cwd=folder, env=environment, text=True, capture_output=True
        )
        exported = dict(
            line.removeprefix("# ").removeprefix("export ").split("=", 1)
            for line in asked.stdout.splitlines()
            if "=" in line
        )
        secret = exported["MLFLOW_TRACKING_PASSWORD"]
        assert exported["PREFECT_API_AUTH_STRING"] == f"consilium:{secret}"
        assert secret not in said  # it is not a terminal
        addresses = (f"http://127.0.0.1:{prefect}", f"http://127.0.0.1:{mlflow}")
        yield Served(*addresses, secret, folder, asked.stdout)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        assert process.stdout
        process.stdout.close()
    assert not list((folder / "home" / "serve").iterdir())


@pytest.fixture(scope="package")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    """A coordinator that has nothing yet, with its databases in PostgreSQL."""
    with running_coordinator(tmp_path_factory.mktemp("coordinator")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all who open pages in a file of tests.

    Longer it must not live: until it ends, Playwright keeps an event loop running in this thread,
    in which no other test may run one.
    """
    with chromium() as opened:
        yield opened


@pytest.fixture
def copy(project: Path, environment: dict[str, str], empty_prefect: Path) -> Path:
    """A project folder with the real code and pipeline, and params.yaml of one tiny experiment.

    Prefect's database is there, as it is from a person's second run on.
    """
    home = Path(environment["PREFECT_HOME"])
    home.mkdir()
    shutil.copy(empty_prefect, home / "prefect.db")
    for name in COPIED:
        source = PROJECT / name
        if source.is_dir():
            # With what is compiled, which stays good: a copy is as old as its source.
            shutil.copytree(source, project / name)
        else:
            shutil.copy(source, project / name)
    tiny = {
        "defaults": TINY_PARAMS["defaults"],
        "experiments": {"demo": TINY_PARAMS["experiments"]["tiny"]},
        "pretraining": {"cubes": {"experiment": "demo", "rounds": 1}},
        "transfer": {"demo": {"backbone": "cubes"}},
    }
    (project / "params.yaml").write_text(yaml.safe_dump(tiny))
    # The copy's own code, not the installed project's; compiled beside it, as a person has it.
    environment["PYTHONPATH"] = str(project)
    environment["PYTHONDONTWRITEBYTECODE"] = ""
    return project


@pytest.fixture
def call(project: Path, environment: dict[str, str]) -> Callable[..., str]:
    """Run a command in the project to its end and return what it printed."""

    def run(*command: str, **extra: str) -> str:
        done = subprocess.run(
            command,
            cwd=project,
            env=environment | extra,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,  # on a busy machine too
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


@pytest.fixture
def start(project: Path, environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start a process in a group of its own; whole groups end with the test."""
    started: list[subprocess.Popen] = []

    def begin(*command: str, **extra: str) -> subprocess.Popen:
        process = subprocess.Popen(
            command,
            cwd=project,
            env=environment | {"PYTHONUNBUFFERED": "1"} | extra,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield begin
    for process in reversed(started):
        kill_group(process)


def kill_group(process: subprocess.Popen) -> None:
    """End a process and all it started, as a power cut would."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    if process.stdout:
        process.stdout.close()


def wait_for(process: subprocess.Popen, text: str) -> str:
    """Read a process's lines until one holds ``text``; return all that was read."""
    lines: list[str] = []
    assert process.stdout
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"{process.args} ended without {text!r}:\n" + "".join(lines))


def arguments() -> set[str]:
    """The command lines of all processes, as every user of the machine can see them."""
    seen = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            seen.add(" ".join(process.cmdline()))
    return seen


def files_with(secret: str, *folders: Path) -> list[Path]:
    """The files below folders that hold a secret, in the clear or as a header has it."""
    forms = (secret.encode(), b64encode(f"consilium:{secret}".encode()))
    return [
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and any(form in path.read_bytes() for form in forms)
    ]
