"""watch: how far a run is."""

from typing import Annotated

import typer
from rich.console import Console

from flows.cli.options import RUNS, Runs, app


@app.command(epilog="Example: consilium watch demo --once")
def watch(
    experiment: Annotated[
        str | None, typer.Argument(help="An experiment; the run that is worked on if left out.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    runs: Runs = RUNS,
) -> None:
    """Show the sites, the stages, the time left and the ε left of an experiment's newest run."""
    from flows.watching import watch as watch_run
    from flows.watching import watched_run

    watch_run(Console(), watched_run(runs, experiment), once=once)
