"""Whether a release may happen: the budgets in force for the records that it touches."""

from math import isinf

from federated.errors import RefusalError
from federated.privacy.account import Account
from federated.privacy.record_sets import RecordSet
from federated.privacy.spending import Budget, Spending
from federated.settings.base import Unit

UNITS: tuple[Unit, ...] = ("record", "site")
# A refusal for a budget reads so, wherever it has passed as text alone.
_HAS_A_BUDGET, _NOT_STARTED = "has a privacy budget of", "so it was not started there"


def refuse_beyond(account: Account, spending: Spending, touched: RecordSet | None) -> None:
    """Refuse a release that would pass a budget; ``touched`` are its records, ``None`` for all.

    Cases that are evaluated in the clear have no bound afterwards. A budget therefore refuses
    evaluation for those that any training has touched, and training on those that were evaluated.
    Cases that are only ever evaluated are not limited by it, unless it says so.

    Raises:
        RefusalError: the release would pass a budget; the message names the budget. What is spent
            and what would be is nothing for others, and is in ``kept``.
    """
    records = touched.records if touched else account.everything()
    for unit in UNITS:
        for budget, own in account.in_force(unit, records):
            if isinf(budget.epsilon):
                continue
            if not spending.trains:
                _refuse_evaluation(account, budget, spending, own)
                continue
            after = account.with_spending(spending, touched, unit, own)
            if not after.within(budget.epsilon, budget.delta):
                needed = after.worst(budget.delta, "prv")
                before = account.histories(own, unit).worst(budget.delta, "prv")
                raise _beyond(budget, spending, before, needed)


def _refuse_evaluation(
    account: Account, budget: Budget, spending: Spending, own: frozenset[str]
) -> None:
    trained = account.trained_on()
    both = own if trained is None else own & trained
    if budget.evaluation == "refuse":
        why = "which refuses that any case is evaluated in the clear"
    elif both:
        why = (
            # How many is told to nobody: others read it.
            "and cases to be evaluated were trained on, or may have been: "
            "what is told of them in the clear has no bound"
        )
    else:
        return
    raise RefusalError(
        f"{spending.site} has a privacy budget of {_limit(budget)}, {why}; so round "
        f"{spending.round_number} of run {spending.run} was not evaluated there. Leave these cases "
        "out of validation and test, or have the site's data protection officer change the budget "
        "with `consilium ledger budget`. Entries of older versions count for every case until "
        "`consilium ledger migrate` finds out which ones they touched."
    )


def _beyond(budget: Budget, spending: Spending, before: float, needed: float) -> RefusalError:
    name = "dp_sgd" if budget.unit == "record" else "site_level"
    told = (
        f"{spending.site} {_HAS_A_BUDGET} {_limit(budget)}, which round {spending.round_number} of "
        f"run {spending.run} would pass, {_NOT_STARTED}. Let the run go on without it "
        f"(sites.on_dropout=continue), train with privacy (privacy.name={name}) or more noise, or "
        "have the site's data protection officer change it with `consilium ledger budget`; how "
        "much is spent stands in the site's audit log and in `consilium ledger show`."
    )
    kept = (
        f"Of the budget of {_limit(budget)} {before:.3g} is spent; round {spending.round_number} "
        f"of run {spending.run} would make it {needed:.3g} (mechanism {spending.mechanism!r})."
    )
    return RefusalError(told, kept)


def says_spent(refusal: str) -> bool:
    """Whether a refusal is of training that would pass a budget, as a site has said it."""
    return _HAS_A_BUDGET in refusal and _NOT_STARTED in refusal


def _limit(budget: Budget) -> str:
    return f"epsilon={budget.epsilon:g} at delta={budget.delta:g} for each {budget.unit}"
