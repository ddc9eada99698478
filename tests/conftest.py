"""Small data sets in MedMNIST's schema, a project folder to work in, and a Prefect server."""

import compileall
import gc
import itertools
import os
import shutil
import signal
import ssl
import sys
import tempfile

# Before anything reads them: no telemetry, and quiet logs.
os.environ["DO_NOT_TRACK"] = "1"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["GX_ANALYTICS_ENABLED"] = "false"
os.environ["DVC_NO_ANALYTICS"] = "1"
# Whoever begins flow runs that somebody asks Prefect for looks each second, and not each tenth.
os.environ["PREFECT_RUNNER_POLL_FREQUENCY"] = "1"
os.environ["PREFECT_WORKER_QUERY_SECONDS"] = "1"
# Every process that imports torch would look through all packages for further kinds of devices.
os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
# As a person has it: or each of the processes that tests start compiles the project's code anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Several test processes share the cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
for name in ("CONSILIUM_DATA", "CONSILIUM_LEDGER", "MLFLOW_TRACKING_URI"):
    os.environ.pop(name, None)
os.environ.pop("PREFECT_API_URL", None)
# What a shell starts in the background ignores Ctrl-C, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

import tasks.garbage  # noqa: F401
from tests.ram_disk import use_ram_disk

use_ram_disk()

PROJECT = Path(__file__).resolve().parent.parent
REAL_DATA = PROJECT.parent / "shared" / "data"
PACKAGES = ("flows", "tasks", "federated", "models")


def pytest_configure(config: pytest.Config) -> None:
    """Templates of databases are made once for all test processes and kept beside pytest's own."""
    # Without pytest's cache they are made anew, for this session alone.
    cache = getattr(config, "cache", None)
    folder = cache.mkdir("consilium") if cache else Path(tempfile.mkdtemp())
    os.environ["CONSILIUM_CACHE"] = str(folder / "templates")
    if not hasattr(config, "workerinput"):
        # Once: processes that tests start as other users cannot keep what each would compile.
        for package in PACKAGES:
            compileall.compile_dir(PROJECT / package, quiet=2)


def pytest_unconfigure() -> None:
    """Look for what is left in cycles once, and not five times through all that was imported.

    pytest does so at its end, for errors of objects that nobody uses any more: a second each time.
    """
    gc.collect()
    gc.freeze()


