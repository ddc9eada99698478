"""run, resume, pretrain, compare: what trains."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.cli.options import (
    PARAMS,
    RUNS,
    ExperimentName,
    Params,
    Rounds,
    Runs,
    Sets,
    app,
    whole_number,
)
from flows.cli.running import run_flow, run_profiled, run_rounds, say_result


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
    profile: Annotated[
        Path | None,
        typer.Option(help="Measure where time goes: profile.md and flame.svg in this folder."),
    ] = None,
    params: Params = PARAMS,
    runs: Runs = RUNS,
) -> None:
    """Prepare the data, run the rounds, evaluate and register the model."""
    from federated.files import require_writable
    from flows.request import RunRequest

    if export:  # better now than after all rounds
        require_writable(export, "--export", private=False)
    request = RunRequest(
        experiment, sets or [], rounds, prepared=prepared, params=params, runs=runs
    )
    request.check_words()
    if transfer:
        from federated.configuration.load import transfer_overrides

        request = replace(request, transfer=transfer_overrides(experiment, params))
    folder = run_profiled(request, transfer, profile) if profile else run_rounds(request)
    if export:
        from federated.run.folder import RunFolder
        from flows.steps import export_run

        export_run(RunFolder(folder), export)


@app.command(epilog="Example: consilium resume adrenal")
def resume(
    experiment: ExperimentName,
    run_id: Annotated[str, typer.Argument(help="A run id.")] = "latest",
    rounds: Rounds = None,
    runs: Runs = RUNS,
) -> None:
    """Go on with a run that was stopped or is paused, from its last complete round."""
    from flows.pausing import unpause
    from flows.request import RunRequest

    if folder := unpause(runs, experiment, run_id):
        told = f"run {folder.run_id} of {experiment} goes on where it is being worked on"
        Console().print(told, highlight=False)
        return
    run_rounds(RunRequest(experiment, rounds=rounds, resume=run_id, runs=runs))


@app.command(epilog="Example: consilium pause adrenal")
def pause(
    experiment: ExperimentName,
    run_id: Annotated[str, typer.Argument(help="A run id.")] = "latest",
    runs: Runs = RUNS,
) -> None:
    """Have a run that is being worked on wait before its next round."""
    from flows.pausing import pause as pause_run

    Console().print(pause_run(runs, experiment, run_id), highlight=False, soft_wrap=True)


@app.command(epilog="Example: consilium pretrain organ")
def pretrain(
    backbone: Annotated[str, typer.Argument(help="A backbone under `pretraining` of params.yaml.")],
    sets: Sets = None,
    params: Params = PARAMS,
    runs: Runs = RUNS,
) -> None:
    """Train a backbone for transfer learning, in one place, on a source set."""
    from federated.configuration.load import load_experiment
    from federated.configuration.params_file import PRETRAIN

    def check() -> object:
        return load_experiment(PRETRAIN + backbone, sets or [], params)

    def start() -> Path:
        from flows.pretrain import pretrain as run_pretraining

        return Path(run_pretraining(backbone, sets or [], str(params), str(runs)))

    say_result(run_flow(check, start))


@app.command(
    epilog="Example: consilium compare adrenal --strategies fedavg,fedprox:mu=0.1,fedprox+tl"
)
def compare(
    experiment: ExperimentName,
    strategies: Annotated[
        str, typer.Option(help="Names, with :key=value for settings and +tl for transfer learning.")
    ] = "local,central,fedavg,fedavg+tl,fedprox,fedprox+tl,fedbn,scaffold,fedadam",
    seeds: Annotated[
        int, typer.Option(help="How many, from the experiment's own on.", **whole_number())
    ] = 3,
    results: Annotated[
        Path | None, typer.Option(help="Also write the table into this Markdown file.")
    ] = None,
    sets: Sets = None,
    rounds: Rounds = None,
    params: Params = PARAMS,
    runs: Runs = RUNS,
) -> None:
    """Run strategies side by side; what is finished is not run again."""
    labels = [label.strip() for label in strategies.split(",") if label.strip()]

    def check() -> object:
        from federated.comparison.grid import planned_runs
        from federated.comparison.results_page import read_page
        from federated.files import require_writable

        if results:  # better now than after all runs
            require_writable(results.parent, "of --results", private=False)
            read_page(results)
        return planned_runs(experiment, labels, seeds, sets or [], params, rounds)

    def start() -> Path:
        from flows.compare import fl_compare

        folder = fl_compare(
            experiment, labels, seeds, sets or [], str(params), str(runs), rounds=rounds
        )
        return Path(folder)

    folder = run_flow(check, start)
    if results:
        from federated.comparison.results_page import put_table

        put_table(results, (folder / "table.md").read_text(encoding="utf-8"))
    from flows.describe import comparison
    from flows.tables import show

    show(comparison(folder, experiment))
