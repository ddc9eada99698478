"""Showing, checking and limiting what was released of a holder's records, for the command line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, isinf
from pathlib import Path

from rich.table import Table

from federated.configuration.experiment import Experiment
from federated.data.dataset import SPLITS
from federated.data.load import load, locate
from federated.data.partition import Partition
from federated.data.site_cases import SiteCases
from federated.errors import ConsiliumError
from federated.privacy.kept_heads import KeptHead, home_heads, run_heads
from federated.privacy.ledger import Ledger
from federated.privacy.old_ledger import old_files
from federated.privacy.patients import most_of_one
from federated.privacy.spending import Budget, Spending
from federated.site.holder import held_cases, holder_ledger
from federated.stages.ledger_migration import take_over
from flows.tables import table

# The shares of a budget by which records are counted.
SHARES = (0.75, 0.5, 0.25)


@dataclass(frozen=True)
class Holder:
    """The ledger of whoever holds an experiment's data, and the cases of each of its sites."""

    experiment: Experiment
    ledger: Ledger
    cases: SiteCases

    @property
    def partition(self) -> Partition:
        """The cases of each site, by number."""
        return self.cases.partition

    def trained(self, site: str) -> tuple[str, ...]:
        """The digests of the records that a site trains on."""
        return self.cases.records([site], "train")


def open_holder(experiment: Experiment, runs: Path, params: Path) -> tuple[Holder, str | None]:
    """The holder of an experiment's data, and a line about ledgers of older versions.

    Those are taken over where there are any; the line is ``None`` otherwise. Nothing is downloaded:
    of data that are not on this machine nothing was released here.

    Raises:
        ConsiliumError: the data are not on this machine, or a ledger is not whole.
    """
    located = locate(experiment.data, download=False)
    dataset = load(located, experiment.data)
    said = take_over(experiment, located, dataset, runs, params)
    holder = Holder(experiment, holder_ledger(experiment), held_cases(experiment, dataset))
    return holder, said


def open_ledger(experiment: Experiment, runs: Path, params: Path) -> tuple[Ledger, str | None]:
    """The ledger of :func:`open_holder`, whose data are only read to take over older ones.

    Raises:
        ConsiliumError: there are older ones and not their data, or one is not whole.
    """
    if old_files(experiment.data.dataset):
        holder, said = open_holder(experiment, runs, params)
        return holder.ledger, said
    return holder_ledger(experiment), None


def show(holder: Holder, delta: float) -> Iterator[Table | str]:
    """Tables and lines on what was released of each site's training cases, in all runs.

    ``delta`` is the δ at which ε is stated.
    """
    yield f"{holder.ledger.holder}: released of the training cases of {holder.experiment.name}"
    yield _sites_table(holder, delta)
    yield (
        f"epsilon at delta={delta:g}, by prv, over all runs: of the record and of the patient that "
        "have spent most, and of the site as a whole; - stands for nothing released"
    )
    everyone = [record for site in holder.partition.sites for record in holder.trained(site)]
    for budget in holder.ledger.budgets(everyone):
        if budget.unit == "site":
            yield f"budget: {budget_text(budget)}"
    for budget, left in holder.ledger.left(everyone):
        yield f"budget: {budget_text(budget)}; training records by what is left of it:"
        yield _left_table(budget, left)
    if told := len(holder.ledger.evaluated_only()):
        yield (
            f"evaluated in the clear: {told} records that were never trained on; no epsilon says "
            "anything of these"
        )
    yield _about_patients(holder)


def _sites_table(holder: Holder, delta: float) -> Table:
    ledger, rows = holder.ledger, []
    spendings = ledger.spendings()
    for site in holder.partition.sites:
        records = holder.trained(site)
        own = _touching(ledger, spendings, records)
        rows.append(
            [
                site,
                str(len(records)),
                str(len(own)),
                str(len({spending.run for spending in own})),
                _shown(ledger.histories(records, "record").worst(delta, "prv")),
                _patient(holder, site, delta),
                _shown(ledger.histories(records, "site").worst(delta, "prv")),
            ]
        )
    of_whom = [f"epsilon of\n{whom}" for whom in ("a record", "a patient", "the site")]
    return table(["site", "records", "entries", "runs", *of_whom], rows)


def _touching(
    ledger: Ledger, spendings: Sequence[Spending], records: Sequence[str]
) -> list[Spending]:
    """The entries of training that touched any of these records."""
    own = frozenset(records)
    names = {spending.records for spending in spendings if spending.trains}
    met = {name for name in names if name is None or not own.isdisjoint(ledger.sets.read(name))}
    return [spending for spending in spendings if spending.trains and spending.records in met]


def _patients_of(holder: Holder, site: str) -> dict[str, list[str]] | None:
    patients = holder.cases.patients(site, "train")
    if patients is None:
        return None
    found: dict[str, list[str]] = {}
    for patient, record in zip(patients, holder.trained(site), strict=True):
        found.setdefault(patient, []).append(record)
    return found


def _patient(holder: Holder, site: str, delta: float) -> str:
    patients = _patients_of(holder, site)
    if patients is None:
        return "unknown"
    return _shown(holder.ledger.of_patients(patients).worst(delta, "rdp"))


def _about_patients(holder: Holder) -> str:
    counts = [most_of_one(holder.cases.patients(site, "train")) for site in holder.partition.sites]
    known = [count for count in counts if count is not None]
    if not known:
        return (
            f"a record is a case; {holder.ledger.holder} does not say which cases are of one "
            "patient, so nothing can be said of patients"
        )
    return (
        f"a record is a case; a patient has up to {max(known)} training cases at a site, and the "
        "epsilon (rdp) of patients counts all that they have"
    )


