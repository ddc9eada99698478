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
    transfer: Annotated[
        bool, typer.Option("--transfer", help="Start from the backbone that params.yaml names.")
    ] = False,
    params: Params = PARAMS,
    runs: Runs = RUNS,
) -> None:
    """Prepare the data, run the rounds, evaluate and register the model."""
    from federated.config import load_experiment, transfer_overrides

    items = [*(transfer_overrides(experiment, params) if transfer else []), *(sets or [])]

    def check() -> None:
        load_experiment(
            experiment, [*items, *([f"rounds={rounds}"] if rounds is not None else [])], params
        )

    folder = _run_round(
        check,
        experiment=experiment,
        overrides=items,
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

    _run_round(check, experiment=experiment, resume=run_id, rounds=rounds, runs=str(runs))


@app.command(epilog="Example: consilium pretrain organ")
def pretrain(
    backbone: Annotated[str, typer.Argument(help="A backbone under `pretraining` of params.yaml.")],
    sets: Sets = None,
    params: Params = PARAMS,
    runs: Runs = RUNS,
) -> None:
    """Train a backbone for transfer learning, in one place, on a source set."""
    from federated.config import PRETRAIN, load_experiment

    def check() -> None:
        load_experiment(PRETRAIN + backbone, sets or [], params)

    def start() -> str:
        from flows.pretrain import pretrain as run_pretraining

        return str(run_pretraining(backbone, sets or [], str(params), str(runs)))

    _say_result(Path(_run_flow(check, start)))


@app.command(
    epilog="Example: consilium compare adrenal --strategies fedavg,fedprox:mu=0.1,fedprox+tl"
)
def compare(
    experiment: ExperimentName,
    strategies: Annotated[
        str, typer.Option(help="Names, with :key=value for settings and +tl for transfer learning.")
    ] = "local,central,fedavg,fedavg+tl,fedprox,fedprox+tl,fedbn,scaffold,fedadam",
    seeds: Annotated[int, typer.Option(min=1, help="How many; they are 0, 1, …")] = 3,
    results: Annotated[
        Path | None, typer.Option(help="Also write the table into this Markdown file.")
    ] = None,
    sets: Sets = None,
    params: Params = PARAMS,
    runs: Runs = RUNS,
) -> None:
    """Run strategies side by side; what is finished is not run again."""
    labels = [label.strip() for label in strategies.split(",") if label.strip()]

    def check() -> None:
        from federated.comparison import cells

        cells(experiment, labels, seeds, sets or [], params)

    def start() -> str:
        from flows.compare import fl_compare

        return str(fl_compare(experiment, labels, seeds, sets or [], str(params), str(runs)))

    folder = Path(_run_flow(check, start))
    table = (folder / "table.md").read_text(encoding="utf-8")
    console = Console()
    console.print(table, highlight=False, markup=False, soft_wrap=True)
    if results:
        from federated.results_page import put_table

        put_table(results, table)
    console.print(f"{folder}/table.md, cells.json, auc.png; in MLflow: a run of {experiment}")


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


def _run_round(check: Callable[[], None], **arguments: Any) -> Path:
    """Run fl-round and say where to look."""

    def start() -> str:
        from flows.round import fl_round

        return str(fl_round(**arguments))

    folder = Path(_run_flow(check, start))
    _say_result(folder)
    return folder


def _run_flow(check: Callable[[], None], start: Callable[[], str]) -> str:
    """Run a flow with a progress display; it returns a folder.

    ``check`` finds mistakes in the input; it runs while the server starts.
    """
    from flows.server import start_embedded_server

    console = Console()
    with console.status("starting Prefect"):
        wait_until_ready = start_embedded_server()
        check()
        from flows.progress import shown_on
        from tasks.validate import preload

        preload()
        wait_until_ready()
    with shown_on(console):
        return start()


def _say_result(folder: Path) -> None:
    from flows.describe import result_lines

    for line in result_lines(folder):
        Console().print(line, highlight=False, markup=False, soft_wrap=True)


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
