"""doctor and serve: the machine and the servers."""

import os
from typing import Annotated

import typer
from rich.console import Console

from flows.cli.options import PARAMS, Params, app, whole_number


@app.command(epilog="Example: consilium doctor")
def doctor(params: Params = PARAMS) -> None:
    """Check versions, torch and CUDA, ports, disk and data.

    The last line counts the checks. The exit status is 1 if one is wrong; data that are missing and
    that no run downloads are no fault, since their own experiments alone need them.
    """
    from flows.doctor import examine

    if not examine(Console(), params):
        raise typer.Exit(1)


@app.command(epilog="Example: consilium serve --ui-only")
def serve(
    ui_only: Annotated[
        bool, typer.Option("--ui-only", help="The two web pages alone, no deployments.")
    ] = False,
    env: Annotated[
        bool,
        typer.Option(
            "--env", help="Print what a shell needs for the servers that run, and do nothing else."
        ),
    ] = False,
    prefect_port: Annotated[
        int, typer.Option(help="Port of the Prefect server.", **whole_number(1, 65535))
    ] = 4200,
    mlflow_port: Annotated[
        int, typer.Option(help="Port of the MLflow server.", **whole_number(1, 65535))
    ] = 5000,
    params: Params = PARAMS,
) -> None:
    """Open Prefect and MLflow, and serve a deployment fl-round/NAME for every experiment.

    Both answer their owner alone: another terminal is let in by eval "$(consilium serve --env)".
    """
    if env:
        from flows.session import running_session

        print("\n".join(running_session(prefect_port).exports()))
        return
    # Served runs have no progress display, so their log belongs on the console.
    os.environ.pop("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", None)
    from flows.preflight import require_servers_and_folders
    from flows.serve import serve_all
    from flows.server import configured_api

    require_servers_and_folders(configured_api())
    serve_all(Console(), params, prefect_port, mlflow_port, ui_only=ui_only)
