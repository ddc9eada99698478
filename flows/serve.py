"""`consilium serve`: the Prefect and MLflow servers, and a deployment for every experiment."""

import os
import signal
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from prefect import serve
from prefect.deployments.runner import EntrypointType
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
from rich.console import Console

from federated.config import experiment_names
from federated.errors import ConsiliumError
from flows.ports import HOST, require_free
from flows.round import fl_round
from tasks.track import client, tracking_uri

STARTUP_TIMEOUT_S = 120


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
    with ExitStack() as stack:
        console.print("starting the servers, some 20 seconds …")
        if local_mlflow:
            client()  # makes the folder and the database
            command = ["mlflow", "server", "--backend-store-uri", tracking_uri()]
            command += ["--host", HOST, "--port", str(mlflow_port), "--workers", "1"]
            stack.enter_context(_server(command, f"{mlflow_url}/health", "MLflow"))
        if not configured:
            command = ["prefect", "server", "start", "--host", HOST, "--port", str(prefect_port)]
            stack.enter_context(_server(command, f"{api}/health", "Prefect"))
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


def configured_api() -> str | None:
    """The Prefect API that the environment or the active profile names."""
    url = get_current_settings().api.url
    return str(url) if url else None


@contextmanager
def _server(command: list[str], health: str, name: str) -> Iterator[None]:
    """Run a server of this environment until the block ends."""
    executable = Path(sys.executable).with_name(command[0])
    process = subprocess.Popen(  # noqa: S603 - our own command
        [str(executable), *command[1:]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_until_healthy(process, health, name)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_until_healthy(process: "subprocess.Popen[bytes]", health: str, name: str) -> None:
    deadline = time.monotonic() + STARTUP_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(health, timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise ConsiliumError(
        f"The {name} server did not come up at {health}. Run `{' '.join(map(str, process.args))}` "  # type: ignore[arg-type]
        "to see why."
    )


def _wait() -> None:
    """Until Ctrl-C or a termination signal."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        signal.pause()
    except KeyboardInterrupt:
        return
