"""The graph of a run is written down before whoever told it, and the server with it, goes."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from flows import written
from flows.written import counted_task_runs, written_down
from tests.conftest import PROJECT

# A command that runs a flow of so many short task runs on a server that ends with it, as
# `consilium run` does. Some fail, and what comes after them does not run.
BURST = """
import sys
from pathlib import Path
from prefect import flow, task
from flows.cli.running import run_flow
from flows.threads import RUNNER
from flows.written import counted_task_runs

@task
def one(number):
    if number % 50 == 1:
        raise ValueError("it fails")
    return number

@flow(task_runner=RUNNER)
def burst(count):
    with counted_task_runs():
        for number in range(count):
            first = one.submit(number)
            second = one.submit(0, wait_for=[first])
            futures.append(second)
        for future in futures:
            future.wait()

futures = []
run_flow(lambda: None, lambda: burst(int(sys.argv[1]) // 2) or Path())
"""


def states_in(database: Path) -> dict[str, int]:
    """How many task runs a database of Prefect's has, by the state that they are in."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        asked = "SELECT state_name, count(*) FROM task_run GROUP BY state_name"
        return dict(connection.execute(asked).fetchall())


def test_all_task_runs_of_a_burst_are_written_down_when_a_command_ends(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", BURST, "400"],
        env=os.environ | {"PREFECT_HOME": str(tmp_path), "PYTHONPATH": str(PROJECT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "warning" not in done.stdout
    assert states_in(tmp_path / "prefect.db") == {"Completed": 392, "Failed": 4, "NotReady": 4}


class Counted:
    """A flow run that has made some task runs, in place of Prefect's context."""

    def __init__(self, made):
        self.flow_run = self
        self.id = uuid4()
        # Of two tasks, by the number of the newest run of each; of one that has no number as well.
        self.task_run_dynamic_keys = {"a": made - 2, "b": 0, "c": "x"}


class Server:
    """In place of a client: tells in turn how many task runs are written down, and unfinished."""

    def __init__(self, *told):
        self.told = list(told)
        self.asked = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def request(self, method, path, json):
        self.asked.append(json)
        found = self.told.pop(0) if len(self.told) > 1 else self.told[0]
        if isinstance(found, Exception):
            raise found
        return httpx.Response(200, json=found)


@pytest.fixture
def told(monkeypatch):
    """What a person is told of a flow run of some task runs at a server that tells some numbers."""

    def look(made, *numbers, limit=0.05):
        server, said = Server(*numbers), []
        context = Counted(made)
        monkeypatch.setattr(written, "LIMIT", limit)
        monkeypatch.setattr(written, "LOOK", 0.001)
        # Whatever other tests say of their server.
        monkeypatch.setattr(written, "_are_written_down", lambda: True)
        monkeypatch.setattr(written, "get_client", lambda sync_client: server)
        monkeypatch.setattr(written.FlowRunContext, "get", lambda: context)
        with written_down(said.append), counted_task_runs():
            pass
        assert server.asked[0] == {"flow_runs": {"id": {"any_": [str(context.id)]}}}
        return said, server

    return look


def test_it_is_waited_until_all_are_written_down_as_they_ended(told):
    said, server = told(340, 311, 2, 340, 1, 340, 0, limit=60)
    assert said == []
    assert len(server.asked) == 6


def test_what_is_not_written_down_in_time_is_said(told):
    said, _ = told(340, 311, 11, 311, 11, limit=0.0)
    (line,) = said
    assert "has written down 311 of 340 task runs of this run, and the end of 300" in line
    assert "the run itself and its record are whole" in line
    # Also where all are there, but not how some of them ended.
    (line,) = told(340, 340, 1, limit=0.0)[0]
    assert "the end of 339" in line


def test_a_server_that_is_gone_is_not_waited_for(told):
    (line,) = told(3, httpx.ConnectError("nobody listens"), limit=60)[0]
    assert "cannot be asked (nobody listens)" in line


def test_a_flow_that_fails_is_written_down_too_and_its_error_is_told(monkeypatch):
    waited = []
    monkeypatch.setattr(written, "_wait", lambda say: waited.append(True))
    monkeypatch.setattr(written.FlowRunContext, "get", lambda: Counted(3))
    with pytest.raises(ValueError, match="it fails"), counted_task_runs():
        raise ValueError("it fails")
    assert waited == [True]
    with pytest.raises(ValueError, match="it fails"), written_down(print), counted_task_runs():
        raise ValueError("it fails")
    # Once, when all flows of the block have ended.
    assert waited == [True, True]
    # Whoever is stopped is not kept waiting.
    with pytest.raises(KeyboardInterrupt), written_down(print):
        raise KeyboardInterrupt
    assert waited == [True, True]
