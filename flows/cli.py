"""The command line: `consilium COMMAND`."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

# Before anything is imported that reads them. Nothing here phones home unless someone asks for it.
for _name, _value in {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # The run's log is kept by Prefect; a person at a terminal sees the progress display instead.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
}.items():
    os.environ.setdefault(_name, _value)

from federated.errors import ConsiliumError

app = typer.Typer(
    name="consilium",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Federated learning on medical images: a round is a pipeline to watch, resume, repeat.",
)

ExperimentName = Annotated[str, typer.Argument(help="An experiment of params.yaml.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set one value, as strategy.mu=0.1."),
]
Params = Annotated[Path, typer.Option(help="The parameter file.")]
Runs = Annotated[Path, typer.Option(help="The folder that holds all runs.")]
Rounds = Annotated[int | None, typer.Option(help="Rounds in all.")]

PARAMS = Path("params.yaml")
RUNS = Path("runs")


@app.command(epilog="Example: consilium run adrenal --set strategy.name=fedprox --rounds 5")
def run(
    experiment: ExperimentName,
    sets: Sets = None,
    rounds: Rounds = None,
    prepared: Annotated[
        Path | None, typer.Option(help="A folder made by `prepare`; else the data is prepared.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Also put model.safetensors and rounds.csv here.")
    ] = None,
    params: Params = PARAMS,
    runs: Runs = RUNS,
) -> None:
    """Prepare the data, run the rounds, evaluate and register the model."""

    def check() -> None:
        from federated.config import load_experiment

        items = [*(sets or []), *([f"rounds={rounds}"] if rounds is not None else [])]
        load_experiment(experiment, items, params)

    folder = _run_flow(
        check,
        experiment=experiment,
        overrides=sets or [],
        rounds=rounds,
        prepared=str(prepared) if prepared else None,
        params=str(params),
        runs=str(runs),
    )
    if export:
        from federated.run_folder import RunFolder
        from flows.steps import export_run

        export_run(RunFolder(folder), export)


@app.command(epilog="Example: consilium resume adrenal")
def resume(
    experiment: ExperimentName,
    run_id: Annotated[str, typer.Argument(help="A run id.")] = "latest",
    rounds: Rounds = None,
    runs: Runs = RUNS,
) -> None:
    """Go on with a run that was stopped, from its last complete round."""

    def check() -> None:
        from federated.run_folder import reopen_run

        reopen_run(runs, experiment, run_id, rounds)

    _run_flow(check, experiment=experiment, resume=run_id, rounds=rounds, runs=str(runs))


@app.command(epilog="Example: consilium prepare organ")
def prepare(
    experiment: ExperimentName,
    step: Annotated[
        str | None, typer.Option(help="Only download, partition or validate, as DVC does.")
    ] = None,
    sets: Sets = None,
    params: Params = PARAMS,
) -> None:
    """Download, partition and validate an experiment's data."""
    from federated.config import load_experiment

    resolved = load_experiment(experiment, sets or [], params)
    console = Console()
    if step:
        from flows.steps import run_step

        console.print(run_step(step, resolved), highlight=False, soft_wrap=True)
        return
    from flows.server import start_embedded_server

    wait_until_ready = start_embedded_server()
    from flows.prepare import fl_prepare

    wait_until_ready()
    folder = fl_prepare(experiment, sets or [], str(params))
    console.print(f"prepared in {folder}; Data Docs: {folder}/data_docs/index.html", soft_wrap=True)


@app.command(epilog="Example: consilium evaluate adrenal --model outputs/adrenal/model.safetensors")
def evaluate(
    experiment: ExperimentName,
    model: Annotated[Path, typer.Option(help="A model.safetensors.")],
    out: Annotated[Path, typer.Option(help="Write the metrics here, as JSON.")],
    sets: Sets = None,
    params: Params = PARAMS,
) -> None:
    """Evaluate a model file on the prepared data: overall and at each site."""
    from federated.config import load_experiment
    from flows.steps import evaluate_model

    resolved = load_experiment(experiment, sets or [], params)
    Console().print_json(data=evaluate_model(resolved, model, out))


@app.command(epilog="Example: consilium sites adrenal --set sites.beta=0.1")
def sites(experiment: ExperimentName, sets: Sets = None, params: Params = PARAMS) -> None:
    """Show which site has how many cases of each class."""
    from federated.config import load_experiment
    from flows.describe import sites_table

    Console().print(sites_table(load_experiment(experiment, sets or [], params)))


@app.command(epilog="Example: consilium doctor")
def doctor(params: Params = PARAMS) -> None:
    """Check versions, torch and CUDA, ports, disk and data."""
    from flows.doctor import examine

    if not examine(Console(), params):
        raise typer.Exit(1)


@app.command(epilog="Example: consilium serve, then: prefect deployment run fl-round/organ")
def serve(
    ui_only: Annotated[
        bool, typer.Option("--ui-only", help="The two web pages alone, no deployments.")
    ] = False,
    prefect_port: Annotated[int, typer.Option(help="Port of the Prefect server.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow server.")] = 5000,
    params: Params = PARAMS,
) -> None:
    """Open Prefect and MLflow, and serve a deployment fl-round/NAME for every experiment."""
    # Served runs have no progress display, so their log belongs on the console.
    os.environ.pop("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", None)
    from flows.serve import serve_all

    serve_all(Console(), params, prefect_port, mlflow_port, ui_only=ui_only)


def _run_flow(check: Callable[[], None], **arguments: Any) -> Path:
    """Run fl-round with a progress display, and say where to look.

    ``check`` finds mistakes in the input; it runs while the server starts.
    """
    from flows.server import start_embedded_server

    console = Console()
    with console.status("starting Prefect"):
        wait_until_ready = start_embedded_server()
        check()
        from flows.progress import shown_on
        from flows.round import fl_round
        from tasks.validate import preload

        preload()
        wait_until_ready()
    with shown_on(console):
        folder = Path(fl_round(**arguments))
    from flows.describe import result_lines

    for line in result_lines(folder):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return folder


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    if debug:
        os.environ["CONSILIUM_DEBUG"] = "1"


def main() -> None:
    """Run the command line; a mistake is answered in one paragraph."""
    try:
        app()
    except KeyboardInterrupt:
        print(
            "Stopped. Complete rounds are kept; go on with: consilium resume EXPERIMENT",
            file=sys.stderr,
        )
        sys.exit(130)
    except ConsiliumError as error:
        if os.environ.get("CONSILIUM_DEBUG"):
            raise
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if os.environ.get("CONSILIUM_DEBUG"):
            raise
        print(
            f"Error: this should not have happened ({type(error).__name__}: {error}). Run the "
            "command again as `consilium --debug …` and report what it prints.",
            file=sys.stderr,
        )
        sys.exit(1)
