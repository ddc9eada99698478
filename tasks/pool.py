"""Where the sites' stages run: in this process, in worker processes, or on a Dask cluster."""

import multiprocessing
import multiprocessing.connection
import os
import random
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from federated.configuration.experiment import Experiment
from federated.errors import ConsiliumError
from federated.run.coordinator_home import CoordinatorHome
from federated.run.memory import keep_freed_memory
from federated.settings.sections import Dask, Parties, Processes
from federated.stages.asking import LEAVE
from federated.stages.coordinator import end_attempt
from federated.stages.site import SiteCall
from federated.stages.worker import run_alone, run_and_report, run_in_order, run_together
from federated.training.loop import choose_device
from tasks.dask_cluster import DaskPool, dask_client
from tasks.fork_server import start_fork_server
from tasks.parties_pool import LateError, PartiesPool, PartyCall

WORKERS_A_GPU = 4


# What a pool is handed to have a site do its part.
AnyCall = SiteCall | PartyCall


def worker_count(experiment: Experiment) -> int:
    """The number of worker processes for a run.

    It is one for each core on a CPU and up to four for each GPU, and never more than sites.
    """
    runner = experiment.runner
    if isinstance(runner, Parties):
        return experiment.sites.count
    if not isinstance(runner, Processes | Dask) or (isinstance(runner, Dask) and runner.address):
        return 1
    if runner.workers != "auto":
        return runner.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = cores or 1
    if choose_device(experiment.training.device).type == "cuda":
        count = min(count, WORKERS_A_GPU * torch.cuda.device_count())
    return max(1, min(count, experiment.sites.count))


@contextmanager
def open_pool(experiment: Experiment) -> Iterator[Executor]:
    """The executor for ``experiment.runner``; if the block fails, stages not begun are dropped.

    Raises:
        ConsiliumError: Dask is asked for and is not installed, or its scheduler does not answer, or
            it answers others too.
    """
    if isinstance(experiment.runner, Dask):
        with dask_client(experiment.runner, worker_count(experiment)) as client:
            yield DaskPool(client)
        return
    pool: Executor
    if isinstance(experiment.runner, Parties):
        pool = PartiesPool(experiment.runner, CoordinatorHome.default().seen_path)
    else:
        pool = _local_pool(experiment)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _local_pool(experiment: Experiment) -> Executor:
    if not isinstance(experiment.runner, Processes):
        # One torch thread here too, so that every runner on a CPU gives the same sums.
        return ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
    return _processes(worker_count(experiment))


def begin_workers(experiment: Experiment) -> None:
    """Start what the worker processes of a run are copies of, if it has any; nothing waits."""
    if isinstance(experiment.runner, Processes):
        start_fork_server()


def open_worker() -> ProcessPoolExecutor:
    """One worker process, for a site that is a party of its own; whoever opens it shuts it down."""
    return _processes(1)


def _processes(count: int) -> ProcessPoolExecutor:
    # A forked copy of this process itself, which has threads and CUDA, would not be safe to use.
    context = start_fork_server()
    numbers = context.Queue()
    for number in range(count):
        numbers.put(number)
    return ProcessPoolExecutor(count, context, _start_worker, (numbers, dict(os.environ)))


def leave(pool: Executor, calls: "Sequence[AnyCall]") -> None:
    """Tell sites that are parties of their own that a run has ended; simulated ones need not know.

    Nothing waits for them, and nothing that they send of it from now on is taken.
    """
    if isinstance(pool, PartiesPool):
        for call in calls:
            pool.submit(run_alone, LEAVE, call)
        for call in calls[:1]:
            if isinstance(call, PartyCall):
                end_attempt(call.coordinator)


def warm_up(pool: Executor, workers: int) -> "list[Future[int]]":
    """Start every worker, so that the first round does not wait for it; sites start their own."""
    if isinstance(pool, PartiesPool):
        return []
    return [pool.submit(_import_stages) for _ in range(workers)]


def submit_stage(pool: Executor, stage: Any, call: AnyCall, *arguments: Any) -> "Future[None]":
    """Begin a stage of a site in the pool; its errors are told as they are."""
    return _submit(pool, run_alone, stage, call, arguments)


def submit_reported(pool: Executor, stage: Any, call: AnyCall, *arguments: Any) -> "Future[None]":
    """Begin a stage of a site in the pool; of a private run, errors are told as others may read."""
    return _submit(pool, run_and_report, stage, call, arguments)


