"""What `consilium run --profile` says of where the time of a run went."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from federated.errors import ConsiliumError
from federated.run.round_record import STAGES
from flows import profiling
from flows.profiling import NOT_TOLD, OTHER, Usage, breakdown, role_of

SUMMARY = {
    "experiment": "tiny",
    "run_id": "x",
    "seconds": {
        "total": 20.0,
        "startup": {"orchestration": 3.0, "data": 2.0},
        "rounds": [6.0, 4.0],
        **dict.fromkeys(STAGES, 0.0),
        "local_train": 8.0,
        "evaluate": 1.0,
        "overhead": 1.5,
        "overhead_per_round": [1.0, 0.5],
    },
}


def test_the_parts_of_a_run_are_told_with_their_share() -> None:
    lines = breakdown(SUMMARY, {"workers": 15.0})
    assert "| start-up: orchestration | 3.00 | 15% |" in lines
    assert "| rounds: local_train | 8.00 | 40% |" in lines
    assert "| after the rounds | 5.00 | 25% |" in lines
    assert "| workers | 15.0 |" in lines
    assert not any("unmask" in line for line in lines)


def test_of_a_private_run_no_seconds_of_its_rounds_are_told() -> None:
    seconds = SUMMARY["seconds"] | dict.fromkeys((*STAGES, "overhead"))
    lines = breakdown({**SUMMARY, "seconds": seconds | {"rounds": [None, None]}}, {})
    assert f"| rounds: local_train | {NOT_TOLD} |  |" in lines
    assert f"| after the rounds | {NOT_TOLD} |  |" in lines
    assert "| start-up: data | 2.00 | 10% |" in lines


def test_processes_are_named_by_what_they_do() -> None:
    assert role_of(["python", "-m", "flows.guarded_server", "prefect"]) == "Prefect's server"
    assert role_of(["python", "-c", "from multiprocessing.spawn import x"]) == "workers"
    assert role_of(["python", "-c", "from multiprocessing.forkserver import x"]) == "workers"
    assert role_of(["python", "-c", profiling.CALL, "run", "demo"]) == "the run itself"
    assert role_of(["git", "describe"]) == OTHER


def test_processor_time_of_all_that_a_process_starts_is_counted() -> None:
    busy = "import time\nwhile time.process_time() < 0.5: pass\ninput()"
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE) as child:
        usage, used = Usage(), 0.0
        while used < 0.3 and child.poll() is None:
            usage.look(psutil.Process(os.getpid()))
            used = usage.seen[child.pid, psutil.Process(child.pid).create_time()][1]
        child.communicate(b"\n")
    assert usage.seconds()[OTHER] >= 0.3


def test_a_profiler_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(profiling.shutil, "which", lambda *_, **__: None)
    with pytest.raises(ConsiliumError, match="pip install py-spy"):
        profiling.profile(["run", "tiny"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_that_fails_under_the_profiler_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spy = tmp_path / "py-spy"
    spy.write_text("#!/bin/sh\necho 'permission denied' >&2\nexit 1\n")
    spy.chmod(0o755)
    monkeypatch.setattr(profiling.shutil, "which", lambda *_, **__: str(spy))
    with pytest.raises(ConsiliumError, match=r"status 1.*permission denied.*allow ptrace"):
        profiling.profile(["run", "tiny"], tmp_path / "out")


# Says something, as py-spy does, and runs what stands behind `--`.
SPY = """#!{python}
import subprocess, sys
print("Sampling. Press Control-C to exit.", flush=True)
words = sys.argv[1:]
open(words[words.index("--output") + 1], "w").close()
sys.exit(subprocess.run(words[words.index("--") + 1:], close_fds=False).returncode)
"""


def test_what_the_profiler_says_is_kept_apart_from_what_the_run_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spy = tmp_path / "py-spy"
    spy.write_text(SPY.format(python=sys.executable))
    spy.chmod(0o755)
    monkeypatch.setattr(profiling.shutil, "which", lambda *_, **__: str(spy))
    said = "import sys; print(sys.argv[1:]); print('a word', file=sys.stderr)"
    monkeypatch.setattr(profiling, "CALL", said)
    profiling.profile(["run", "tiny"], tmp_path / "out")
    assert capfd.readouterr() == ("['run', 'tiny']\n", "a word\n")
    assert (tmp_path / "out" / "py-spy.txt").read_text() == "Sampling. Press Control-C to exit.\n"
