"""keys show, erase: the keys of homomorphic encryption, one for each run."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.cli.options import PARAMS, RUNS, ExperimentName, Params, Program, Runs, app

keys_app = Program(
    no_args_is_help=True,
    help="The sites' keys of homomorphic encryption. A run makes its own and erases it at its end.",
    epilog="Example: consilium keys show adrenal",
)
app.add_typer(keys_app, name="keys")

Home = Annotated[
    Path | None, typer.Option(help="A site's home, instead of those of all simulated sites.")
]


@keys_app.command(epilog="Example: consilium keys show adrenal")
def show(
    experiment: ExperimentName, home: Home = None, params: Params = PARAMS, runs: Runs = RUNS
) -> None:
    """List the keys that sites have of an experiment's runs, without the secrets."""
    from federated.configuration.load import load_experiment
    from flows.keys import key_lines
    from flows.site import open_home

    load_experiment(experiment, (), params)
    for line in key_lines(runs, experiment, open_home(home) if home else None):
        Console().print(line, highlight=False, soft_wrap=True)


@keys_app.command(epilog="Example: consilium keys erase adrenal")
def erase(
    experiment: ExperimentName,
    run: Annotated[str, typer.Option("--run", help="A run's id, or latest.")] = "latest",
    home: Home = None,
    runs: Runs = RUNS,
) -> None:
    """Remove the key of a run that will not be resumed, or is to go on with another one."""
    from flows.keys import forget_keys
    from flows.site import open_home

    said = forget_keys(runs, experiment, run, open_home(home) if home else None)
    Console().print(said, highlight=False, soft_wrap=True)
