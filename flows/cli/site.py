"""site approve, refuse, show: what a person at a site decides of runs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from federated.errors import printable
from flows.cli.options import app

site_app = typer.Typer(no_args_is_help=True, help="A site: what is proposed to it, and decisions.")
app.add_typer(site_app, name="site")

RunId = Annotated[str, typer.Argument(help="The run's id.")]
Home = Annotated[Path | None, typer.Option(help="The site's home, if not CONSILIUM_HOME.")]


@site_app.command(epilog="Example: consilium site show --home runs/adrenal/RUN/sites/site-00")
def show(home: Home = None) -> None:
    """Show which runs were proposed to the site and wait for a person's decision."""
    from flows.site import open_home, proposal_lines

    for line in proposal_lines(open_home(home)):
        _tell(line)


@site_app.command(epilog="Example: consilium site approve 20261126-101010-ab12")
def approve(run: RunId, home: Home = None) -> None:
    """Let the site take part in a run as it is proposed now."""
    from flows.site import decision_line, open_home

    _tell(decision_line(open_home(home), run, "approved"))


@site_app.command(epilog="Example: consilium site refuse 20261126-101010-ab12")
def refuse(run: RunId, home: Home = None) -> None:
    """Keep the site out of a run."""
    from flows.site import decision_line, open_home

    _tell(decision_line(open_home(home), run, "refused"))


def _tell(line: str) -> None:
    # The plan is the coordinator's: it may hold what a terminal or Rich would obey.
    Console().print(printable(line), highlight=False, markup=False, soft_wrap=True)
