"""`consilium doctor`: is everything here that a run needs?"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from packaging.requirements import Requirement
from rich.console import Console

from federated.config import experiment_names, load_experiment
from federated.data.load import locate_local
from federated.errors import ConsiliumError
from flows.ports import is_free

PACKAGES = ("torch", "prefect", "mlflow", "dvc", "great-expectations", "torchio", "medmnist")
PACKAGES += ("opacus", "tenseal")
LEAST_DISK_GB = 5
Finding = tuple[bool, str]


def examine(console: Console, params: Path) -> bool:
    """Print every finding; return whether all that a run needs is there."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _versions,
        _torch,
        _ports,
        _disk,
        lambda: _data(params),
    )
    healthy = True
    for check in checks:
        for good, text in check():
            healthy = healthy and good
            console.print(f"[green]ok[/]    {text}" if good else f"[red]wrong[/] {text}")
    return healthy


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


def _data(params: Path) -> Iterator[Finding]:
    try:
        names = experiment_names(params)
    except ConsiliumError as error:
        yield False, str(error)
        return
    for name in names:
        try:
            experiment = load_experiment(name, (), params)
            found = locate_local(experiment.data)
        except ConsiliumError as error:
            yield False, f"{name}: {error}"
            continue
        dataset = experiment.data.dataset
        yield (
            True,
            f"{name}: {dataset} "
            + (f"at {found.path} ({found.source})" if found else "is not here; a run downloads it"),
        )
