"""Worker processes that are copies of one process, which has imported what a stage needs.

Every worker that is started anew imports torch and more, for seconds of processor time. The fork
server imports them once, beside all else that a run begins with, and does nothing else: it has no
threads of its own and touches no GPU, so that a copy of it is as good as a new process.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from pathlib import Path

from federated.run.memory import in_whole_pieces

# What stages import.
IMPORTED = [
    "tasks.garbage",
    "tasks.pool",
    *(f"federated.stages.{name}" for name in ("aggregate", "compress", "evaluate", "keys")),
    *(f"federated.stages.{name}" for name in ("local_train", "protect", "secagg", "share_style")),
    *(f"federated.stages.{name}" for name in ("take_part", "site_model", "privacy_report")),
]
# What the process that clears up semaphores after a process which was ended says of each: that it
# does what it is there for.
UNSAID = "ignore:resource_tracker:UserWarning"
# The environment is this whole process's.
_CHANGING = threading.Lock()
_STARTED = threading.Event()


def start_fork_server() -> BaseContext:
    """Start the fork server where this process has none, without waiting for it.

    Returns:
        What processes are made with that are copies of it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with _CHANGING:
        # It is started here, since starting it lets Ctrl-C through again.
        with _in_environment({"PYTHONWARNINGS": UNSAID}):
            resource_tracker.ensure_running()
        environment = _importing_as_this_process() | in_whole_pieces()
        with _in_environment(environment), _deaf_to_ctrl_c():
            forkserver.ensure_running()
    _STARTED.set()
    return context


def has_fork_server() -> bool:
    """Whether this process has started one, so that a further worker costs next to nothing."""
    return _STARTED.is_set()


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Have a process that is started now not hear Ctrl-C, from its first moment on.

    A terminal sends it to all processes of a command, and while it imports, Python's own answer is
    a traceback. What the process is for ends it. Copies of it hear Ctrl-C once they ask to.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _importing_as_this_process() -> dict[str, str]:
    """What has a process import from where this one does.

    By itself it would look into the working folder first, where anything may lie, and not where
    this process was told to.
    """
    places = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    return {"PYTHONPATH": places, "PYTHONSAFEPATH": "1"}


@contextmanager
def _in_environment(changed: Mapping[str, str]) -> Iterator[None]:
    """Have a process that is started now find other variables than this one has."""
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
