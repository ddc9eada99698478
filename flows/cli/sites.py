"""sites show, join: who has which cases, and a new site after the end."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.cli.options import (
    PARAMS,
    RUNS,
    ExperimentName,
    Params,
    Runs,
    Sets,
    app,
    whole_number,
)
from flows.cli.running import run_flow

sites_app = typer.Typer(no_args_is_help=True, help="The sites of an experiment, and new ones.")
app.add_typer(sites_app, name="sites")


@sites_app.command(epilog="Example: consilium sites show adrenal --set sites.beta=0.1")
def show(experiment: ExperimentName, sets: Sets = None, params: Params = PARAMS) -> None:
    """Show which site has how many cases of each class."""
    from federated.configuration.load import load_experiment
    from flows.describe import cases_of_sites
    from flows.tables import show as shown

    shown(cases_of_sites(load_experiment(experiment, sets or [], params)))


@sites_app.command(epilog="Example: consilium sites join retina --site clinic-x --data /data/x")
def join(
    experiment: ExperimentName,
    site: Annotated[str, typer.Option(help="The new site's name.")],
    data: Annotated[Path, typer.Option(help="A folder with its data, of the form of data.root.")],
    run_id: Annotated[str, typer.Option("--run", help="The finished run to join.")] = "latest",
    rounds: Annotated[
        int, typer.Option(help="Rounds of local epochs to train.", **whole_number())
    ] = 5,
    runs: Runs = RUNS,
) -> None:
    """Let a new site join a finished run: it takes the common part and trains its own."""

    def check() -> None:
        from federated.run.runs import reopen_run
        from federated.stages.join import joining_experiment

        joining_experiment(reopen_run(runs, experiment, run_id, None)[0], site, data)

    def start() -> Path:
        from flows.join import fl_join

        return Path(fl_join(experiment, site, str(data), run_id, rounds, str(runs)))

    folder = run_flow(check, start)
    Console().print(f"{folder}/summary.json, model.safetensors", highlight=False, soft_wrap=True)
