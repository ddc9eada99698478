"""What a site has been told of the rounds that are done, and what contradicts it.

By a plan a site forgets what it has kept of rounds that it is not in the sum of. So a coordinator
could make it forget everything, by a plan that says it was in none. But what is done stays done:
who was in the sum of a round stays in it, once another round has begun after it. Until then a round
may be begun anew: a run may have been killed before what became of its sum was written, or a person
may have removed the record of the last one.
"""

from federated.errors import RefusalError
from federated.exchange.plan import RoundPlan
from federated.files import PRIVATE, read_json, write_json
from federated.site.home import SiteRun


def refuse_contradiction(store: SiteRun, site: str, plan: RoundPlan, done: int) -> None:
    """Refuse a plan that says something else of the rounds that are done than those before it.

    Args:
        store: what the site keeps of the run.
        site: the site.
        plan: the plan.
        done: how many rounds are done by it.

    Raises:
        RefusalError: it does, or names rounds that are not done.
    """
    before = read_json(store.told_path) if store.told_path.is_file() else {}
    reason = None
    later = {who: number for who, number in plan.responded.items() if not 1 <= number <= done}
    fewer = {
        who: number
        for who, number in before.get("responded", {}).items()
        if plan.responded.get(who, 0) < number
    }
    if later or plan.kept > done:
        who, number = next(iter(later.items()), ("the run's model", plan.kept))
        reason = f"it has {who} in round {number}"
    elif done < before.get("done", 0):
        reason = f"{before['done']} were done by a plan before it"
    elif fewer:
        who, number = next(iter(fewer.items()))
        reason = f"by a plan before it {who} is in the sum of round {number}"
    if reason:
        raise RefusalError(
            f"{site} does nothing by a plan of round {plan.round} in which {done} rounds are done, "
            f"since {reason}. It would forget what it keeps. Ask whoever runs the coordinator; a "
            "run whose records were removed has to be begun as a new one."
        )


def note_told(store: SiteRun, plan: RoundPlan, done: int) -> None:
    """Keep what the plan of a round says of those before it."""
    value = {"done": done, "responded": dict(plan.responded)}
    if not store.told_path.is_file() or read_json(store.told_path) != value:
        write_json(store.told_path, value, PRIVATE)
