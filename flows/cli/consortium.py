"""consortium up: a whole consortium on this machine, to try it."""

import signal
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer
from rich.console import Console

from federated.errors import printable
from flows.cli.options import PARAMS, Params, Program, Rounds, Sets, app, whole_number

consortium_app = Program(
    no_args_is_help=True,
    help="A consortium of several processes, to try it on one machine.",
    epilog="Example: consilium consortium up --sites 3 --experiment demo",
)
app.add_typer(consortium_app, name="consortium")


@consortium_app.callback()
def _of_several() -> None:
    """A consortium of several processes, to try it on one machine."""


@consortium_app.command(
    epilog="Example: consilium consortium up --sites 3 --experiment adrenal --rounds 3"
)
def up(
    experiment: Annotated[str, typer.Option(help="An experiment of params.yaml.")],
    sites: Annotated[int, typer.Option(help="How many sites.", **whole_number(1, 100))] = 3,
    folder: Annotated[
        Path | None, typer.Option(help="Where the parties have their homes; a new folder.")
    ] = None,
    sets: Sets = None,
    rounds: Rounds = None,
    params: Params = PARAMS,
) -> None:
    """Start a coordinator and sites as processes with homes of their own, and run an experiment.

    They meet at a free loopback port over HTTPS. All end with the run, or with Ctrl-C.
    """
    from federated.configuration.load import load_experiment
    from federated.configuration.params_file import rounds_items
    from flows.consortium_up import new_folder
    from flows.consortium_up import up as start

    console = Console()

    def say(line: str) -> None:
        console.print(printable(line), highlight=False, markup=False, soft_wrap=True)

    of_rounds = rounds_items(rounds)
    given = {"--set": sets or [], "--rounds": of_rounds, "--sites": [f"sites.count={sites}"]}
    resolved = load_experiment(experiment, given, params)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    place = (folder or new_folder()).resolve()
    say(f"a consortium of {sites} sites in {place}")
    width = max(2, len(str(sites - 1)))
    names = [f"site-{number:0{width}d}" for number in range(sites)]
    code = start(names, resolved, [*(sets or []), *of_rounds], params, place, say)
    say(f"the consortium has ended; its homes, logs and runs are in {place}")
    home = quote(str(place / "coordinator" / "consilium"))
    say(f"Prefect and MLflow again: CONSILIUM_HOME={home} consilium coordinator start")
    if code:
        raise typer.Exit(code)
