"""A coordinator's one TLS port, with real servers behind it and a real PostgreSQL below them."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import httpx
import pytest
import yaml
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from federated.exchange.https.certificates import client_context
from flows.coordinator_logins import scraper_login
from flows.coordinator_server import serving_deployments
from flows.databases import MLFLOW, PREFECT
from tests.conftest import PROJECT, TINY_PARAMS
from tests.system import postgres
from tests.system.conftest import arguments, files_with
from tests.system.coordinator import Coordinator

pytestmark = pytest.mark.system
T = TypeVar("T")


def test_prefect_and_mlflow_keep_what_they_know_in_postgresql(coordinator):
    """As from another machine: by the lines that --env prints, and no others."""
    program = """
from mlflow import MlflowClient
from prefect import flow
from prefect.artifacts import create_table_artifact

from federated.privacy.budget import _HAS_A_BUDGET, _NOT_STARTED
from flows.budget_events import tell_if_spent

@flow
def away(number: int) -> int:
    assert tell_if_spent("site-01", "run", "organ", _HAS_A_BUDGET + _NOT_STARTED)
    create_table_artifact([{"number": number}], key="numbers")
    return number + 1

assert away(1) == 2
client = MlflowClient()
run = client.create_run(client.create_experiment("from away"))
client.log_metric(run.info.run_id, "loss", 0.5)
client.log_text(run.info.run_id, "kept", "model/note.txt")
client.create_registered_model("organ")
client.create_model_version("organ", f"runs:/{run.info.run_id}/model", run.info.run_id)
print(run.info.run_id)
print(client.get_run(run.info.run_id).info.artifact_uri)
"""
    query = coordinator.cluster.query
    # Other tests have the same servers, before this one or after it.
    told = f"SELECT count(*) FROM {PREFECT}.events WHERE event = 'consilium.budget.spent'"
    ((before,),) = query(told)
    done = subprocess.run(
        [sys.executable, "-c", program], env=coordinator.environment(), capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *_, run, artifacts = done.stdout.splitlines()
    assert artifacts.startswith("mlflow-artifacts:/")
    ended = (
        f"SELECT r.state_type FROM {PREFECT}.flow_run r JOIN {PREFECT}.flow f ON f.id = r.flow_id"
        " WHERE f.name = 'away'"
    )
    assert query(ended) == [("COMPLETED",)]
    assert query(f"SELECT key FROM {PREFECT}.artifact WHERE key = 'numbers'") == [("numbers",)]
    assert query(f"SELECT value FROM {MLFLOW}.metrics WHERE run_uuid = '{run}'") == [(0.5,)]
    versions = f"SELECT name, version FROM {MLFLOW}.model_versions WHERE run_id = '{run}'"
    assert query(versions) == [("organ", 1)]
    kept = [path.read_text() for path in coordinator.home.root.rglob("note.txt")]
    assert kept == ["kept"]
    # The server writes events down when it has time.
    assert eventually(lambda: query(told) == [(before + 1,)])


def eventually(look: Callable[[], T]) -> T:
    """What there is to see, as soon as there is something, within five minutes."""
    until = time.monotonic() + 300
    while not (found := look()) and time.monotonic() < until:
        threading.Event().wait(0.2)
    return found


def prefect(coordinator: Coordinator, *arguments: str) -> tuple[int, str]:
    """Call Prefect's own command line as another terminal does."""
    program = "from prefect.cli import app; app()"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=coordinator.environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300,
    )  # fmt: skip
    return done.returncode, " ".join(done.stdout.split())


def test_the_example_automations_are_made_by_prefects_command(coordinator):
    example = str(PROJECT / "deploy" / "automations.yaml")
    count = f"SELECT count(*) FROM {PREFECT}.automation"
    ((before,),) = coordinator.cluster.query(count)
    code, said = prefect(coordinator, "automation", "create", "--from-file", example)
    assert code == 0, said
    assert coordinator.cluster.query(count) == [(before + 3,)]


def test_a_deployment_begins_a_run_of_the_consortiums_sites(coordinator, tmp_path, monkeypatch):
    """Of which there are none, so that the run says so; a run of simulated ones would begin.

    Whoever began it and watches it is told so too.
    """
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(TINY_PARAMS))
    monkeypatch.setenv("CONSILIUM_HOME", str(coordinator.home.root.parent))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    query = coordinator.cluster.query
    # They come one after the other.
    asked = (
        f"SELECT f.name, d.name FROM {PREFECT}.deployment d JOIN {PREFECT}.flow f"
        " ON f.id = d.flow_id ORDER BY 1, 2"
    )
    before = set(query(asked))
    with serving_deployments(coordinator.home, coordinator.behind, params, tmp_path / "runs"):
        offered = {
            (flow, name) for flow in ("fl-round", "fl-statistics")
            for name in TINY_PARAMS["experiments"]
        }  # fmt: skip
        assert eventually(lambda: set(query(asked)) - before == offered)
        name = next(iter(TINY_PARAMS["experiments"]))
        code, watched = prefect(coordinator, "deployment", "run", f"fl-round/{name}", "--watch")
        assert code == 1, watched
        of_it = (
            f"FROM {PREFECT}.flow_run r JOIN {PREFECT}.deployment d ON d.id = r.deployment_id"
            f" JOIN {PREFECT}.flow_run_state s ON s.id = r.state_id"
            f" WHERE d.name = '{name}' AND r.state_type IN ('FAILED', 'CRASHED')"
        )
        failed = f"SELECT r.state_name {of_it}"
        assert eventually(lambda: query(failed)) == [("Failed",)]
    (told,) = query(f"SELECT s.message {of_it}")
    assert "No site is enrolled at the coordinator" in str(told)
    # Whoever watches reads the same, and no account of the program.
    assert "No site is enrolled at the coordinator" in watched
    assert "consilium sites enrol FILE" in watched
    assert "Traceback" not in watched
    assert "Engine execution" not in watched
    assert not list(tmp_path.glob("runs/*/*/summary.json"))


