"""The graph of a run is written down before whoever told it, and the server with it, goes."""

import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from prefect.events import Event

from flows import written
from flows.written import counted_task_runs, keep, written_down
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


def event(of: str, state: str) -> Event:
    """What Prefect tells of a task run, or of something else."""
    return Event(event=state, resource={"prefect.resource.id": of})


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


class Stuck:
    """In place of Prefect's queue of events: it never is empty."""

    @classmethod
    def instance(cls):
        return cls()

    def send(self, _event):
        """Nothing is sent."""

    def wait_until_empty(self):
        threading.Event().wait(10)


@pytest.fixture
def told(monkeypatch):
    """What a person is told of a flow run of some task runs at a server that tells some numbers."""

    def look(made, *numbers, limit=0.05, then=lambda: None):
        server, said = Server(*numbers), []
        monkeypatch.setattr(written, "_told", written._Told())
        monkeypatch.setattr(written, "LIMIT", limit)
        monkeypatch.setattr(written, "LOOK", 0.001)
        # Whatever other tests say of their server.
        monkeypatch.setattr(written, "_are_written_down", lambda: True)
        monkeypatch.setattr(written, "_all_are_sent", lambda: True)
        monkeypatch.setattr(written, "get_client", lambda sync_client: server)
        then()
        with written_down(said.append), counted_task_runs():
            for number in range(made):
                for state in ("Pending", "Completed"):
                    keep(event(f"prefect.task-run.{number:03d}", state))
            keep(event("prefect.flow-run.x", "Running"))
        ids = [f"{number:03d}" for number in range(made)]
        assert server.asked[0] == {"task_runs": {"id": {"any_": ids}}}
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


def test_what_could_not_be_sent_in_time_is_said(told, monkeypatch):
    monkeypatch.setattr(written, "EventsWorker", Stuck)
    real = written._all_are_sent
    said, _ = told(2, 2, 0, then=lambda: monkeypatch.setattr(written, "_all_are_sent", real))
    (line,) = said
    assert "has not taken all that it was told" in line


def test_a_server_that_is_gone_is_not_waited_for(told):
    (line,) = told(3, httpx.ConnectError("nobody listens"), limit=60)[0]
    assert "cannot be asked (nobody listens)" in line


def test_a_flow_that_fails_is_written_down_too_and_its_error_is_told(monkeypatch):
    waited = []
    monkeypatch.setattr(written, "_wait", lambda say: waited.append(True))
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
