"""`python -m flows.guarded_server NAME`: Prefect's or MLflow's server, behind a guard.

The environment has the secret of its login, and the number of an inherited socket that already
listens, so that nobody else can take its port while the server is being imported. Whoever starts it
without them, to see what it says, gets it at a free port with a secret that nobody knows.
"""

import os
import socket
import sys

from flows.guard import App, Guard, OpenToAll
from flows.login import Login, new_login
from flows.ports import listen

SECRET = "CONSILIUM_SERVER_SECRET"  # noqa: S105 - a name
SOCKET = "CONSILIUM_SERVER_SOCKET"
STORE = "CONSILIUM_MLFLOW_STORE"
# Where MLflow's server keeps files of runs and models.
ARTIFACTS = "CONSILIUM_MLFLOW_ARTIFACTS"
# What a run tells Prefect is written down so much at a time, at the latest after so many seconds:
# by itself the server does so one task run at a time, which takes it nearly twice as long.
TOGETHER = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "2",
}
# The path that a server's own paths begin with, where several are behind one address.
BELOW = "CONSILIUM_SERVER_BELOW"


def prefect(login: Login) -> Guard:
    """Prefect's server, whose own pages and own API ask for the login."""
    below = os.environ.get(BELOW, "")
    os.environ |= {name: os.environ.get(name, usual) for name, usual in TOGETHER.items()}
    os.environ |= {
        "PREFECT_SERVER_API_AUTH_STRING": login.auth_string,
        # For requests that the server makes to itself.
        "PREFECT_API_AUTH_STRING": login.auth_string,
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        # No other origin: its own needs no leave, and this is none that a browser has.
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": "http://127.0.0.1",
        "PREFECT_SERVER_API_BASE_PATH": f"{below}/api",
        # Below whatever address the pages were loaded from.
        "PREFECT_SERVER_UI_API_URL": f"{below}/api",
        "PREFECT_SERVER_UI_SERVE_BASE": below or "/",
    }
    from prefect.server.api.server import create_app

    return Guard(create_app(final=True), login, prefect_is_open(below), prompts=False)


def mlflow(login: Login) -> Guard:
    """MLflow's server, which has no login page, so that the browser asks."""
    from tasks.mlflow_server import tracking_server
    from tasks.new_database import MLFLOW, begin_database

    store = os.environ.get(STORE, "sqlite:///mlruns/mlflow.db")
    begin_database(MLFLOW, store)
    below = os.environ.get(BELOW, "")
    server = tracking_server(store, os.environ.get(ARTIFACTS, "./mlartifacts"), below)
    return Guard(server, login, mlflow_is_open(below), prompts=True)


def prefect_is_open(below: str = "") -> OpenToAll:
    """What Prefect's server answers without the secret, where its paths begin with ``below``."""
    api = f"{below}/api"

    def is_open(kind: str, method: str, path: str) -> bool:
        if kind == "websocket":
            # Asks for the secret in its first message: a browser cannot send it in a header.
            return True
        if path in (f"{api}/health", f"{api}/ready"):
            return method == "GET"
        # The pages, the same for everybody, and the settings that they read before they ask.
        return method in ("GET", "HEAD") and path != api and not path.startswith(f"{api}/")

    return is_open


def mlflow_is_open(below: str = "") -> OpenToAll:
    """What MLflow's server answers without the secret, where its paths begin with ``below``."""
    health = ("http", "GET", f"{below}/health")
    return lambda kind, method, path: (kind, method, path) == health


SERVERS = {"prefect": prefect, "mlflow": mlflow}


def serve(app: App, listening: socket.socket) -> None:
    """Answer requests at a socket until a signal ends it."""
    import uvicorn  # here, because who starts this process imports the names above

    config = uvicorn.Config(
        app,
        log_level="warning",
        lifespan="on",
        # There is no proxy, whose word about a client could be taken.
        proxy_headers=False,
        server_header=False,
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    _secret, _number = (os.environ.pop(name, None) for name in (SECRET, SOCKET))
    _listening = socket.socket(fileno=int(_number)) if _number else listen()
    serve(SERVERS[sys.argv[1]](Login(_secret) if _secret else new_login()), _listening)