def test_the_login_opens_both_and_nothing_else_does(coordinator):
    calls = {
        "/prefect/api/flows/filter": 403,  # let in, and asked for a CSRF token
        "/mlflow/api/2.0/mlflow/experiments/search": 200,
        "/mlflow/ajax-api/2.0/mlflow/experiments/search": 200,
    }
    with coordinator.client() as client:
        for path, let_in in calls.items():
            for wrong in (None, ("consilium", "wrong"), ("other", coordinator.login.secret)):
                assert client.post(path, json={"max_results": 1}, auth=wrong).status_code == 401
            right = client.post(path, json={"max_results": 1}, auth=coordinator.owner)
            assert right.status_code == let_in
        for path in ("/metrics", "/exchange/v2/messages", "/exchange/v2/hello"):
            assert client.get(path, auth=coordinator.owner).status_code in (401, 405)


def test_other_hosts_and_origins_are_refused_with_the_login_too(coordinator):
    with coordinator.client(auth=coordinator.owner) as client:
        for path in ("/prefect/", "/prefect/api/admin/version", "/mlflow/", "/mlflow/graphql"):
            rebound = client.get(path, headers={"Host": "evil.example"})
            assert rebound.status_code == 400
            for origin in ("https://evil.example", coordinator.url.replace("https", "http")):
                assert client.post(path, headers={"Origin": origin}).status_code == 403
            framed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
            assert client.get(path, headers=framed).status_code == 403
        up = httpx.Request("GET", client.base_url.copy_with(raw_path=b"/mlflow/x/%2e%2e/health"))
        assert client.send(up, auth=coordinator.owner).status_code == 404


def test_the_pages_load_below_their_paths(coordinator):
    with coordinator.client(follow_redirects=True) as client:
        page = client.get("/", headers={"Accept": "text/html"})
        assert page.status_code == 200
        assert str(page.url).startswith(f"{coordinator.url}/prefect")
        told = [part.split('"')[0] for part in page.text.split('src="')[1:]]
        assert told
        assert all(client.get(each).status_code == 200 for each in told)
        assert client.get("/prefect/ui-settings").json()["api_url"] == "/prefect/api"
        asked = client.get("/mlflow/")
        assert (asked.status_code, asked.headers["www-authenticate"][:5]) == (401, "Basic")
        pages = client.get("/mlflow/", auth=coordinator.owner)
        scripts = [part.split('"')[0] for part in pages.text.split('src="')[1:]]
        assert scripts
        for each in scripts:
            assert client.get(f"/mlflow/{each}", auth=coordinator.owner).status_code == 200
        assert pages.headers["x-frame-options"] == "SAMEORIGIN"


def test_web_sockets_of_prefects_events_pass(coordinator):
    trusted = client_context(coordinator.authority.read_text())
    url = f"{coordinator.url.replace('https', 'wss')}/prefect/api/events/out"
    with connect(url, ssl=trusted, subprotocols=["prefect"], proxy=None, open_timeout=60) as opened:
        assert opened.subprotocol == "prefect"
        opened.send(json.dumps({"type": "auth", "token": ":".join(coordinator.owner)}))
        assert json.loads(opened.recv(timeout=60)) == {"type": "auth_success"}
    with (
        pytest.raises(InvalidStatus, match="403"),
        connect(
            url, ssl=trusted, subprotocols=["prefect"], proxy=None, origin="https://evil.example"
        ),
    ):
        pass


def test_sites_need_no_login_and_an_unsigned_request_gets_nothing(coordinator):
    with coordinator.client() as client:
        refused = client.get("/exchange/v2/messages")
        assert refused.status_code == 401
        assert refused.json().keys() == {"time", "instance"}  # what a site needs to sign anew
        assert "www-authenticate" not in refused.headers
        below = client.get("/a/proxys/path/exchange/v2/messages")
        assert below.status_code == 401
        assert below.json().keys() == {"time", "instance"}


def test_metrics_are_read_with_their_own_token_and_health_without(coordinator):
    bearer = {"Authorization": f"Bearer {scraper_login(coordinator.home).secret}"}
    with coordinator.client() as client:
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers=bearer).text == "consilium_up 1\n"
        for path in ("/prefect/api/admin/version", "/mlflow/graphql"):
            assert client.get(path, headers=bearer).status_code == 401
        health = client.get("/health")
        told = {"exchange": True, "prefect": True, "mlflow": True}
        assert (health.status_code, health.json()) == (200, told)


def test_no_secret_is_in_an_argument_or_an_open_file(coordinator):
    secret, seen = coordinator.login.secret, arguments()
    assert any("flows.guarded_server" in line for line in seen)
    for each in (secret, postgres.PASSWORD, "p%40ss"):
        assert not any(each in line for line in seen)
    kept = files_with(secret, coordinator.home.root)
    assert [path.name for path in kept] == ["login"]
    assert kept[0].stat().st_mode & 0o777 == 0o600
    assert not files_with(postgres.PASSWORD, coordinator.home.root)
