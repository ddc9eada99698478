"""ledger show, verify, budget: what sites have released, and how much they may."""

from typing import Annotated

import typer
from rich.console import Console

from flows.cli.options import PARAMS, ExperimentName, Params, Sets, app

ledger_app = typer.Typer(no_args_is_help=True, help="What each site has released of its data.")
app.add_typer(ledger_app, name="ledger")
Delta = Annotated[float, typer.Option(help="The delta at which epsilon is stated.")]


@ledger_app.command(epilog="Example: consilium ledger show adrenal --delta 1e-4")
def show(
    experiment: ExperimentName, delta: Delta = 1e-5, sets: Sets = None, params: Params = PARAMS
) -> None:
    """Show what each site has spent, over all runs on the same data."""
    from federated.config import load_experiment
    from flows.ledger import ledger_table

    Console().print(ledger_table(load_experiment(experiment, sets or [], params), delta))


@ledger_app.command(epilog="Example: consilium ledger verify adrenal")
def verify(experiment: ExperimentName, sets: Sets = None, params: Params = PARAMS) -> None:
    """Check that no entry of any site's ledger was changed or removed."""
    from federated.config import load_experiment
    from flows.ledger import verify_lines

    broken = False
    for whole, line in verify_lines(load_experiment(experiment, sets or [], params)):
        Console().print(line, highlight=False, soft_wrap=True)
        broken |= not whole
    raise typer.Exit(1 if broken else 0)


@ledger_app.command(epilog="Example: consilium ledger budget adrenal --epsilon 8 --delta 1e-4")
def budget(
    experiment: ExperimentName,
    epsilon: Annotated[float, typer.Option(help="The most that may be spent in all.")],
    delta: Delta = 1e-5,
    unit: Annotated[str, typer.Option(help="For each record or for the whole site.")] = "record",
    site: Annotated[str | None, typer.Option(help="For this site alone.")] = None,
    sets: Sets = None,
    params: Params = PARAMS,
) -> None:
    """Limit what sites may spend; a round that would pass it is not started there."""
    from federated.config import load_experiment
    from federated.errors import ConsiliumError
    from federated.privacy.ledger import Budget
    from flows.ledger import set_budgets

    if unit not in ("record", "site"):
        raise ConsiliumError(f"--unit is record or site, not {unit!r}.")
    limit = Budget("site" if unit == "site" else "record", epsilon, delta)
    for line in set_budgets(load_experiment(experiment, sets or [], params), limit, site):
        Console().print(line, highlight=False, soft_wrap=True)
