"""`prefect deployment run` against a real server on a free port."""

import json
import shutil
import socket
import time

import httpx
import pytest

from flows.server import free_port
from tests.system.conftest import kill_group, wait_for

pytestmark = pytest.mark.system


def finished(copy) -> dict:
    summary = json.loads((copy / "runs" / "demo" / "latest" / "summary.json").read_text())
    assert summary["rounds_done"] == 2
    shutil.rmtree(copy / "runs")
    return summary


def test_serve_offers_every_experiment_and_both_pages(copy, call, start):
    prefect, mlflow = str(free_port()), str(free_port())
    server = start("consilium", "serve", "--prefect-port", prefect, "--mlflow-port", mlflow)
    said = wait_for(server, "Stop with Ctrl-C")
    assert f"MLflow   http://127.0.0.1:{mlflow}" in said
    api = {"PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api"}
    # Deployments appear moments after the message; --watch ends with the flow run.
    wait_for_deployment(api["PREFECT_API_URL"])
    call("prefect", "deployment", "run", "fl-round/demo", "--watch", **api)
    assert finished(copy)["data_source"] == "files"
    kill_group(server)
    # The servers are processes of their own, and end all the same.
    until = time.monotonic() + 30
    while any(map(answers, (prefect, mlflow))):
        assert time.monotonic() < until, "a server was left behind"


def answers(port: str) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", int(port))) == 0


def wait_for_deployment(api: str) -> None:
    began = time.monotonic()
    with httpx.Client(timeout=60) as client:
        while client.get(f"{api}/deployments/name/fl-round/demo").status_code != 200:
            assert time.monotonic() - began < 120, "the deployment fl-round/demo did not appear"


def wait_until_healthy(url: str) -> None:
    transport = httpx.HTTPTransport(retries=20)
    with httpx.Client(transport=transport, timeout=60) as client:
        assert client.get(url).status_code == 200


def test_a_worker_runs_the_deployments_of_prefect_yaml(copy, call, start):
    port = str(free_port())
    api = {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "NO_COLOR": "1"}
    server = start("prefect", "server", "start", "--host", "127.0.0.1", "--port", port)
    wait_for(server, "Check out the dashboard")
    wait_until_healthy(f"http://127.0.0.1:{port}/api/health")
    call("prefect", "work-pool", "create", "consilium", "--type", "process", **api)
    call("prefect", "--no-prompt", "deploy", "--name", "demo", **api)
    worker = start("prefect", "worker", "start", "--pool", "consilium", **api)
    wait_for(worker, "started!")
    call("prefect", "deployment", "run", "fl-round/demo", "--watch", **api)
    assert finished(copy)["experiment"] == "demo"
