"""keys new, show, rotate: the sites' keys of homomorphic encryption."""

import typer
from rich.console import Console

from flows.cli.options import PARAMS, ExperimentName, Params, Sets, app

keys_app = typer.Typer(no_args_is_help=True, help="The sites' keys of homomorphic encryption.")
app.add_typer(keys_app, name="keys")


@keys_app.command(epilog="Example: consilium keys new adrenal --set protection.name=ckks")
def new(experiment: ExperimentName, sets: Sets = None, params: Params = PARAMS) -> None:
    """Make the key that an experiment needs, at this site."""
    _make(experiment, sets, params, replace=False)


@keys_app.command(epilog="Example: consilium keys rotate adrenal --set protection.name=ckks")
def rotate(experiment: ExperimentName, sets: Sets = None, params: Params = PARAMS) -> None:
    """Replace the key of an experiment; the old one is removed."""
    _make(experiment, sets, params, replace=True)


@keys_app.command(epilog="Example: consilium keys show adrenal")
def show(experiment: ExperimentName, params: Params = PARAMS) -> None:
    """List the keys of an experiment, without the secrets."""
    from federated.config import load_experiment
    from flows.keys import key_lines

    load_experiment(experiment, (), params)
    for line in key_lines(experiment):
        Console().print(line, highlight=False, soft_wrap=True)


def _make(experiment: str, sets: list[str] | None, params: Params, *, replace: bool) -> None:
    from federated.config import load_experiment
    from flows.keys import make_key

    for line in make_key(load_experiment(experiment, sets or [], params), replace=replace):
        Console().print(line, highlight=False, soft_wrap=True)
