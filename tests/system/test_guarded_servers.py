"""The servers of `consilium serve` answer their owner alone; real ones, attacked."""

import json
from typing import Any

import httpx
import pytest
from fastapi.routing import APIWebSocketRoute
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.system.attacks import ATTACKS, EVIL, FOREIGN_HOSTS, Target, expected, statuses
from tests.system.conftest import Served, arguments

pytestmark = pytest.mark.system


CALLS = {
    "Prefect": ("prefect", "/api/deployments/filter"),
    "Prefect, pages": ("prefect", "/"),
    "MLflow": ("mlflow", "/api/2.0/mlflow/experiments/create"),
    "MLflow, as its pages call it": ("mlflow", "/ajax-api/2.0/mlflow/experiments/create"),
    "MLflow, GraphQL": ("mlflow", "/graphql"),
    "MLflow, assistant": ("mlflow", "/ajax-api/3.0/mlflow/assistant/message"),
    "MLflow, artifacts": ("mlflow", "/ajax-api/2.0/mlflow-artifacts/artifacts/x"),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_attack_is_refused(served, name):
    server, call = CALLS[name]
    target = Target(getattr(served, server), call, served.credentials)
    assert statuses(target) == {attack: expected(attack) for attack in ATTACKS}


@pytest.mark.parametrize("where", ["127.0.0.1", "localhost"])
def test_the_owner_is_let_in(served, where):
    """From pages of the server's own, and from links to them."""
    for server in (served.prefect, served.mlflow):
        url = server.replace("127.0.0.1", where)
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        link["Sec-Fetch-Dest"] = "document"
        with httpx.Client(base_url=url, auth=served.credentials, trust_env=False) as client:
            page = client.get("/", headers=link, follow_redirects=True)
            assert page.status_code == 200
            assert "<html" in page.text
            assert page.headers["x-frame-options"] == "SAMEORIGIN"
    own = {"Origin": served.mlflow.replace("127.0.0.1", where), "Sec-Fetch-Site": "same-origin"}
    answer = httpx.post(
        f"{own['Origin']}/ajax-api/2.0/mlflow/experiments/search",
        json={"max_results": 1},
        headers=own,
        auth=served.credentials,
        trust_env=False,
    )
    assert answer.status_code == 200


def test_mlflow_tells_a_browser_to_ask_for_the_login_and_prefects_page_asks_by_itself(served):
    refused = httpx.get(served.mlflow, trust_env=False)
    assert refused.headers["www-authenticate"].startswith("Basic")
    with httpx.Client(base_url=served.prefect, trust_env=False) as client:
        assert "www-authenticate" not in client.get("/api/admin/version").headers
        settings = client.get("/ui-settings").json()
    assert (settings["auth"], settings["csrf_enabled"]) == ("BASIC", True)
    # Below the page's own address, whatever that is.
    assert settings["api_url"] == "/api"


def test_no_call_of_prefects_api_is_answered_without_the_secret(served):
    with httpx.Client(base_url=served.prefect, timeout=60, trust_env=False) as client:
        paths = client.get("/openapi.json").json()["paths"]
        called = {
            (method, path): client.request(method, f"/api{path}").status_code
            for path, methods in paths.items()
            for method in methods
        }
    assert len(called) > 150
    answered = {call for call, status in called.items() if status != 401}
    assert answered == {("get", "/health"), ("get", "/ready")}


def test_prefect_wants_a_csrf_token_of_whoever_has_the_secret(served):
    with httpx.Client(
        base_url=f"{served.prefect}/api", auth=served.credentials, trust_env=False
    ) as client:
        assert client.post("/flows/filter", json={}).status_code == 403
        token = client.get("/csrf-token", params={"client": "a-test"}).json()["token"]
        said = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "a-test"}
        assert client.post("/flows/filter", json={}, headers=said).status_code == 200


def web_sockets() -> list[str]:
    """Every WebSocket of Prefect's API, as its routers have them."""
    from prefect.server.api.server import API_ROUTERS

    return [
        route.path.replace("{work_pool_name}", "pool")
        for router in API_ROUTERS
        for route in router.routes
        if isinstance(route, APIWebSocketRoute)
    ]


def open_socket(served: Served, path: str, **options: Any) -> ClientConnection:
    url = f"{served.prefect.replace('http', 'ws')}/api{path}"
    return connect(url, proxy=None, **options)


def answer_of(served: Served, path: str, protocols: list[str], first: str) -> object:
    with open_socket(served, path, subprotocols=protocols) as opened:
        opened.send(first)
        return json.loads(opened.recv(timeout=30))


def test_every_web_socket_of_prefect_wants_the_secret(served):
    paths = web_sockets()
    assert len(paths) >= 5
    for path in paths:
        for protocols in ([], ["prefect"]):
            for message in ("", "wrong", None):
                said = json.dumps({"type": "auth", "token": message})
                with pytest.raises((ConnectionClosed, InvalidStatus)):
                    answer_of(served, path, protocols, said)
        right = json.dumps({"type": "auth", "token": ":".join(served.credentials)})
        assert answer_of(served, path, ["prefect"], right) == {"type": "auth_success"}


@pytest.mark.parametrize("path", ["/events/in", "/events/out", "/logs/out"])
def test_no_web_socket_opens_for_a_page_of_another_origin_or_host(served, path):
    for origin in (EVIL, "null", "http://127.0.0.1:9"):
        with (
            pytest.raises(InvalidStatus, match="403"),
            open_socket(served, path, subprotocols=["prefect"], origin=origin),
        ):
            pass
    for host in filter(None, FOREIGN_HOSTS):
        with httpx.Client(base_url=served.prefect, trust_env=False) as client:
            upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Host": host}
            upgrade |= {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "A" * 22 + "=="}
            assert client.get(f"/api{path}", headers=upgrade).status_code == 400


def test_mlflows_own_client_is_let_in_by_its_environment(served, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(MlflowException, match="401"):
        MlflowClient(served.mlflow).create_experiment("from a client")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "consilium")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", served.secret)
    client = MlflowClient(served.mlflow)
    run = client.create_run(client.create_experiment("from a client"))
    client.log_text(run.info.run_id, "kept", "note.txt")
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["note.txt"]


def test_the_secret_is_in_no_process_argument(served):
    seen = arguments()
    assert any("flows.guarded_server" in line for line in seen)
    assert not any(served.secret in line for line in seen)
