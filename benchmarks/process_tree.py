"""Run a program and measure it: its seconds, and the memory of it and all that it starts."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

# So that a process whose parent has ended is still found below this one (linux/prctl.h).
PR_SET_CHILD_SUBREAPER = 36
# Reading the memory of a process stops it for a moment: at most this share of the time goes there.
MOST_SAMPLING = 0.01
# Between two looks, in seconds; on a busy machine a look takes long, and must come all the same.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 4.0


@dataclass(frozen=True)
class Measured:
    """A program's start in seconds since the epoch, its seconds, and its peak memory in MiB.

    The memory is the proportional set size of all processes together: a page that several share
    counts once. ``load`` is that of the machine in the last minute before it started.
    """

    started: float
    seconds: float
    peak_mb: float
    load: float


class FailedError(Exception):
    """A program has ended with an error."""


def run(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path, limit: float
) -> Measured:
    """Run a program to its end, in a folder.

    Args:
        command: the program and its arguments.
        folder: what it is started in.
        environment: all of its environment.
        log: the file that what it says is written to.
        limit: the most seconds it may take.

    Raises:
        FailedError: it ended with an error, or took longer.
    """
    adopt_orphans(True)
    others = frozenset(psutil.Process().children(recursive=True))
    load, started, peak = os.getloadavg()[0], time.time(), 0.0
    with log.open("wb") as said:
        process = subprocess.Popen(  # noqa: S603 - our own commands
            command, cwd=folder, env=dict(environment), stdout=said, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    try:
        pause = SHORTEST_PAUSE
        while True:
            try:
                code = process.wait(pause)
                break
            except subprocess.TimeoutExpired:
                before = time.perf_counter()
                peak = max(peak, sum(pss_mb(each.pid) for each in started_since(others)))
                pause = (time.perf_counter() - before) / MOST_SAMPLING
                pause = min(LONGEST_PAUSE, max(SHORTEST_PAUSE, pause))
            if time.time() - started > limit:
                raise FailedError(f"{command[0]} has taken longer than {limit:.0f} s; see {log}")
        seconds = time.time() - started
    finally:
        end_all(others)
        process.wait()
        adopt_orphans(False)
    if code:
        last = log.read_text(errors="replace").strip().splitlines()[-8:]
        raise FailedError("\n".join([f"{' '.join(command[:4])} failed with {code}:", *last]))
    return Measured(started, seconds, peak, load)


def adopt_orphans(does: bool) -> None:
    """Let processes whose parent has ended become children of this one; on Linux alone."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(does), 0, 0, 0)


def started_since(others: Collection[psutil.Process]) -> list[psutil.Process]:
    """The processes below this one but for some: a program, what it has started, its orphans."""
    return [p for p in psutil.Process().children(recursive=True) if p not in others]


def pss_mb(pid: int) -> float:
    """The proportional set size of a process in MiB, in which a shared page counts in parts."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def end_all(others: Collection[psutil.Process]) -> None:
    """End all processes below this one, but for some."""
    for wanted in (signal.SIGTERM, signal.SIGKILL):
        left = started_since(others)
        for each in left:
            with suppress(psutil.NoSuchProcess):
                each.send_signal(wanted)
        _, left = psutil.wait_procs(left, timeout=5)
        if not left:
            return
