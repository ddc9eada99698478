"""A coordinator's pages in a real browser, after a run; and its automations, which fire."""

import json
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import temporary_settings

from federated.run.folder import RunFolder
from flows.databases import PREFECT
from flows.server import client_settings
from tasks.track import OF_TRAINING
from tests.conftest import PROJECT
from tests.system.browser import chromium, seen, trusting
from tests.system.test_coordinator_servers import eventually

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def browser(coordinator):
    with chromium(trusting(coordinator.certificate())) as opened:
        yield opened


@contextmanager
def as_its_deployments(coordinator, monkeypatch):
    """Prefect and MLflow are the coordinator's, as for the runs that it begins."""
    told = coordinator.behind.environment()
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with temporary_settings(client_settings(told["PREFECT_API_URL"], coordinator.login)):
        yield


def graph_of(coordinator, flow_run: str) -> dict[str, set[str]]:
    """For each task run of a flow run by its name, the names of those that it comes after."""
    with coordinator.client(auth=coordinator.owner) as client:
        found = client.get(f"/prefect/api/flow_runs/{flow_run}/graph-v2").json()
    nodes = dict(found["nodes"])
    named = {each: node["label"] for each, node in nodes.items()}
    return {
        node["label"]: {named[parent["id"]] for parent in node["parents"] if parent["id"] in named}
        for node in nodes.values()
    }


def run_of(coordinator, project, prepared: str) -> RunFolder:
    """A run from another terminal: in this process Prefect would go on telling that server."""
    return run_in(project, coordinator.environment(), coordinator.runs, prepared)


