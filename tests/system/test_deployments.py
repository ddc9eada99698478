"""`prefect deployment run` against a real server on a free port."""

import json
import shutil
import socket
import subprocess
import time
from contextlib import suppress

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterName
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import temporary_settings

from flows.login import Login
from flows.server import client_settings
from tests.flows.conftest import full_run
from tests.ports import free_port
from tests.system.conftest import arguments, files_with, kill_group, wait_for

pytestmark = pytest.mark.system


def finished(copy) -> dict:
    summary = json.loads((copy / "runs" / "demo" / "latest" / "summary.json").read_text())
    assert summary["rounds_done"] == 2
    shutil.rmtree(copy / "runs")
    return summary


def exported(said: str) -> dict[str, str]:
    """The variables that `consilium serve --env` has a shell export."""
    lines = [line for line in said.splitlines() if line.startswith("export ")]
    return dict(line.removeprefix("export ").split("=", 1) for line in lines)


def test_serve_offers_every_experiment_and_both_pages(copy, call, start, tmp_path, consilium_home):
    prefect, mlflow = str(free_port()), str(free_port())
    server = start("consilium", "serve", "--prefect-port", prefect, "--mlflow-port", mlflow)
    said = wait_for(server, "Stop with Ctrl-C")
    assert f"MLflow   http://127.0.0.1:{mlflow}" in said
    api = exported(call("consilium", "serve", "--env"))
    assert api["PREFECT_API_URL"] == f"http://127.0.0.1:{prefect}/api"
    # Deployments appear moments after the message; --watch ends with the flow run.
    wait_for_deployment(api)
    run = start("prefect", "deployment", "run", "fl-round/demo", "--watch", **api)
    seen = arguments()
    while run.poll() is None:
        seen |= arguments()
        with suppress(subprocess.TimeoutExpired):
            run.wait(timeout=0.5)
    assert run.returncode == 0, run.stdout.read()
    secret = api["PREFECT_API_AUTH_STRING"].removeprefix("consilium:")
    assert not [line for line in seen if secret in line]
    # Data, run folder, MLflow's store, Prefect's database and logs; the home has its one file.
    assert not files_with(secret, tmp_path)
    assert [path.parent.name for path in files_with(secret, consilium_home)] == ["serve"]
    assert finished(copy)["data_source"] == "files"
    kill_group(server)
    # The servers are processes of their own, and end all the same.
    until = time.monotonic() + 30
    while any(map(answers, (prefect, mlflow))):
        assert time.monotonic() < until, "a server was left behind"


def test_a_run_uses_served_servers_as_its_own(copy, call, start, served, prepared_tiny):
    """`consilium run` in the terminal that `--env` was for, with MLflow's server as well."""
    settings = exported(served.told) | exported(served.told.replace("# export", "export"))
    assert settings["MLFLOW_TRACKING_URI"] == served.mlflow
    call("consilium", "run", "demo", "--prepared", prepared_tiny, **settings)
    finished(copy)
    api = {"PREFECT_API_URL": settings["PREFECT_API_URL"]}
    run = start(
        "consilium", "run", "demo", **api, PREFECT_API_AUTH_STRING="consilium:of an earlier start"
    )
    said, _ = run.communicate(timeout=900)  # on a busy machine too
    assert run.returncode == 1
    assert "asks for a login (PREFECT_API_AUTH_STRING), and" in said
    assert 'eval "$(consilium serve --env)"' in said
    assert "of an earlier start" not in said


def test_task_runs_are_named_by_site_and_round(project, served):
    with temporary_settings(client_settings(f"{served.prefect}/api", Login(served.secret))):
        full_run(rounds=1)
        expected = {"aggregate round 1", "evaluate round 1", "track round 1", "register tiny"}
        for site in ("site-00", "site-01", "site-02"):
            for stage in ("local-train", "compress", "encrypt", "evaluate"):
                expected.add(f"{stage}[{site}] round 1")
        with get_client(sync_client=True) as client:
            named = FlowRunFilter(name=FlowRunFilterName(any_=["tiny"]))
            newest = FlowRunSort.START_TIME_DESC
            (flow_run,) = client.read_flow_runs(flow_run_filter=named, sort=newest, limit=1)
            chosen = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
            names: set[str] = set()
            # Prefect writes task runs some moments after they end, and in no certain order.
            until = time.monotonic() + 60
            while not expected <= names and time.monotonic() < until:
                names = {t.name for t in client.read_task_runs(flow_run_filter=chosen)}
    assert expected <= names


def answers(port: str) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", int(port))) == 0


def wait_for_deployment(api: dict[str, str]) -> None:
    began = time.monotonic()
    user, secret = api["PREFECT_API_AUTH_STRING"].split(":")
    named = f"{api['PREFECT_API_URL']}/deployments/name"
    with httpx.Client(timeout=60, auth=(user, secret)) as client:
        for name in ("fl-round/demo", "fl-statistics/demo"):
            while client.get(f"{named}/{name}").status_code != 200:
                assert time.monotonic() - began < 120, f"the deployment {name} did not appear"


def test_a_worker_runs_the_deployments_of_prefect_yaml(
    copy, call, start, tmp_path, served, prepared_tiny
):
    api = exported(served.told) | {"NO_COLOR": "1"}
    # A worker makes the pool that it is told of.
    worker = start("prefect", "worker", "start", "--pool", "consilium", "--type", "process", **api)
    wait_for(worker, "started!")
    call("prefect", "--no-prompt", "deploy", "--name", "demo", **api)
    known = ["--param", f"prepared={prepared_tiny}"]
    call("prefect", "deployment", "run", "fl-round/demo", *known, "--watch", **api)
    assert not files_with(served.secret, tmp_path)
    # MLflow's store, Prefect's database and logs; the home has its one file.
    assert [path.parent.name for path in files_with(served.secret, served.folder)] == ["serve"]
    assert finished(copy)["experiment"] == "demo"
