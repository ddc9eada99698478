"""A process that is told to end does not wait for its threads, and does not complain."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

BUSY = """
import logging, threading, time
from concurrent.futures import ProcessPoolExecutor
from flows.ending import be_quiet, end_now

def complain():
    while True:
        logging.getLogger("consilium").error("its parts are gone")
        time.sleep(0.001)

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1)
    work = pool.submit(time.sleep, 60)
    while not work.running():
        time.sleep(0.01)
    be_quiet()
    threading.Thread(target=complain, daemon=True).start()
    time.sleep(0.1)
    END
"""


def run_busy(end: str, said: Path, patience: float) -> int | None:
    """The exit code of a process that ends so in the middle of a stage; ``None`` if it does not."""
    with said.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", BUSY.replace("END", end)],
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_nothing_is_waited_for_and_nothing_is_said(tmp_path: Path) -> None:
    assert run_busy("end_now(3)", tmp_path / "said", 45) == 3
    assert (tmp_path / "said").read_text() == ""


def test_by_itself_python_waits(tmp_path: Path) -> None:
    """Or the test above would show nothing."""
    assert run_busy("raise SystemExit(3)", tmp_path / "said", 2) is None
