"""prepare, evaluate: data, and models on it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.cli.options import PARAMS, ExperimentName, Params, Sets, app
from flows.cli.telling import stage


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
    from federated.configuration.load import load_experiment

    console = Console()
    if not step:
        # Beside what is read and imported here.
        from flows.server import configured_api, start_embedded_server

        configured = configured_api()
        wait_until_ready = start_embedded_server()
    resolved = load_experiment(experiment, sets or [], params)
    if step:
        from flows.going_on import goes_on_by, preparing
        from flows.prepare import prepared_folder
        from flows.steps import run_step

        folder = prepared_folder(resolved).root
        with goes_on_by(preparing(experiment, sets or [], params, folder, step)):
            told = run_step(step, resolved)
        console.print(told, highlight=False, soft_wrap=True)
        return
    from flows.preflight import require_servers_and_folders

    require_servers_and_folders(configured, tracked=False)
    from flows.prepare import fl_prepare, still_to_plan

    wait_until_ready()
    place = fl_prepare(experiment, sets or [], str(params))
    console.print(f"prepared in {place}; Data Docs: {place}/data_docs/index.html", soft_wrap=True)
    if note := still_to_plan(resolved):
        console.print(note, highlight=False, soft_wrap=True)


@app.command(epilog="Example: consilium evaluate adrenal --model m.safetensors --out m.json")
def evaluate(
    experiment: ExperimentName,
    model: Annotated[Path, typer.Option(help="A model.safetensors.")],
    out: Annotated[Path, typer.Option(help="Write the metrics here, as JSON.")],
    sets: Sets = None,
    params: Params = PARAMS,
) -> None:
    """Evaluate a model file on the prepared data: overall and at each site."""
    from federated.configuration.load import load_experiment
    from federated.files import require_writable
    from flows.steps import evaluate_model

    resolved = load_experiment(experiment, sets or [], params)
    # Before the evaluation is entered in the ledger.
    require_writable(out.parent, "of --out", private=False)
    stage(f"evaluating {model} at every site …")
    Console().print_json(data=evaluate_model(resolved, model, out))
