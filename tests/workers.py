"""Worker processes that are there at once, for runs of tests.

A run starts its workers anew, each of which imports torch and more for seconds. Here they are
copies of one process that has imported these and done nothing else: processes of their own all the
same, with the environment and the folder of the moment. Workers as a run starts them are in
``tests/tasks/test_pool.py``, in one run of ``tests/flows/test_round.py`` and wherever the command
line is called.
"""

import multiprocessing
import os
import sys
from collections.abc import Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import tasks.pool
from federated.configuration.experiment import Experiment
from federated.settings.sections import Processes

OTHER_POOL = tasks.pool._local_pool
IMPORTED = [
    "tests.workers",
    "torch._dynamo",  # what torch imports at the first step of an optimizer
    *(f"federated.stages.{name}" for name in ("aggregate", "compress", "evaluate", "keys")),
    *(f"federated.stages.{name}" for name in ("local_train", "protect", "secagg", "share_style")),
    *(f"federated.stages.{name}" for name in ("take_part", "site_model", "privacy_report")),
]


def quick_pool(experiment: Experiment) -> Executor:
    """In place of ``tasks.pool._local_pool``: the worker processes, where it has any, from copies.

    The first call of a process starts the one that is copied.
    """
    if not isinstance(experiment.runner, Processes):
        return OTHER_POOL(experiment)
    return _copies(tasks.pool.worker_count(experiment))


def quick_worker() -> Executor:
    """In place of ``tasks.pool.open_worker``, the one process of a site of a consortium."""
    return _copies(1)


def _copies(count: int) -> Executor:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    _start_original()
    numbers = context.Queue()
    for number in range(count):
        numbers.put(number)
    return ProcessPoolExecutor(count, context, _start_worker, (numbers, dict(os.environ)))


def _start_original() -> None:
    """Start it with the modules of this process, wherever the working folder is now."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _start_worker(numbers: Any, environment: Mapping[str, str]) -> None:
    """As in a run; a copy still has the environment that its original was started in."""
    os.environ.clear()
    os.environ.update(environment)
    tasks.pool._start_worker(numbers)
