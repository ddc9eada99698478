"""sites: who has which cases, who is enrolled in a consortium, a new site after the end."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.cli.options import (
    PARAMS,
    RUNS,
    ExperimentName,
    Params,
    Program,
    Runs,
    Sets,
    app,
    whole_number,
)
from flows.cli.running import run_flow
from flows.cli.telling import tell

sites_app = Program(
    no_args_is_help=True,
    help="The sites of an experiment, and new ones.",
    epilog="Example: consilium sites show demo",
)
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


@sites_app.command("list", epilog="Example: consilium sites list")
def list_() -> None:
    """Show the sites that are enrolled at this machine's coordinator."""
    from federated.run.coordinator_home import CoordinatorHome
    from flows.members import members_lines

    for line in members_lines(CoordinatorHome.default()):
        tell(line)


@sites_app.command(epilog="Example: consilium sites enrol clinic-north.enrolment.json")
def enrol(
    request: Annotated[Path, typer.Argument(help="What `consilium site init` has written.")],
    fingerprint: Annotated[
        str | None, typer.Option(help="What the site has told by telephone, to be compared.")
    ] = None,
) -> None:
    """Enrol a site at this machine's coordinator, after its fingerprint was compared."""
    from federated.run.coordinator_home import CoordinatorHome
    from flows.coordinator_life import enrol as enrol_site

    found = enrol_site(CoordinatorHome.default(), request, fingerprint)
    tell(f"enrolled {found.name}, fingerprint {found.fingerprint}")
    if fingerprint is None:
        tell(f"If {found.name} tells another one by telephone: consilium sites remove {found.name}")


@sites_app.command(epilog="Example: consilium sites suspend clinic-north")
def suspend(site: Annotated[str, typer.Argument(help="The site's name.")]) -> None:
    """Take nothing from a site and give it nothing, until it is enrolled again."""
    from federated.run.coordinator_home import CoordinatorHome
    from flows.coordinator_life import suspend as suspend_site

    suspend_site(CoordinatorHome.default(), site)
    tell(f"suspended {site}; to take it in again, enrol it again")


@sites_app.command(epilog="Example: consilium sites remove clinic-north")
def remove(site: Annotated[str, typer.Argument(help="The site's name.")]) -> None:
    """Forget a site; another key can be enrolled under its name then."""
    from federated.run.coordinator_home import CoordinatorHome
    from flows.coordinator_life import remove as remove_site

    remove_site(CoordinatorHome.default(), site)
    tell(f"removed {site}")
