"""Showing, checking and limiting what sites have released, for the command line."""

from collections.abc import Iterator
from math import isinf

from rich.table import Table

from federated.configuration.experiment import Experiment
from federated.data.deal import deal
from federated.data.load import load, locate
from federated.errors import ConsiliumError
from federated.privacy.ledger import Budget, Ledger, Unit, spent
from federated.private_release import site_ledger


def ledgers_of(experiment: Experiment, site: str | None = None) -> dict[str, Ledger]:
    """The ledgers of an experiment's sites, or of one of them.

    Raises:
        ConsiliumError: there is no such site.
    """
    located = locate(experiment.data)
    dataset = load(located, experiment.data)
    partition = deal(dataset, experiment.sites, experiment.seed)
    if site is not None and site not in partition.sites:
        raise ConsiliumError(
            f"Experiment {experiment.name} has no site {site!r}; it has "
            f"{', '.join(partition.sites)}."
        )
    return {
        name: site_ledger(experiment, located.md5, partition, name)
        for name in ([site] if site else partition.sites)
    }


def ledger_table(experiment: Experiment, delta: float) -> Table:
    """What each site has released of its training cases, in all runs and experiments."""
    table = Table(
        title=f"{experiment.name}: released of the sites' training cases, in all runs",
        caption=f"epsilon at delta={delta:g}, composed by prv; - stands for nothing released",
    )
    for column in ("site", "entries", "runs", "epsilon (record)", "epsilon (site)", "budget"):
        table.add_column(column, justify="left" if column in ("site", "budget") else "right")
    for site, ledger in ledgers_of(experiment).items():
        spendings = ledger.spendings()
        units: tuple[Unit, ...] = ("record", "site")
        table.add_row(
            site,
            str(len(spendings)),
            str(len({spending.run for spending in spendings})),
            *(_shown(spent(spendings, unit, delta, "prv")) for unit in units),
            ", ".join(_budget_text(budget) for budget in ledger.budgets().values()) or "none",
        )
    return table


def verify_lines(experiment: Experiment) -> Iterator[tuple[bool, str]]:
    """For each site whether its ledger is whole, and what is to be said of it."""
    for site, ledger in ledgers_of(experiment).items():
        try:
            head = ledger.head()
        except ConsiliumError as error:
            yield False, f"{site}: {error}"
        else:
            yield True, f"{site}: whole, {head.count} entries, head {head.hash[:16]}  {ledger.path}"


def set_budgets(experiment: Experiment, budget: Budget, site: str | None) -> Iterator[str]:
    """Enter a budget in the ledgers of an experiment's sites, or of one of them.

    Raises:
        ConsiliumError: ε or δ that no mechanism can have, or no such site.
    """
    if not (budget.epsilon > 0 and 0 < budget.delta < 1):
        raise ConsiliumError(
            f"A budget of epsilon={budget.epsilon:g} at delta={budget.delta:g} cannot be: epsilon "
            "has to be above 0, delta between 0 and 1."
        )
    for name, ledger in ledgers_of(experiment, site).items():
        ledger.set_budget(budget)
        used = spent(ledger.spendings(), budget.unit, budget.delta, "prv")
        yield f"{name}: {_budget_text(budget)}, of which {_shown(used)} is spent"


def _budget_text(budget: Budget) -> str:
    return f"epsilon {budget.epsilon:g} at delta {budget.delta:g} for each {budget.unit}"


def _shown(value: float) -> str:
    if value == 0:
        return "-"
    return "no guarantee" if isinf(value) else f"{value:.3g}"