def _left_table(budget: Budget, left: Sequence[tuple[float, int]]) -> Table:
    """How many records have how much left of a budget."""
    limits = [(f">= {share * budget.epsilon:.3g}", share * budget.epsilon) for share in SHARES]
    stretches = [(f"all {budget.epsilon:g}", budget.epsilon), *limits, ("> 0", 0.0)]
    remaining, rows = list(left), []
    for text, limit in stretches:
        own = [n for value, n in remaining if value > 0 and value >= limit]
        remaining = [(v, n) for v, n in remaining if not (v > 0 and v >= limit)]
        rows.append((text, str(sum(own))))
    rows.append(("nothing", str(sum(n for value, n in remaining if value != -inf))))
    rows.append(("no guarantee", str(sum(n for value, n in remaining if value == -inf))))
    return table(["epsilon left", "records"], rows)


def verify(ledger: Ledger, runs: Sequence[Path]) -> Iterator[tuple[bool, str]]:
    """Whether the ledger is whole and the one that runs have seen, with a line for each finding."""
    try:
        head, hashes = ledger.head(), ledger.hashes()
    except ConsiliumError as error:
        yield False, f"{ledger.holder}: {error}"
        return
    yield (
        True,
        f"{ledger.holder}: whole, {head.count} entries, head {head.hash[:16]}  {ledger.path}",
    )
    kept = [kept for place in runs for kept in run_heads(place, ledger.holder)]
    wrong = [seen for seen in [*kept, *home_heads(ledger.path)] if not _fits(seen, hashes)]
    for seen in wrong:
        yield (
            False,
            (
                f"{ledger.holder}: run {seen.run} has seen entry {seen.head.count} with the hash "
                f"{seen.head.hash[:16]} ({seen.place}), which the ledger does not have: it was put "
                "back to an older copy, or replaced"
            ),
        )
    if not wrong:
        places = ", ".join(map(str, runs))
        yield True, f"{ledger.holder}: it agrees with the {len(kept)} heads found in {places}"


def _fits(kept: KeptHead, hashes: Sequence[str]) -> bool:
    count = kept.head.count
    return count == 0 or (count <= len(hashes) and hashes[count - 1] == kept.head.hash)


def set_budget(holder: Holder, budget: Budget) -> Iterator[str]:
    """Enter a budget for all records of the holder, or for those of the site that it names.

    The result is a line for each site, with a warning where the budget is exceeded already: it is
    set all the same, since that is how a holder stops all further releases.

    Raises:
        ConsiliumError: no mechanism can have the ε or δ, or there is no such site.
    """
    if not (budget.epsilon > 0 and 0 < budget.delta < 1):
        raise ConsiliumError(
            f"A budget of epsilon={budget.epsilon:g} at delta={budget.delta:g} cannot be: epsilon "
            "has to be above 0, delta between 0 and 1."
        )
    sites = list(holder.partition.sites)
    if budget.site is not None and budget.site not in sites:
        raise ConsiliumError(
            f"Experiment {holder.experiment.name} has no site {budget.site!r}; it has "
            f"{', '.join(sites)}."
        )
    own = None
    if budget.site is not None:
        own = [r for split in SPLITS for r in holder.cases.records([budget.site], split)]
    holder.ledger.set_budget(budget, own)
    for site in [budget.site] if budget.site else sites:
        histories = holder.ledger.histories(holder.trained(site), budget.unit)
        used = histories.worst(budget.delta, "prv")
        if used <= budget.epsilon:
            said = _shown(used) if used else "nothing"
            yield f"{site}: {budget_text(budget)}, of which {said} is spent"
            continue
        spent = histories.epsilons(budget.delta, "prv")
        beyond = sum(
            int(n)
            for value, n in zip(spent, histories.counts, strict=True)
            if value > budget.epsilon
        )
        yield f"WARNING: {site}: {_exceeded(budget, used, beyond)}"


def _exceeded(budget: Budget, used: float, beyond: int) -> str:
    """What a person has to know of a budget that is exceeded when it is set.

    Args:
        budget: the budget.
        used: the most that was spent of any unit of the site.
        beyond: of how many units more was spent than the budget allows.
    """
    over = f"{used - budget.epsilon:.3g} more than the budget"
    if budget.unit == "record":
        what = "one of these records"
        spent = f"Up to epsilon {used:.3g} is spent of {beyond} training records, {over}"
        if isinf(used):
            spent = f"Of {beyond} training records something was released without a bound"
    else:
        what = "its records"
        spent = f"Epsilon {used:.3g} is spent of the site as a whole, {over}"
        if isinf(used):
            spent = "Something of the site was released without a bound"
    return (
        f"{budget_text(budget)} is set, and is exceeded already. {spent}. What was released cannot "
        f"be taken back. From now on nothing that touches {what} can be entered, so that no run "
        "trains on them, until a budget allows it again."
    )


def budget_text(budget: Budget) -> str:
    """A budget in words."""
    if budget.epsilon == inf:
        return f"lifted for each {budget.unit}"
    whose = f" of {budget.site}" if budget.site else ""
    refused = ", no evaluation in the clear" if budget.evaluation == "refuse" else ""
    limit = f"epsilon {budget.epsilon:g} at delta {budget.delta:g} for each {budget.unit}"
    return f"{limit}{whose}{refused}"


def _shown(value: float) -> str:
    if value == 0:
        return "-"
    return "no guarantee" if isinf(value) else f"{value:.3g}"
