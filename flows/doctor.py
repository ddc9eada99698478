"""`consilium doctor`: is everything here that a run needs?"""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from textwrap import wrap

import torch
from packaging.requirements import Requirement
from rich.console import Console
from rich.markup import escape

from federated.configuration.experiment import Experiment
from federated.configuration.load import load_experiment
from federated.configuration.params_file import experiment_names
from federated.data.folders.families import FAMILIES
from federated.data.load import locate_local, missing
from federated.errors import ConsiliumError
from flows.ports import is_free
from flows.preflight import require_servers_and_folders
from flows.progress import counted
from flows.server import configured_api

PACKAGES = (
    *("torch", "prefect", "mlflow", "dvc", "great-expectations", "torchio", "medmnist"),
    *("opacus", "tenseal"),
)
LEAST_DISK_GB = 5
# In columns: of a line, and of the mark before it.
WIDEST, MARGIN = 100, 8
# Whether it is as it should be, ``None`` where only an experiment of one's own choice needs it.
Finding = tuple[bool | None, str]
MARKS = {True: "[green]ok[/]     ", False: "[red]wrong[/]  ", None: "[yellow]missing[/]"}


def examine(console: Console, params: Path) -> bool:
    """Print every finding, and how many there are; return whether all that a run needs is there.

    Folders of data that a run does not download are told as missing, with where to put them: an
    experiment needs only its own.
    """
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _versions,
        _torch,
        _ports,
        _disk,
        _servers_and_folders,
        lambda: _data(params),
    )
    found: Counter[bool | None] = Counter()
    for check in checks:
        for good, text in check():
            found[good] += 1
            _print(console, good, text)
    console.print(_summary(found), highlight=False, soft_wrap=True)
    return not found[False]


def _print(console: Console, good: bool | None, text: str) -> None:
    """Print a finding in lines that a terminal shows whole, below each other."""
    width = min(WIDEST, console.width) if console.is_terminal else WIDEST
    lines = wrap(text, width - MARGIN, break_long_words=False, break_on_hyphens=False) or [""]
    console.print(MARKS[good], escape(lines[0]), soft_wrap=True)
    for line in lines[1:]:
        console.print(f"{'':{MARGIN}}{escape(line)}", soft_wrap=True)


def _summary(found: Mapping[bool | None, int]) -> str:
    """How many checks are fine, and how many need somebody's attention."""
    said = f"{counted(sum(found.values()), 'check')}: {found.get(True, 0)} fine"
    if missing_data := found.get(None, 0):
        said += f", {missing_data} missing that their own experiments alone need"
    if wrong := found.get(False, 0):
        return f"{said}, {wrong} wrong: see to these first."
    return f"{said}, nothing wrong."


def _versions() -> Iterator[Finding]:
    good = sys.version_info >= (3, 11)
    yield good, f"Python {sys.version.split()[0]}" + ("" if good else ": 3.11 or newer is needed")
    for name in PACKAGES:
        try:
            yield True, f"{name} {version(name)}"
        except PackageNotFoundError:
            yield False, f"{name} is not installed: run `make setup`"
    fastapi = Requirement("fastapi<0.151")
    good = fastapi.specifier.contains(version("fastapi"))
    yield good, f"fastapi {version('fastapi')}" + ("" if good else ": Prefect needs fastapi<0.151")


def _torch() -> Iterator[Finding]:
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield True, f"CUDA {torch.version.cuda}: {', '.join(names)}"
    else:
        yield True, f"no CUDA device; training runs on {os.cpu_count()} CPU cores"


def _ports() -> Iterator[Finding]:
    for port, what in ((4200, "Prefect"), (5000, "MLflow")):
        free = is_free(port)
        yield (
            True,
            f"port {port} ({what}) is "
            + ("free" if free else f"in use: a {what} server, or choose another port for `serve`"),
        )


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    good = free >= LEAST_DISK_GB
    yield good, f"{free:.0f} GB free here" + ("" if good else f"; {LEAST_DISK_GB} are needed")
    writable = os.access(Path.cwd(), os.W_OK)
    yield writable, f"{Path.cwd()} is " + ("writable" if writable else "not writable")


def _servers_and_folders() -> Iterator[Finding]:
    try:
        require_servers_and_folders(configured_api())
    except ConsiliumError as error:
        yield False, str(error)
        return
    named = [n for n in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI") if os.environ.get(n)]
    servers = f"the server of {' and that of '.join(named)} answers; " if named else ""
    yield True, f"{servers}the folders of Prefect, MLflow and this site can be written to"


def _data(params: Path) -> Iterator[Finding]:
    try:
        names = experiment_names(params)
    except ConsiliumError as error:
        yield False, str(error)
        return
    for name in names:
        try:
            experiment = load_experiment(name, (), params)
            yield _data_of(experiment)
        except (ConsiliumError, OSError) as error:
            yield False, f"{name}: {error}"


def _data_of(experiment: Experiment) -> Finding:
    """Where an experiment's data are, or how they come here.

    Raises:
        ConsiliumError: they are here and cannot be used.
    """
    settings = experiment.data
    name = f"{experiment.name}: {settings.dataset}"
    if settings.source == "phantom":
        return True, f"{name} is generated"
    if found := locate_local(settings):
        return True, f"{name} at {found.path} ({found.source})"
    if settings.source == "auto":
        return True, f"{name} is not here; a run makes do with generated images"
    if settings.source == "medmnist" and settings.dataset not in FAMILIES:
        return True, f"{name} is not here; a run downloads it"
    # As a run would say it.
    return None, f"{name} is not here, and no run downloads it. {missing(settings)}"
