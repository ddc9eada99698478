"""A run is worked on by one process at a time."""

import fcntl
import os
import shutil
import subprocess
import sys
import threading

import pytest

from federated.errors import ConsiliumError
from federated.run.folder import RunFolder
from federated.run.runs import WORKED_ON, being_worked_on, worked_on

HOLD = """
import sys
from pathlib import Path
from federated.run.folder import RunFolder
from federated.run.runs import WORKED_ON, being_worked_on, worked_on
with worked_on(RunFolder(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_another_process_works_on_is_left_alone_until_that_is_gone(tmp_path):
    root = tmp_path / "runs" / "demo" / "20260101-000000-abcd"
    root.mkdir(parents=True)
    folder = RunFolder(root)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout
    assert other.stdin
    assert other.stdout.readline() == b"held\n"
    said = rf"Run .* of 'demo' is being worked on by another process: process {other.pid} of"
    with pytest.raises(ConsiliumError, match=said), worked_on(folder):
        pass
    other.kill()
    other.communicate()
    with worked_on(folder):
        pass


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "runs" / "demo" / "20260101-000000-abcd"
    root.mkdir(parents=True)
    return RunFolder(root)


def test_a_look_makes_no_file_and_writes_into_none(folder, monkeypatch):
    opened, real = [], os.open

    def recorded(path, flags, *rest):
        opened.append(flags)
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", recorded)
    assert not being_worked_on(folder)
    assert not list(folder.root.iterdir())
    with worked_on(folder):
        told = (folder.root / WORKED_ON).read_bytes()
        opened.clear()
        assert being_worked_on(folder)
    assert not being_worked_on(folder)
    assert (folder.root / WORKED_ON).read_bytes() == told
    assert opened
    assert all(flags & os.O_ACCMODE == os.O_RDONLY and not flags & os.O_CREAT for flags in opened)


def test_who_looks_is_not_taken_for_one_who_works(folder):
    with worked_on(folder):
        pass
    looking = os.open(folder.root / WORKED_ON, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    try:
        assert not being_worked_on(folder)
        # Nor in the way of one who begins to work meanwhile.
        threading.Timer(0.005, fcntl.flock, (looking, fcntl.LOCK_UN)).start()
        with worked_on(folder):
            assert being_worked_on(folder)
    finally:
        os.close(looking)


LOOK = """
import sys
from pathlib import Path
from federated.run.folder import RunFolder
from federated.run.runs import being_worked_on
folder = RunFolder(Path(sys.argv[1]))
print(being_worked_on(folder))
try:
    (folder.root / "written").touch()
except PermissionError:
    print("closed")
"""


@pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None,
    reason="ROOT, whom no permission binds, and without setpriv: run it as another user",
)
def test_a_run_can_be_looked_at_without_leave_to_write_into_its_folder(folder):
    with worked_on(folder):
        folder.root.chmod(0o500)
        try:
            plain = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] * (os.geteuid() == 0)
            done = subprocess.run(
                [*plain, sys.executable, "-c", LOOK, str(folder.root)],
                capture_output=True, text=True, check=False, timeout=300,
            )  # fmt: skip
        finally:
            folder.root.chmod(0o700)
    assert done.stdout.split() == ["True", "closed"], done.stderr
