"""ledger show, verify, budget, migrate: what was released, and how much may be."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.cli.options import NUMBER, PARAMS, RUNS, ExperimentName, Params, Program, Runs, Sets, app

if TYPE_CHECKING:
    from federated.privacy.ledger import Ledger
    from flows.ledger import Holder

ledger_app = Program(
    no_args_is_help=True,
    help="What was released of the data held here.",
    epilog="Example: consilium ledger show demo",
)
app.add_typer(ledger_app, name="ledger")
Delta = Annotated[float, typer.Option(help="The delta at which epsilon is stated.", **NUMBER)]


def _holder(experiment: str, sets: list[str] | None, params: Path, runs: Path) -> "Holder":
    from federated.configuration.load import load_experiment
    from flows.ledger import open_holder

    holder, said = open_holder(load_experiment(experiment, sets or [], params), runs, params)
    if said:
        _tell(said)
    return holder


def _ledger(experiment: str, sets: list[str] | None, params: Path, runs: Path) -> "Ledger":
    """The ledger alone, for what needs none of the cases."""
    from federated.configuration.load import load_experiment
    from flows.ledger import open_ledger

    ledger, said = open_ledger(load_experiment(experiment, sets or [], params), runs, params)
    if said:
        _tell(said)
    return ledger


def _tell(line: str) -> None:
    Console().print(line, highlight=False, soft_wrap=True)


@ledger_app.command(epilog="Example: consilium ledger show adrenal --delta 1e-4")
def show(
    experiment: ExperimentName,
    delta: Delta = 1e-5,
    sets: Sets = None,
    params: Params = PARAMS,
    runs: Runs = RUNS,
) -> None:
    """Show what was spent of each site's cases, over all runs, and what is left."""
    from federated.errors import ConsiliumError
    from flows.ledger import show as shown
    from flows.tables import show as put

    if not 0 < delta < 1:
        raise ConsiliumError(f"--delta={delta:g} is not possible: it is above 0 and below 1.")
    put(shown(_holder(experiment, sets, params, runs), delta))


@ledger_app.command(epilog="Example: consilium ledger verify adrenal --runs runs")
def verify(
    experiment: ExperimentName, sets: Sets = None, params: Params = PARAMS, runs: Runs = RUNS
) -> None:
    """Check that no entry was changed or removed, also against what runs have seen."""
    from flows.ledger import verify as verified

    broken = False
    for whole, line in verified(_ledger(experiment, sets, params, runs), [runs]):
        _tell(line)
        broken |= not whole
    raise typer.Exit(1 if broken else 0)


@ledger_app.command(epilog="Example: consilium ledger budget adrenal --epsilon 8 --delta 1e-4")
def budget(
    experiment: ExperimentName,
    epsilon: Annotated[
        float,
        typer.Option(help="The most that may be spent in all; inf lifts the budget.", **NUMBER),
    ],
    delta: Delta = 1e-5,
    unit: Annotated[str, typer.Option(help="For each record or for the whole site.")] = "record",
    site: Annotated[
        str | None, typer.Option(help="For the records that this site holds now, not for all.")
    ] = None,
    evaluation: Annotated[
        str,
        typer.Option(help="Cases evaluated in the clear: 'untrained' ones only, or 'refuse' all."),
    ] = "untrained",
    sets: Sets = None,
    params: Params = PARAMS,
    runs: Runs = RUNS,
) -> None:
    """Limit what may be spent; a round that would pass it is not started."""
    from federated.errors import ConsiliumError
    from federated.privacy.ledger import Budget
    from flows.ledger import set_budget

    if unit not in ("record", "site"):
        raise ConsiliumError(f"--unit is record or site, not {unit!r}.")
    if evaluation not in ("untrained", "refuse"):
        raise ConsiliumError(f"--evaluation is untrained or refuse, not {evaluation!r}.")
    limit = Budget(
        "site" if unit == "site" else "record",
        epsilon,
        delta,
        site=site,
        evaluation="refuse" if evaluation == "refuse" else "untrained",
    )
    for line in set_budget(_holder(experiment, sets, params, runs), limit):
        _tell(line)


@ledger_app.command(epilog="Example: consilium ledger migrate adrenal")
def migrate(
    experiment: ExperimentName, sets: Sets = None, params: Params = PARAMS, runs: Runs = RUNS
) -> None:
    """Take over ledgers of older versions; other commands and runs do so too."""
    from federated.configuration.load import load_experiment
    from flows.ledger import open_ledger

    _, said = open_ledger(load_experiment(experiment, sets or [], params), runs, params)
    _tell(said or f"There is no ledger of an older version for the data of {experiment}.")
