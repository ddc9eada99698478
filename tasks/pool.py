"""Where the sites' stages run: in this process, in worker processes, or on a Dask cluster."""

import multiprocessing
import os
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from federated.config import Dask, Experiment, Processes
from federated.errors import ConsiliumError
from federated.site import StageResult
from federated.training import choose_device

WORKERS_A_GPU = 4


def worker_count(experiment: Experiment, sites: int) -> int:
    """Worker processes for a run: one a core on a CPU, up to four a GPU, never more than sites."""
    runner = experiment.runner
    if not isinstance(runner, Processes):
        return 1
    if runner.workers != "auto":
        return runner.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = cores or 1
    if choose_device(experiment.training.device).type == "cuda":
        count = min(count, WORKERS_A_GPU * torch.cuda.device_count())
    return max(1, min(count, sites))


def open_pool(experiment: Experiment, sites: int) -> Executor:
    """The executor for ``experiment.runner``.

    Raises:
        ConsiliumError: Dask is asked for and not installed, or its scheduler does not answer.
    """
    if isinstance(experiment.runner, Dask):
        return _dask_executor(experiment.runner.address)
    if isinstance(experiment.runner, Processes):
        count = worker_count(experiment, sites)
        # spawn: a forked copy of a process that has threads and CUDA is not safe to use.
        context = multiprocessing.get_context("spawn")
        numbers = context.Queue()
        for number in range(count):
            numbers.put(number)
        return ProcessPoolExecutor(count, context, _start_worker, (numbers,))
    # One torch thread here too, so that every runner on a CPU gives the same floating-point sums.
    return ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))


def warm_up(pool: Executor, workers: int) -> None:
    """Start every worker now, so that the first round does not wait for it."""
    for future in [pool.submit(_import_stages) for _ in range(workers)]:
        _finished(future)


def run_stage(pool: Executor, stage: Any, *arguments: Any) -> StageResult:
    """Run one stage of :mod:`federated.site` in the pool and wait for it.

    Raises:
        ConsiliumError: what the stage says, or that its worker process died.
    """
    result: StageResult = _finished(pool.submit(stage, *arguments))
    return result


def _finished(future: "Future[Any]") -> Any:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise ConsiliumError(
            "A worker process died, most often because memory ran out. Nothing is lost: lower "
            "runner.workers or training.batch_size and go on with `consilium resume`."
        ) from error


def _start_worker(numbers: Any) -> None:
    """One torch thread a worker; its number decides which GPU it uses."""
    os.environ["CONSILIUM_WORKER"] = str(numbers.get())
    torch.set_num_threads(1)


def _import_stages() -> int:
    import federated.site  # noqa: F401

    return os.getpid()


def _dask_executor(address: str) -> Executor:
    try:
        from distributed import Client
    except ImportError as error:
        raise ConsiliumError(
            "runner.name=dask needs the extra: install consilium[dask]."
        ) from error
    try:
        executor: Executor = Client(address, timeout="10s").get_executor()
    except (OSError, TimeoutError) as error:
        raise ConsiliumError(
            f"No Dask scheduler answers at runner.address={address}. Start one with "
            "`dask scheduler`, and `dask worker ADDRESS` for each worker, or correct the address."
        ) from error
    return executor
