import os
import stat
import subprocess
import sys
from dataclasses import replace

import pytest

from federated.errors import ConsiliumError
from flows.session import Session, published, running_session
from tests.conftest import PROJECT

HERE = Session("http://127.0.0.1:4200/api", "http://127.0.0.1:5000", "a secret")
OTHER = Session("http://127.0.0.1:4300/api", None, "another")
# Publishes OTHER from a process of its own until its input ends.
ELSEWHERE = (
    "import sys\n"
    "from flows.session import Session, published\n"
    f"with published(Session({OTHER.prefect_api!r}, None, {OTHER.secret!r})):\n"
    "    print('published', flush=True)\n"
    "    sys.stdin.read()\n"
)


def elsewhere() -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", ELSEWHERE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )
    assert process.stdout
    assert process.stdout.readline() == "published\n"
    return process


def test_a_session_is_found_while_it_runs_and_by_its_owner_alone(consilium_home):
    with pytest.raises(ConsiliumError, match="No `consilium serve` runs"):
        running_session(4200)
    with published(HERE):
        (file,) = (consilium_home / "serve").iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert running_session(9) == HERE
        assert HERE.secret not in repr(HERE)
    with pytest.raises(ConsiliumError, match="No `consilium serve` runs"):
        running_session(4200)


def test_of_several_sessions_the_port_says_which():
    process = elsewhere()
    with process, published(HERE):
        assert running_session(4200) == HERE
        assert running_session(4300) == OTHER
        with pytest.raises(ConsiliumError, match="Say with --prefect-port which one is meant"):
            running_session(4400)
        process.stdin.close()


def test_the_session_of_a_killed_process_is_no_longer_there(consilium_home):
    process = elsewhere()
    assert running_session(4300) == OTHER
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    with pytest.raises(ConsiliumError, match="No `consilium serve` runs"):
        running_session(4300)
    assert not list((consilium_home / "serve").iterdir())


def test_a_shell_is_told_what_prefect_needs():
    lines = HERE.exports()
    assert lines[:2] == [
        "export PREFECT_API_URL=http://127.0.0.1:4200/api",
        "export PREFECT_API_AUTH_STRING='consilium:a secret'",
    ]
    assert all(line.startswith("# ") for line in lines[2:])
    # A Prefect that was there already has a login of its own.
    assert not [line for line in replace(HERE, prefect_api=None).exports() if "PREFECT" in line]
