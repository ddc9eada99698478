"""docs/consortium.md, from nothing to a run of three sites: its commands, in their order."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml

from federated.files import read_json
from federated.run.coordinator_home import CoordinatorHome
from flows.consortium_up import deal_files
from flows.ports import listen, port_of
from tests.conftest import PROJECT, TINY_PARAMS, tiny_volumes

pytestmark = pytest.mark.system
DOCS = (PROJECT / "docs" / "consortium.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(coordinator|site|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SITES = ("clinic-a", "clinic-b", "clinic-c")
MOST_S = 240


@dataclass
class Place:
    """Where a party works: its folder, and the processes that it has started."""

    folder: Path
    environment: dict[str, str]
    started: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def run(self, script: str) -> str:
        done = subprocess.run(
            ["bash", "-e", "-c", script], cwd=self.folder, env=self.environment, timeout=MOST_S,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        return done.stdout

    def start(self, command: str, until: str) -> None:
        log = self.folder / f"{len(self.started)}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=self.folder, env=self.environment,
                stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.started.append(process)
        deadline = time.monotonic() + MOST_S
        while until not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)

    def end(self) -> None:
        for process in self.started:
            process.send_signal(signal.SIGTERM)
        for process in self.started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def places(project, empty_prefect, tmp_path):
    """A folder for each party, with the tiny experiment under the name that the page has."""
    tiny = TINY_PARAMS["experiments"]["tiny"] | {"data": {"dataset": "adrenalmnist3d"}}
    np.savez(project / "data" / "medmnist" / "adrenalmnist3d.npz", **tiny_volumes())
    params = {"defaults": TINY_PARAMS["defaults"], "experiments": {"adrenal": tiny}}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    from federated.configuration.load import load_experiment

    data = {site: tmp_path / site / "data" for site in SITES}
    deal_files(load_experiment("adrenal", (), project / "params.yaml"), data)
    program = tmp_path / "bin" / "consilium"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'from flows.cli import main; main()' \"$@\"\n"
    )
    program.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_T"))}
    path = f"{program.parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    with ExitStack() as stack:
        found = {}
        for name in ("coordinator", *SITES):
            folder = project if name == "coordinator" else tmp_path / name
            prefect = folder / "prefect"
            prefect.mkdir(parents=True)
            shutil.copy(empty_prefect, prefect / "prefect.db")
            own = {
                "CONSILIUM_HOME": str(folder / "consilium"),
                "PREFECT_HOME": str(prefect),
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "PREFECT_RUNNER_POLL_FREQUENCY": "1",
                "PYTHONPATH": str(PROJECT),
                "PYTHONUNBUFFERED": "1",
                "PATH": path,
            }
            found[name] = Place(folder, kept | own)
            stack.callback(found[name].end)
        yield found


def test_the_page_leads_from_nothing_to_a_registered_model(places):
    with listen() as free:
        port = str(port_of(free))
    blocks = BLOCK.findall(DOCS)
    policy = next(text for kind, text in blocks if kind == "yaml")
    for site in SITES:
        (places[site].folder / "site-policy.yaml").write_text(policy)
    said = ""
    for kind, text in blocks:
        if kind == "yaml":
            continue
        for name in ("coordinator",) if kind == "coordinator" else SITES:
            place = places[name]
            here = text.replace("fl.example.org", "127.0.0.1").replace("8443", port)
            here = here.replace("clinic-a", name) if kind == "site" else here
            here = here.replace("/data/fl", str(place.folder / "data"))
            lines = here.splitlines()
            if name not in ("coordinator", SITES[0]):
                # To look at a site is tried at one of them.
                lines = [line for line in lines if not line.endswith((" check", " status"))]
            said += _do(place, lines)
        _carry(places)
    assert "Completed" in said
    (summary,) = places["coordinator"].folder.glob("runs/adrenal/2*/summary.json")
    found = read_json(summary)
    assert found["sites"] == list(SITES)
    assert found["rounds_done"] == 2
    assert found["model_version"] == 1
    assert "clinic-a  enrolled" in said
    # Each hospital sees its own graph in its own Prefect, where nobody else has deployed anything,
    # and the coordinator the graph that a run on one machine has.
    whole = CoordinatorHome(places["coordinator"].folder / "consilium" / "coordinator").root
    for site in SITES:
        own = places[site].folder / "prefect" / "prefect.db"
        stages = {f"{stage}[{site}] round 2" for stage in ("local-train", "encrypt", "evaluate")}
        assert seen(own, "fl-site", stages)
        assert seen(whole / "prefect.db", "fl-round", stages)
        assert graph(own, "fl-round") == set()
        assert rows(own, "SELECT name FROM deployment") == []
        assert rows(own, "SELECT name FROM work_pool") == []
    others = {name for name in graph(own, "fl-site") if "[" in name and f"[{site}]" not in name}
    assert others == set()


def rows(database: Path, asked: str, *values: str) -> list[tuple[str, ...]]:
    """What a database of Prefect's answers, which its server works with."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)) as link:
        return link.execute(asked, values).fetchall()


def graph(database: Path, flow: str) -> set[str]:
    """The names of all task runs of a flow."""
    found = rows(
        database,
        "SELECT t.name FROM task_run t JOIN flow_run r ON r.id = t.flow_run_id "
        "JOIN flow f ON f.id = r.flow_id WHERE f.name = ?",
        flow,
    )
    return {name for (name,) in found}


def seen(database: Path, flow: str, names: set[str]) -> bool:
    """Whether task runs are there within a minute: the server writes them down when it has time."""
    until = time.monotonic() + 60
    while not (there := names <= graph(database, flow)) and time.monotonic() < until:
        time.sleep(0.2)
    return there


def _do(place: Place, lines: list[str]) -> str:
    """Run the lines of a block; what starts a process goes on beside the others."""
    said, before = "", ""
    for line in lines:
        if line.endswith(" start"):
            until = "coordinator at " if " coordinator " in f" {line} " else "site "
            place.start(line, until)
        elif line.startswith("eval"):
            before += f"{line}\n"
        else:
            said += place.run(before + line)
    return said


def _carry(places: dict[str, Place]) -> None:
    """Bring what one party has written for another to it."""
    kit = places["coordinator"].folder / "consilium-kit.json"
    for site in SITES:
        if kit.is_file():
            shutil.copy(kit, places[site].folder)
        request = places[site].folder / f"{site}.enrolment.json"
        if request.is_file():
            shutil.copy(request, places["coordinator"].folder)