def submit_in_order(
    pool: Executor, stages: Sequence[Any], call: AnyCall, *arguments: Any
) -> "Future[None]":
    """Begin several stages of a simulated site, one after the other; as :func:`submit_reported`."""
    return _submit(pool, run_in_order, tuple(stages), call, arguments)


def submit_together(
    pool: Executor, stage: Any, calls: Sequence[AnyCall], *arguments: Any
) -> "Future[dict[str, str]]":
    """Begin a stage of several simulated sites in one call; it gives those that fail, and why.

    Raises:
        ConsiliumError: a worker process died.
    """
    together: Any = run_together  # which is of simulated sites, as those that are stacked
    with _told_if_dead():
        return pool.submit(together, stage, calls, *arguments)


def _submit(
    pool: Executor, entry: Any, stage: Any, call: AnyCall, arguments: "Sequence[Any]"
) -> "Future[None]":
    # Which kind of call goes with which pool, is for the runner to say: see `call_site`.
    with _told_if_dead():
        return pool.submit(entry, stage, call, *arguments)


def run_stage(pool: Executor, stage: Any, call: AnyCall, *arguments: Any) -> None:
    """Run one stage of a site in the pool and wait for it; what it tells is in messages.

    Raises:
        ConsiliumError: what the stage raises, or that its worker process died.
    """
    finished([submit_reported(pool, stage, call, *arguments)])


def finished(futures: "Sequence[Future[Any]]") -> list[Any]:
    """Wait for futures of the pool and return their results.

    Raises:
        ConsiliumError: what a stage raises, or that a worker process died.
    """
    with _told_if_dead():
        return [future.result() for future in futures]


@contextmanager
def _told_if_dead() -> Iterator[None]:
    """Say what to do where a worker process has died, before or while something is waited for.

    Raises:
        ConsiliumError: one has.
    """
    try:
        yield
    except BrokenProcessPool as error:
        raise DeadWorkerError(
            "A worker process died, most often because memory ran out. Complete rounds are kept: "
            "free some memory and go on with `consilium resume NAME`, or begin a new run with "
            "fewer runner.workers or a smaller training.batch_size."
        ) from error


class DeadWorkerError(ConsiliumError):
    """A worker process has died: no site's doing, and no other stage would run."""


@dataclass(frozen=True)
class Gathered:
    """What stages at several sites gave, and for each site whose stage failed the reason.

    ``late`` are those of the latter that have said nothing in time.
    """

    results: dict[str, Any]
    failed: dict[str, str]
    late: set[str] = field(default_factory=set)


def gathered(futures: "Mapping[str, Future[Any]]", abort: bool) -> Gathered:
    """Wait for a stage at several sites; ``abort`` is whether one that fails ends the run.

    Raises:
        ConsiliumError: what a stage raises, only with ``abort``; or that a worker process died.
    """
    found = Gathered({}, {})
    for site, future in futures.items():
        try:
            (found.results[site],) = finished([future])
        except DeadWorkerError:
            raise
        except ConsiliumError as error:
            if abort:
                raise
            found.failed[site] = str(error)
            if isinstance(error, LateError):
                found.late.add(site)
    return found


def _start_worker(numbers: Any, environment: Mapping[str, str]) -> None:
    """Give a worker one torch thread; its number decides which GPU it uses.

    A copy has the environment that its original was started in, and gets that of the moment. It has
    its global generators of random numbers too, which nothing here draws from, but a library may:
    they are seeded anew.
    Ctrl-C ends it at once and without a word, as SIGTERM does: the run says what there is to say.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.environ.clear()
    os.environ.update(environment)
    parent = multiprocessing.parent_process()
    if parent is not None:
        # It waits for work on a pipe that its own fellows hold open too, whoever is gone.
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    os.environ["CONSILIUM_WORKER"] = str(numbers.get())
    torch.set_num_threads(1)
    torch.seed()
    np.random.seed(None)  # noqa: NPY002 - the global one itself
    random.seed()
    keep_freed_memory()


def _end_with(parent: int) -> None:
    """End this process once its parent is gone, however that ended."""
    multiprocessing.connection.wait([parent])
    os._exit(1)


def _import_stages() -> int:
    import federated.stages.aggregate
    import federated.stages.compress
    import federated.stages.evaluate
    import federated.stages.local_train
    import federated.stages.protect  # noqa: F401

    return os.getpid()
