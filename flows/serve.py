"""`consilium serve`: the Prefect and MLflow servers, and a deployment for every experiment."""

import os
import signal
import webbrowser
from contextlib import ExitStack
from pathlib import Path

from prefect import serve
from prefect.deployments.runner import EntrypointType
from prefect.settings import PREFECT_API_URL, temporary_settings
from rich.console import Console

from federated.config import experiment_names
from flows.ports import HOST, require_free
from flows.round import fl_round
from flows.server import configured_api, running, wait_until_healthy
from tasks.track import client, tracking_uri

# Its queues are for evaluating language models, and are eight more processes of 200 MiB each.
MLFLOW = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def serve_all(
    console: Console, params: Path, prefect_port: int, mlflow_port: int, *, ui_only: bool
) -> None:
    """Start what is not running yet, then serve until interrupted.

    A Prefect API or an MLflow server that is configured (``PREFECT_API_URL``,
    ``MLFLOW_TRACKING_URI``) is used, not started again.

    Raises:
        ConsiliumError: a port is taken, or a server does not come up.
    """
    names = experiment_names(params)
    configured = configured_api()
    local_mlflow = not os.environ.get("MLFLOW_TRACKING_URI")
    if not configured:
        require_free(prefect_port, "the Prefect server", "--prefect-port")
    if local_mlflow:
        require_free(mlflow_port, "the MLflow server", "--mlflow-port")
    api = configured or f"http://{HOST}:{prefect_port}/api"
    mlflow_url = f"http://{HOST}:{mlflow_port}" if local_mlflow else tracking_uri()
    at = ("--host", HOST, "--port")
    servers: list[tuple[str, list[str], dict[str, str], str]] = []
    if local_mlflow:
        client()  # makes the folder and the database
        store = ("--backend-store-uri", tracking_uri(), "--workers", "1")
        command = ["mlflow", "server", *store, *at, str(mlflow_port)]
        servers.append(("MLflow", command, MLFLOW, f"{mlflow_url}/health"))
    if not configured:
        command = ["prefect", "server", "start", *at, str(prefect_port)]
        servers.append(("Prefect", command, {}, f"{api}/health"))
    with ExitStack() as stack:
        console.print("starting the servers, some 20 seconds …")
        started = [
            (stack.enter_context(running(command, environment)), health, name)
            for name, command, environment, health in servers
        ]
        for process, health, name in started:
            wait_until_healthy(process, health, name)
        console.print(f"Prefect  {api.removesuffix('/api')}\nMLflow   {mlflow_url}")
        if ui_only:
            if console.is_terminal:
                for page in (api.removesuffix("/api"), mlflow_url):
                    webbrowser.open(page)
            console.print("Stop with Ctrl-C.")
            _wait()
            return
        console.print(
            f"In another terminal:\n  export PREFECT_API_URL={api}\n"
            f"  prefect deployment run fl-round/{names[0]}\n"
            f"Deployments: {', '.join(names)}. Stop with Ctrl-C.",
            highlight=False,
        )
        with temporary_settings(updates={PREFECT_API_URL: api}):
            deployments = [
                fl_round.to_deployment(
                    name=name,
                    parameters={"experiment": name, "params": str(params)},
                    # By module, so that any folder with a params.yaml can be served from.
                    entrypoint_type=EntrypointType.MODULE_PATH,
                )
                for name in names
            ]
            serve(*deployments, print_starting_message=False, limit=1)


def _wait() -> None:
    """Until Ctrl-C or a termination signal."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        signal.pause()
    except KeyboardInterrupt:
        return
