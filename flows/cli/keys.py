"""keys new, show, rotate, erase: the keys of homomorphic encryption, one for each run."""

from typing import Annotated

import typer
from rich.console import Console

from flows.cli.options import PARAMS, RUNS, ExperimentName, Params, Runs, app

keys_app = typer.Typer(
    no_args_is_help=True,
    help="The sites' keys of homomorphic encryption. A run makes its own and erases it at its end.",
)
app.add_typer(keys_app, name="keys")

RunId = Annotated[str, typer.Option("--run", help="A run's id, or latest.")]
LATEST = "latest"


@keys_app.command(epilog="Example: consilium keys new adrenal")
def new(experiment: ExperimentName, run: RunId = LATEST, runs: Runs = RUNS) -> None:
    """Make the key of a run that was stopped and has lost its own, at this site."""
    _make(experiment, run, runs, replace=False)


@keys_app.command(epilog="Example: consilium keys rotate adrenal")
def rotate(experiment: ExperimentName, run: RunId = LATEST, runs: Runs = RUNS) -> None:
    """Replace the key of a run that was stopped; the old one is removed."""
    _make(experiment, run, runs, replace=True)


@keys_app.command(epilog="Example: consilium keys show adrenal")
def show(experiment: ExperimentName, params: Params = PARAMS) -> None:
    """List the keys of an experiment's runs, without the secrets."""
    from federated.configuration.load import load_experiment
    from flows.keys import key_lines

    load_experiment(experiment, (), params)
    for line in key_lines(experiment):
        Console().print(line, highlight=False, soft_wrap=True)


@keys_app.command(epilog="Example: consilium keys erase adrenal")
def erase(experiment: ExperimentName, run: RunId = LATEST, runs: Runs = RUNS) -> None:
    """Remove the key of a run that will not be resumed from this site."""
    from federated.run.runs import reopen_run
    from flows.keys import forget_keys

    folder, _ = reopen_run(runs, experiment, run, None)
    Console().print(forget_keys(experiment, folder.run_id), highlight=False, soft_wrap=True)


def _make(experiment: str, run: str, runs: Runs, *, replace: bool) -> None:
    from flows.keys import make_key

    for line in make_key(runs, experiment, run, replace=replace):
        Console().print(line, highlight=False, soft_wrap=True)
