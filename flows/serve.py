"""`consilium serve`: the Prefect and MLflow servers, and a deployment for every experiment."""

import os
import signal
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

from prefect import Flow, serve
from prefect.deployments.runner import RunnerDeployment
from prefect.settings import temporary_settings
from prefect.types.entrypoint import EntrypointType
from rich.console import Console

from federated.configuration.params_file import experiment_names
from flows.guarded_server import STORE
from flows.login import USER, Login, new_login
from flows.ports import HOST, listen_at
from flows.round import fl_round
from flows.server import (
    WITH_DEPLOYMENTS,
    client_settings,
    configured_api,
    running_guarded,
    wait_until_healthy,
)
from flows.session import Session, published
from flows.site_statistics import fl_statistics
from tasks.track import client, tracking_uri


def serve_all(
    console: Console, params: Path, prefect_port: int, mlflow_port: int, *, ui_only: bool
) -> None:
    """Start what is not running yet, then serve until interrupted.

    A Prefect API or an MLflow server that is configured (``PREFECT_API_URL``,
    ``MLFLOW_TRACKING_URI``) is used, not started again. Those that are started answer their owner
    alone, by a login that is new with every start.

    Args:
        console: where the addresses are printed.
        params: the parameter file.
        prefect_port: the port of a Prefect server that is started.
        mlflow_port: the port of an MLflow server that is started.
        ui_only: whether only the pages are served, and no deployments.

    Raises:
        ConsiliumError: a port is taken, or a server does not come up.
    """
    names = experiment_names(params)
    with _servers(console, prefect_port, mlflow_port) as (session, login):
        _say_where(console, session, login)
        if ui_only:
            if console.is_terminal:
                for page in _pages(session):
                    webbrowser.open(page)
            console.print("Stop with Ctrl-C.")
            _wait()
            return
        api = session.prefect_api
        how = '  eval "$(consilium serve --env)"\n' if api else ""
        console.print(
            f"In another terminal:\n{how}  prefect deployment run fl-round/{names[0]}\n"
            f"  prefect deployment run fl-statistics/{names[0]}\n"
            f"Deployments of both flows: {', '.join(names)}. Stop with Ctrl-C.",
            highlight=False,
        )
        with temporary_settings(updates=client_settings(api, login)) if api else nullcontext():
            serve_deployments(DEPLOYED, names, {"params": str(params)})


@contextmanager
def _servers(
    console: Console, prefect_port: int, mlflow_port: int
) -> Iterator[tuple[Session, Login]]:
    """Start what is not configured, and wait for it; yield what was started, and its login."""
    login = new_login()
    prefect_api = mlflow = None
    with ExitStack() as stack:
        # Both ports are taken before anything is started: who may not have one is told at once.
        listening = {}
        if not configured_api():
            prefect_api = f"http://{HOST}:{prefect_port}/api"
            taken = listen_at(prefect_port, "the Prefect server", "--prefect-port")
            listening["prefect"] = stack.enter_context(taken)
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            mlflow = f"http://{HOST}:{mlflow_port}"
            taken = listen_at(mlflow_port, "the MLflow server", "--mlflow-port")
            listening["mlflow"] = stack.enter_context(taken)
            client()  # makes the folder and the database
        console.print("starting the servers, some 20 seconds …")
        given = {STORE: tracking_uri(), **WITH_DEPLOYMENTS}
        started = {
            name: stack.enter_context(running_guarded(name, listening[name], login, given))
            for name in listening
        }
        if mlflow:
            wait_until_healthy(started["mlflow"], f"{mlflow}/health", "MLflow")
        if prefect_api:
            wait_until_healthy(started["prefect"], f"{prefect_api}/health", "Prefect")
        session = Session(prefect_api, mlflow, login.secret)
        stack.enter_context(published(session))
        yield session, login


def _pages(session: Session) -> tuple[str, str]:
    """The addresses of Prefect's and MLflow's pages."""
    api = session.prefect_api or str(configured_api())
    return api.removesuffix("/api"), session.mlflow or tracking_uri()


def _say_where(console: Console, session: Session, login: Login) -> None:
    """Print the addresses, and to a terminal the login: a log is read by others, and kept."""
    prefect, mlflow = _pages(session)
    console.print(f"Prefect  {prefect}\nMLflow   {mlflow}")
    if not (session.prefect_api or session.mlflow):
        return
    if not console.is_terminal:
        console.print("`consilium serve --env` prints the login to its owner.")
        return
    if session.prefect_api:
        console.print(f"Prefect's page asks for: {login.auth_string}", highlight=False)
    if session.mlflow:
        asked = f"user {USER}, password {login.secret}"
        console.print(f"MLflow's page asks for:  {asked}", highlight=False)


# How often, in seconds, the process of a run sends Prefect what it logs. `--watch` ends three
# seconds after a run does: by the two that Prefect itself takes, whoever watches on a busy machine
# would not read why the run failed.
LOG_EVERY = ("PREFECT_LOGGING_TO_API_BATCH_INTERVAL", "0.5")
# What can be asked for of every experiment.
DEPLOYED = (fl_round, fl_statistics)


def deployments(
    flows: Sequence[Flow[..., str]], names: list[str], parameters: Mapping[str, Any]
) -> list[RunnerDeployment]:
    """A deployment of each flow for every experiment, with the experiment's name.

    ``parameters`` are the defaults of each, beside that name.
    """
    # Outside of an event loop they are no coroutines.
    return [
        cast(
            RunnerDeployment,
            flow.to_deployment(
                name=name,
                parameters={"experiment": name, **parameters},
                # By module, so that any folder with a params.yaml can be served from.
                entrypoint_type=EntrypointType.MODULE_PATH,
            ),
        )
        for flow in flows
        for name in names
    ]


def serve_deployments(
    flows: Sequence[Flow[..., str]], names: list[str], parameters: Mapping[str, Any]
) -> None:
    """Serve a deployment of each flow for every experiment, until a signal ends it.

    ``parameters`` are the defaults of each, beside the experiment's name.
    """
    os.environ.setdefault(*LOG_EVERY)
    serve(*deployments(flows, names, parameters), print_starting_message=False, limit=1)


def _wait() -> None:
    """Wait until Ctrl-C or a termination signal."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        signal.pause()
    except KeyboardInterrupt:
        return