# What the tests of real servers take of a clock in seconds, about, where it is much. Files in one
# row share servers, so that they stand together and one test process runs them all.
LONGEST = (
    (240, "hospitals"),
    (180, "deployments", "serve_seen", "guarded_servers"),
    (130, "coordinator_servers", "coordinator_servers_seen"),
    (110, "consortium_docs"),
    (90, "dvc"),
    (70, "kill_and_resume"),
    (60, "documentation"),
    (30, "golden"),
)
# Any other file of them.
FEW = 15


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test process begins with its part of the tests of real servers, which wait a lot.

    Of several test processes each is given a stretch of the list, as long as the others', and takes
    over from the others once it is through. The longest come first, so that no process ends up
    waiting for one of them. What is outside of tests/system comes after what is in it: the servers
    that all of that share end with it.
    """
    rows = {f"test_{name}": row for row in LONGEST for name in row[1:]}
    groups: dict[tuple[Any, ...], list[pytest.Item]] = {row: [] for row in LONGEST}
    others: list[pytest.Item] = []
    for item in items:
        if item.get_closest_marker("system") or item.path.stem in rows:
            groups.setdefault(rows.get(item.path.stem, (FEW, item.path.stem)), []).append(item)
        else:
            others.append(item)
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    parts: list[list[pytest.Item]] = [[] for _ in range(count)]
    seconds = [0] * count
    for row, tests in groups.items():
        least = seconds.index(min(seconds))
        seconds[least] += row[0] if tests else 0
        parts[least] += tests
    ordered: list[pytest.Item] = []
    for number, part in enumerate(parts):
        ordered += sorted(part, key=lambda item: item.path.parent.name != "system")
        room = max(0, len(items) * (number + 1) // count - len(ordered))
        ordered += others[:room]
        del others[:room]
    items[:] = ordered + others


TINY = {"train": 48, "val": 16, "test": 24}


def tiny_volumes(
    seed: int = 0, cases: dict[str, int] | None = None, side: int = 28
) -> dict[str, np.ndarray]:
    """AdrenalMNIST3D's schema, of so many voxels a side: a small or a large bright cube in noise.

    Training takes many times as long as on ``tiny_pictures()``: for tests in which the dimension is
    the point.
    """
    rng = np.random.default_rng(seed)
    arrays = {}
    for split, count in (cases or TINY).items():
        labels = (np.arange(count) % 2).astype(np.uint8)
        images = rng.integers(0, 60, (count, side, side, side), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            own = side // 2 if label else side // 4
            corner = rng.integers(0, side - own, 3)
            window = tuple(slice(start, start + own) for start in corner)
            image[window] = 150 + image[window]
        arrays[f"{split}_images"] = images
        arrays[f"{split}_labels"] = labels[:, None]
    return arrays


# By classes of two: in which of the three channels their squares are bright.
COLOURS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1))


def tiny_pictures(seed: int = 0) -> dict[str, np.ndarray]:
    """BloodMNIST's schema: a small or a large bright square of one of four colours in noise."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for split, count in TINY.items():
        labels = (np.arange(count) % 8).astype(np.uint8)
        images = rng.integers(0, 60, (count, 28, 28, 3), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            own = 14 if label % 2 else 7
            row, column = rng.integers(0, 28 - own, 2)
            bright = 150 * np.array(COLOURS[label // 2], np.uint8)
            image[row : row + own, column : column + own] += bright
        arrays[f"{split}_images"] = images
        arrays[f"{split}_labels"] = labels[:, None]
    return arrays


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders that are not there yet, one after the other.

    pytest's own way to one reads the names of all that there are, which takes longer with every
    test.
    """
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def consilium_home(homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for every test: nothing is read from or written to a person's."""
    place = next(homes)
    place.mkdir(mode=0o700)
    home = place / "consilium"
    monkeypatch.setenv("CONSILIUM_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def tiny_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of ``tiny_pictures()``, drawn once."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.npz"
    np.savez(path, **tiny_pictures())
    return path


@pytest.fixture
def write_npz(tmp_path: Path, tiny_npz: Path) -> Callable[..., Path]:
    """Write arrays where a set of MedMNIST is looked for below ``tmp_path``."""

    def write(arrays: dict[str, np.ndarray] | None = None, dataset: str = "bloodmnist") -> Path:
        path = tmp_path / "data" / "medmnist" / f"{dataset}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        if arrays is None:
            shutil.copyfile(tiny_npz, path)
        else:
            np.savez(path, **arrays)
        return path

    return write


TINY_PARAMS = {
    "defaults": {
        "rounds": 2,
        "data": {"dataset": "bloodmnist", "source": "files", "root": "data"},
        "sites": {"count": 3, "partition": "dirichlet", "beta": 0.5, "min_cases": 8},
        "validate": {"on_failure": "abort"},
        "training": {"lr": 0.002, "batch_size": 16, "local_epochs": 1, "device": "cpu"},
        # dvc.yaml names this key.
        "evaluation": {"share": "statistics"},
        "strategy": {"name": "fedavg"},
        "privacy": {"name": "none"},
        "compression": {"name": "none"},
        "protection": {"name": "plain"},
        "runner": {"name": "serial"},
    },
    "experiments": {
        "tiny": {
            "seed": 0,
            "data": {"dataset": "bloodmnist"},
            "sites": {"count": 3},
            "validate": {},
            "strategy": {"name": "fedprox", "mu": 0.01},
        }
    },
}


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """MLflow's database without a run."""
    from mlflow import MlflowClient
    from mlflow.store.db import utils

    from tasks.new_database import MLFLOW, begin_database

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    assert begin_database(MLFLOW, MLFLOW.address(path))
    with pytest.MonkeyPatch.context() as patch:
        # For each database that it opens MLflow reads all its migrations for the newest's name.
        newest = cache(utils._get_latest_schema_revision)
        patch.setattr(utils, "_get_latest_schema_revision", newest)
        MlflowClient(f"sqlite:///{path}").search_experiments()
        yield path


@pytest.fixture
def project(
    tmp_path: Path,
    write_npz: Callable[..., Path],
    empty_mlflow: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A project folder with a tiny experiment and its data, as the working folder."""
    write_npz()
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_mlflow, tmp_path / "mlruns" / "mlflow.db")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(TINY_PARAMS))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def prepared_tiny(tmp_path_factory: pytest.TempPathFactory, tiny_npz: Path) -> str:
    """What fl-prepare makes of the tiny experiment; its validation takes seconds."""
    from flows.prepare import fl_prepare
    from tests.without_prefect import without_prefect

    folder = tmp_path_factory.mktemp("prepared")
    data = folder / "medmnist" / "bloodmnist.npz"
    data.parent.mkdir()
    shutil.copyfile(tiny_npz, data)
    params = folder / "params.yaml"
    params.write_text(yaml.safe_dump(TINY_PARAMS))
    with pytest.MonkeyPatch.context() as patch, without_prefect():
        patch.setenv("CONSILIUM_HOME", str(folder / "home"))
        return fl_prepare("tiny", [f"data.root={folder}"], str(params))


# What Prefect's server does for its pages, which nobody looks at here: it writes task runs and
# events down and looks for automations, which takes it as long as a small run takes. That task runs
# are told is seen at a server as `consilium serve` starts it (tests/system/test_deployments.py).
FOR_THE_PAGES = ("TASK_RUN_RECORDER", "EVENT_PERSISTER", "TRIGGERS")
# What another process has to know that uses the server of `prefect_server`: there is nothing to
# wait for.
NOT_WRITTEN_DOWN = {"PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_ENABLED": "false"}


@pytest.fixture(scope="session")
def prefect_server(empty_prefect: Path) -> Iterator[str]:
    """The API of Prefect's own test server, with a database that is thrown away."""
    from prefect import settings
    from prefect.testing import utilities

    off = {getattr(settings, f"PREFECT_SERVER_SERVICES_{n}_ENABLED"): False for n in FOR_THE_PAGES}
    # Nobody waits for news of a run here, and a run that ends waits up to a second for its thread.
    off[settings.PREFECT_FLOWS_HEARTBEAT_FREQUENCY] = None
    # Its database has its tables, and nobody looks at types of blocks either.
    off[settings.PREFECT_API_DATABASE_MIGRATE_ON_START] = False
    off[settings.PREFECT_API_BLOCKS_REGISTER_ON_START] = False
    off[settings.PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION] = False
    folder = Path(tempfile.mkdtemp())
    shutil.copy(empty_prefect, folder / "prefect-test.db")
    with pytest.MonkeyPatch.context() as patch, settings.temporary_settings(updates=off):
        # Where the harness keeps its database.
        patch.setattr(utilities, "mkdtemp", lambda: str(folder))
        with utilities.prefect_test_harness(server_startup_timeout=120):
            api = str(settings.get_current_settings().api.url)
            _send_no_events(patch, api)
            _read_certificates_once(patch)
            yield api


def _send_no_events(patch: pytest.MonkeyPatch, api: str) -> None:
    """Have the test server sent no events, which nobody reads there; other servers are sent them.

    At its end the harness waits without a limit until the last event is sent, and one that the
    server no longer takes is sent again and again: with no event there is nothing to wait for.
    """
    from prefect.events import utilities
    from prefect.settings import get_current_settings

    asked = utilities.should_emit_events
    patch.setattr(
        utilities,
        "should_emit_events",
        lambda: str(get_current_settings().api.url) != api and asked(),
    )


def _read_certificates_once(patch: pytest.MonkeyPatch) -> None:
    """Have Prefect's clients share what they know of certificates, which none asks for here.

    Each flow and each task makes a client, and each client reads all authorities of the machine.
    """
    from prefect.client import orchestration

    shared = {"create_default_context": cache(ssl.create_default_context)}
    patch.setattr(orchestration, "ssl", SimpleNamespace(**vars(ssl) | shared))


@pytest.fixture(scope="session")
def empty_prefect(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefect's database, with its tables and nothing in them."""
    from tasks.new_database import PREFECT, begin_database

    path = tmp_path_factory.mktemp("prefect") / "prefect.db"
    assert begin_database(PREFECT, PREFECT.address(path))
    return path


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a process of its own: its own Prefect home, nothing configured."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_API")}
    return kept | {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
