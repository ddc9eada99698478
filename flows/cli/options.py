"""The command line's application, and the options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

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
