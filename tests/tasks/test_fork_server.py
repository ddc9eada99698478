"""Worker processes are copies of one that has imported what stages need."""

import os
import random
import signal
import subprocess
import sys

import numpy as np
import psutil
import torch

from federated.configuration.load import resolve
from tasks.pool import open_pool
from tests.conftest import PROJECT, TINY_PARAMS


def parent(*_: object) -> int:
    return os.getppid()


def variable(*_: object) -> str | None:
    return os.environ.get("CONSILIUM_HOME")


def folder(*_: object) -> str:
    return os.getcwd()  # noqa: PTH109 - as the process has it


def test_workers_are_copies_of_one_process_in_the_environment_of_the_moment(monkeypatch, tmp_path):
    defaults = TINY_PARAMS["defaults"] | {"runner": {"name": "processes", "workers": 1}}
    experiment, parents = resolve("tiny", defaults, ""), set()
    for home in ("one", "another"):
        place = tmp_path / home
        place.mkdir()
        monkeypatch.setenv("CONSILIUM_HOME", str(place))
        monkeypatch.chdir(place)
        with open_pool(experiment) as pool:
            assert pool.submit(variable).result() == str(place)
            assert pool.submit(folder).result() == str(place)
            parents.add(pool.submit(parent).result())
    assert len(parents) == 1
    assert parents != {os.getpid()}


def drawn(*_: object) -> tuple[float, ...]:
    """One number of each global generator, and each seed that a copy could have in common."""
    own = random.random()
    return own, np.random.random(), float(torch.rand(1)), torch.initial_seed()  # noqa: NPY002


def test_no_two_workers_draw_the_same_from_global_generators():
    defaults = TINY_PARAMS["defaults"] | {"runner": {"name": "processes", "workers": 1}}
    experiment, draws = resolve("tiny", defaults, ""), []
    for _ in range(2):
        with open_pool(experiment) as pool:
            draws.append(pool.submit(drawn).result())
    assert all(one != other for one, other in zip(*draws, strict=True)), draws


def grown_mb(*_: object) -> float:
    """By how much a process grows over many steps that take and free the same activations.

    Each leaves some small objects behind, as a step of training does for a while.
    """
    process, left = psutil.Process(), []
    for step in range(40):
        activations = [torch.ones(1_000_000) for _ in range(4)]
        left.append([torch.ones(1 + number % 3) for number in range(8)])
        del activations
        if step == 3:
            before = process.memory_info().rss
    return float(process.memory_info().rss - before) / 2**20


def test_a_worker_takes_no_more_memory_step_by_step():
    """By itself a glibc from before 2023 takes 16 MB more in each of these steps, 580 in all."""
    defaults = TINY_PARAMS["defaults"] | {"runner": {"name": "processes", "workers": 1}}
    with open_pool(resolve("tiny", defaults, "")) as pool:
        assert pool.submit(grown_mb).result() < 50


def blocked(*_: object) -> set[int]:
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_workers_hear_ctrl_c():
    defaults = TINY_PARAMS["defaults"] | {"runner": {"name": "processes", "workers": 1}}
    with open_pool(resolve("tiny", defaults, "")) as pool:
        assert signal.SIGINT not in pool.submit(blocked).result()


def test_ctrl_c_while_the_process_imports_whose_copies_workers_are_prints_nothing(tmp_path):
    """What it imports first sends it the signal, as a terminal would."""
    (tmp_path / "interrupted.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)"
    )
    program = (
        "import multiprocessing, tasks.fork_server as t\n"
        "t.IMPORTED[:] = ['interrupted']\n"
        "process = t.start_fork_server().Process(target=print, args=('worked',))\n"
        "process.start()\n"
        "process.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": f"{PROJECT}{os.pathsep}{tmp_path}"},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("worked\n", "")


def test_what_lies_in_the_working_folder_is_not_imported_by_a_worker(tmp_path):
    """As a person's own folder `tasks`, or a file that somebody has put there."""
    (tmp_path / "planted.py").write_text("open('imported', 'w')")
    program = (
        "import multiprocessing, sys, tasks.fork_server as t\n"
        "sys.path[:] = [path for path in sys.path if path]\n"
        "t.IMPORTED[:] = ['planted']\n"
        "process = t.start_fork_server().Process(target=print, args=('worked',))\n"
        "process.start()\n"
        "process.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    assert done.stdout == "worked\n", done.stderr
    assert not (tmp_path / "imported").exists()