def run_in(project: Path, environment: dict[str, str], runs: Path, prepared: str) -> RunFolder:
    """A run of one round, of data that are prepared, by a process of its own."""
    begin = "from flows.round import fl_round; "
    begin += f"print(fl_round('tiny', rounds=1, runs={str(runs)!r}, prepared={prepared!r}))"
    done = subprocess.run(
        [sys.executable, "-c", begin], env=environment | {"PYTHONPATH": str(PROJECT)},
        cwd=project, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return RunFolder(Path(done.stdout.splitlines()[-1]))


def test_a_run_is_seen_in_the_browser(
    coordinator, browser, project, prepared_tiny, tmp_path, monkeypatch
):
    with as_its_deployments(coordinator, monkeypatch):
        folder = run_of(coordinator, project, prepared_tiny)
        with get_client(sync_client=True) as client:
            named = FlowRunFilter(name=FlowRunFilterName(any_=["tiny"]))
            newest = FlowRunSort.START_TIME_DESC
            (flow_run,) = client.read_flow_runs(flow_run_filter=named, sort=newest, limit=1)
    summary = json.loads(folder.summary_path.read_text())
    assert "strategy: fedprox" in flow_run.tags

    def is_whole() -> bool:
        return "track-end FINISHED" in graph_of(coordinator, str(flow_run.id))

    # Prefect writes task runs some moments after they end.
    assert eventually(is_whole)
    after = graph_of(coordinator, str(flow_run.id))
    sites = ("site-00", "site-01", "site-02")
    sent = {f"encrypt[{site}] round 1" for site in sites}
    assert after["aggregate round 1"] >= sent
    for site in sites:
        assert after[f"local-train[{site}] round 1"] == {"plan round 1"}
        assert after[f"evaluate[{site}] round 1"] == {"ask evaluation round 1"}
    assert "aggregate round 1" in after["ask evaluation round 1"]
    assert after["evaluate round 1"] >= {f"evaluate[{site}] round 1" for site in sites}
    assert "evaluate round 1" in after["checkpoint round 1"]

    login = coordinator.owner
    with seen(browser, coordinator.url, tmp_path, login) as page:
        look_at_prefect(page, str(flow_run.id), ":".join(login))
        look_at_mlflow(page, summary)
        page.open("/status")
        page.see(f"tiny {folder.run_id}")
        page.see("done: 1 of 1 round done, nothing left to do")
        page.see("site-02")
        page.keep("status")
        assert page.went_wrong() == []


def look_at_prefect(page, flow_run: str, login: str, below: str = "/prefect") -> None:
    """Log in, and look at a flow run."""
    page.open(f"{below}/")
    asked = page.page.locator("input[type=password]").first
    asked.fill(login)
    page.page.keyboard.press("Enter")
    asked.wait_for(state="hidden")
    page.settle()
    # Without the password it is let in nowhere.
    assert [each for each in page.went_wrong() if "401" not in each] == []
    page.keep("prefect")
    page.open(f"{below}/runs/flow-run/{flow_run}")
    page.see("tiny")
    page.see("strategy: fedprox")
    page.settle()
    page.keep("prefect-run")
    # Prefect's page looks for the icon of a run's state at the root of whoever serves it, and
    # before it knows the state for one of none.
    icons = re.compile(r"404: GET https?://[^/]+/ico/[a-z]+\.svg")
    assert [each for each in page.went_wrong() if not icons.fullmatch(each)] == []


def look_at_mlflow(page, summary, below: str = "/mlflow") -> None:
    """Look at a run, to whose experiment the login opens the pages."""
    run = summary["mlflow_run_id"]
    page.open(f"{below}/#/experiments/{page_experiment(summary)}/runs/{run}?{OF_TRAINING}")
    page.see("test_auc")
    page.keep("mlflow-run")
    # Without a scroll: that it trains models, and what came of it.
    first = page.page.get_by_text(re.compile(r"Test: auc \d\.\d+")).first.bounding_box()
    assert first
    assert first["y"] + first["height"] < page.page.viewport_size["height"]
    assert page.page.get_by_role("link", name="Runs").first.is_visible()
    told = page.page.locator("body").inner_text()
    for name in ("auc", "balanced_accuracy"):
        assert f"{summary['metrics']['test'][name]:.6f}"[:6] in told, name
    # MLflow's pages ask who is logged in, which its server knows with a login of its own alone.
    wrong = [each for each in page.went_wrong() if not each.endswith("/mlflow/users/current")]
    assert wrong == []


def page_experiment(summary) -> str:
    from tasks.track import client

    return str(client().get_run(summary["mlflow_run_id"]).info.experiment_id)


# Two deployments of a flow called as runs are: one that fails, and one in which a site says that
# its budget is spent, and that little is left of it.
FIRED = """
import asyncio, sys
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from federated.privacy.budget import _HAS_A_BUDGET, _NOT_STARTED
from flows.budget_events import tell_if_low, tell_if_spent

@flow(name="fl-round")
def fails() -> None:
    raise ValueError("a site is gone")

@flow(name="fl-round")
def spends() -> None:
    assert tell_if_spent("site-01", "run", "organ", _HAS_A_BUDGET + _NOT_STARTED)
    assert tell_if_low("run", "organ", {"site-02": {"budget": 1.0, "epsilon_ledger": 0.9}})

with get_client(sync_client=True) as client:
    for name, made in (("fails", fails), ("spends", spends)):
        deployment = client.create_deployment(client.create_flow(made), name)
        run = client.create_flow_run_from_deployment(deployment)
        try:
            run_flow(made, flow_run=run)
        except ValueError:
            pass
"""


def test_the_example_automations_fire(coordinator):
    """That of a spent budget too, where a person has enabled it."""
    query = coordinator.cluster.query
    told = yaml.safe_load((PROJECT / "deploy" / "automations.yaml").read_text())["automations"]
    with coordinator.client(auth=coordinator.owner) as client:
        api = "/prefect/api"
        asked = {"client": "a-test"}
        token = client.get(f"{api}/csrf-token", params=asked).json()["token"]
        client.headers.update({"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "a-test"})
        made = {}
        for each in told:
            answer = client.post(f"{api}/automations/", json={**each, "enabled": True})
            assert answer.status_code == 201, answer.text
            made[each["name"]] = answer.json()["id"]
    done = subprocess.run(
        [sys.executable, "-c", FIRED], env=coordinator.environment() | {"PYTHONPATH": str(PROJECT)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    paused = f"SELECT name FROM {PREFECT}.deployment WHERE paused ORDER BY name"
    assert eventually(lambda: {("fails",), ("spends",)} <= set(query(paused)))
    for name, automation in made.items():
        fired = (
            f"SELECT event FROM {PREFECT}.events WHERE event LIKE 'prefect.automation.action.%'"
            f" AND resource_id = 'prefect.automation.{automation}'"
        )
        executed = ("prefect.automation.action.executed",)
        assert eventually(lambda fired=fired, seen=executed: seen in query(fired)), name
    with coordinator.client(auth=coordinator.owner) as client:
        client.headers.update({"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "a-test"})
        for automation in made.values():
            client.delete(f"{api}/automations/{automation}")
