"""A run is worked on by one process at a time."""

import subprocess
import sys

import pytest

from federated.errors import ConsiliumError
from federated.run.folder import RunFolder
from federated.run.runs import worked_on

HOLD = """
import sys
from pathlib import Path
from federated.run.folder import RunFolder
from federated.run.runs import worked_on
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
