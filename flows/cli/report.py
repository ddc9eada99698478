"""report: the page of a finished run, made again."""

from typing import Annotated

import typer
from rich.console import Console

from flows.cli.options import RUNS, ExperimentName, Runs, app
from flows.cli.telling import stage

# How the folder of a comparison is called.
COMPARISON = "compare-"


@app.command(epilog="Example: consilium report adrenal latest")
def report(
    experiment: ExperimentName,
    run_id: Annotated[str, typer.Argument(help="A run id, or compare-….")] = "latest",
    without_pictures: Annotated[
        bool, typer.Option("--without-pictures", help="Leave out pictures of test cases.")
    ] = False,
    runs: Runs = RUNS,
) -> None:
    """Make report.html of a finished run, or of a comparison, again from its files."""
    stage(f"making the page of {experiment} {run_id} …")
    from federated.run.runs import reopen_run
    from federated.settings.names import refuse_name
    from tasks.report import write_comparison, write_report

    if run_id.startswith(COMPARISON):
        refuse_name(experiment, "an experiment's name")
        path = write_comparison(runs / experiment / refuse_name(run_id, "a comparison's name"))
    else:
        folder, _ = reopen_run(runs, experiment, run_id, None)
        path = write_report(folder, pictures=not without_pictures)
    Console().print(str(path), highlight=False, markup=False, soft_wrap=True)
