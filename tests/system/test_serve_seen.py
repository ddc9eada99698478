"""The two pages of `consilium serve` in a real browser: their logins, and a run in both."""

import json
import os

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.settings import temporary_settings

from flows.login import Login
from flows.server import client_settings
from tests.system.browser import seen
from tests.system.test_coordinator_servers_seen import look_at_mlflow, look_at_prefect, run_in

pytestmark = pytest.mark.system


@pytest.fixture
def told(served, project, prepared_tiny, monkeypatch):
    """A run that was told to both servers, as from another terminal: its flow run, its summary."""
    user, password = served.credentials
    values = {
        "PREFECT_API_URL": f"{served.prefect}/api",
        "PREFECT_API_AUTH_STRING": f"{user}:{password}",
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
        "MLFLOW_TRACKING_URI": served.mlflow,
        "MLFLOW_TRACKING_USERNAME": user,
        "MLFLOW_TRACKING_PASSWORD": password,
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    folder = run_in(project, dict(os.environ), project / "runs", prepared_tiny)
    with (
        temporary_settings(client_settings(values["PREFECT_API_URL"], Login(password))),
        get_client(sync_client=True) as client,
    ):
        named = FlowRunFilter(name=FlowRunFilterName(any_=["tiny"]))
        (flow_run,) = client.read_flow_runs(flow_run_filter=named, limit=1)
    return str(flow_run.id), json.loads(folder.summary_path.read_text())


def test_a_run_is_seen_in_both_pages_of_consilium_serve(served, told, browser, tmp_path):
    flow_run, summary = told
    with seen(browser, served.prefect, tmp_path, served.credentials) as page:
        page.open("/")
        asked = page.page.locator("input[type=password]").first
        asked.fill("consilium:wrong")
        page.page.keyboard.press("Enter")
        page.settle()
        # Whoever has another password is asked again.
        assert asked.is_visible()
        assert [each for each in page.went_wrong() if "401" not in each] == []
        look_at_prefect(page, flow_run, ":".join(served.credentials), below="")
    with seen(browser, served.mlflow, tmp_path, ("consilium", "wrong")) as page:
        page.open("/")
        assert page.page.locator("#root").count() == 0
        assert {each[:3] for each in page.went_wrong()} == {"401"}
    with seen(browser, served.mlflow, tmp_path, served.credentials) as page:
        look_at_mlflow(page, summary, below="")
