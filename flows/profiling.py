"""`consilium run --profile`: where the time of a run goes, by stage, by process and by function.

py-spy looks at all processes of the run from outside, several times a second, and draws a flame
graph; the run itself is the very command that it is without. Seconds by stage are the run's own,
from its ``summary.json``.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from federated.errors import ConsiliumError
from federated.files import require_writable, write_text
from federated.run.round_record import STAGES

# How often a second each process is looked at: more would slow the run down.
RATE = 20
PAUSE = 0.5
# What a process of a run does, by a word of its command, the first that is found.
ROLES = (
    ("flows.guarded_server", "Prefect's server"),
    ("multiprocessing.spawn", "workers"),
    ("multiprocessing.forkserver", "workers"),
    ("multiprocessing.resource_tracker", "workers"),
    ("py-spy", "the profiler"),
    ("flows.cli", "the run itself"),
)
CALL = "from flows.cli import main; main()"
OTHER = "other processes"
NOT_TOLD = "not told of a private run"


@dataclass
class Usage:
    """Seconds of processor time of each process that was seen, by what it does."""

    seen: dict[tuple[int, float], tuple[str, float]] = field(default_factory=dict)

    def look(self, process: psutil.Process) -> None:
        """Note what a process and all below it have used so far."""
        with suppress(psutil.NoSuchProcess):
            for each in [process, *process.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    key = each.pid, each.create_time()
                    known = self.seen.get(key)
                    # A process that has just been started is still called as its parent is.
                    role = role_of(each.cmdline()) if known is None else known[0]
                    times = each.cpu_times()
                    self.seen[key] = role, times.user + times.system

    def seconds(self) -> dict[str, float]:
        """The seconds of all processes that do the same, the most first."""
        found: dict[str, float] = {}
        for role, used in self.seen.values():
            found[role] = found.get(role, 0.0) + used
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def role_of(command: Sequence[str]) -> str:
    """What a process of a run does, by its command."""
    said = " ".join(command)
    return next((role for word, role in ROLES if word in said), OTHER)


def profile(words: Sequence[str], out: Path) -> Usage:
    """Run a command of `consilium` under the profiler; write ``flame.svg`` into ``out``.

    Args:
        words: the command, as ``["run", "demo"]``.
        out: the folder, which is made.

    Returns:
        The processor time of its processes.

    Raises:
        ConsiliumError: the profiler is not installed, the folder cannot be written to, or the
            command fails, which has said why.
    """
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        raise ConsiliumError(
            "--profile needs py-spy, which is not installed: `pip install py-spy`, or install "
            "Consilium with its extra `profile`. Without --profile the run needs it not."
        )
    require_writable(out, "--profile", private=False)
    graph = out / "flame.svg"
    # No process is stopped while it is looked at: that would take longer than what it does.
    looks = ["record", "--nonblocking", "--subprocesses", "--function", "--rate", str(RATE)]
    usage = Usage()
    with (out / "py-spy.txt").open("wb") as said, _own_outputs() as (keep, call):
        command = [spy, *looks, "--output", str(graph), "--", sys.executable, "-c", call, *words]
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, stdout=said, stderr=said, pass_fds=keep
        )
        while True:
            try:
                code = process.wait(PAUSE)
                break
            except subprocess.TimeoutExpired:
                usage.look(psutil.Process(process.pid))
    if code or not graph.is_file():
        last = (out / "py-spy.txt").read_text(errors="replace").strip().splitlines()[-3:]
        raise ConsiliumError(
            f"The run under the profiler failed (status {code}). {' '.join(last)} Where the system "
            "does not let one process look at another, as in some containers, --profile cannot "
            "work: allow ptrace there, or run without it."
        )
    return usage


@contextmanager
def _own_outputs() -> Iterator[tuple[tuple[int, int], str]]:
    """What the run writes to as it would without a profiler, which has words of its own to say.

    Yields:
        Handles of the outputs, to be passed on, and the program that begins with them.
    """
    keep = os.dup(1), os.dup(2)
    try:
        moved = "; ".join(f"os.dup2({one}, {n}); os.close({one})" for n, one in enumerate(keep, 1))
        yield keep, f"import os; {moved}; {CALL}"
    finally:
        for each in keep:
            os.close(each)


def breakdown(summary: Mapping[str, Any], usage: Mapping[str, float]) -> list[str]:
    """The lines of a page that says where the time of a run went.

    Args:
        summary: the run's ``summary.json``.
        usage: seconds of processor time, by what used them.
    """
    seconds = summary["seconds"]
    total, rounds = seconds["total"], [value for value in seconds["rounds"] if value is not None]
    startup = {f"start-up: {key}": value for key, value in seconds["startup"].items()}
    stages = {f"rounds: {name}": seconds[name] for name in STAGES if seconds[name] != 0}
    rest = None
    if len(rounds) == len(seconds["rounds"]):
        rest = total - sum(startup.values()) - sum(rounds)
    parts: dict[str, float | None] = {
        **startup,
        **stages,
        "rounds: no site trains or evaluates": seconds["overhead"],
        "after the rounds": rest,
    }
    lines = [
        f"run {summary['experiment']}/{summary['run_id']}: {total:.1f} s, "
        f"{len(seconds['rounds'])} rounds",
        "",
        "| part of the run | seconds | share |",
        "| --- | --- | --- |",
    ]
    for name, value in parts.items():
        told = (NOT_TOLD, "") if value is None else (f"{value:.2f}", f"{value / total:.0%}")
        lines.append(f"| {name} | {told[0]} | {told[1]} |")
    lines += [
        "",
        "Of a stage, these are the seconds in which at least one site was in it: stages overlap.",
        "",
        "| processes | seconds of processor time |",
        "| --- | --- |",
        *(f"| {name} | {used:.1f} |" for name, used in usage.items()),
    ]
    return lines


def write_breakdown(summary: Mapping[str, Any], usage: Usage, out: Path) -> list[str]:
    """Write ``profile.md`` into ``out``; return its lines."""
    lines = breakdown(summary, usage.seconds())
    write_text(out / "profile.md", "\n".join(lines) + "\n")
    return lines
