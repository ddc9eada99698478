"""Events for Prefect's automations: a privacy budget is spent, or nearly.

They are told where a run is orchestrated: at the coordinator, of what sites say in words that
everybody may read, and at a site, in its own Prefect, of itself. At the coordinator they are no
more than a site's word: whatever is done by them, any site can have done.
"""

from collections.abc import Mapping
from typing import Any

from prefect.events import emit_event

from federated.privacy.budget import says_spent

SPENT, LOW = "consilium.budget.spent", "consilium.budget.low"
# Of a budget, what has to be left; with less it is low.
LEAST_SHARE = 0.2


def tell_if_spent(site: str, run: str, experiment: str, said: str) -> bool:
    """Emit :data:`SPENT` where a site's refusal is one for its budget; say whether it was.

    Args:
        site: who has refused.
        run: the run's id.
        experiment: its name.
        said: the refusal.
    """
    if not says_spent(said):
        return False
    _emit(SPENT, site, run, experiment, {"said": said[:2000]})
    return True


def tell_if_low(
    run: str, experiment: str, reports: Mapping[str, Mapping[str, Any] | None]
) -> list[str]:
    """Emit :data:`LOW` for each site of whose budget little is left; return their names.

    ``reports`` are what sites tell at a run's end, of all that was ever released of their cases.
    """
    low = []
    for site, report in reports.items():
        budget, spent = (report or {}).get("budget"), (report or {}).get("epsilon_ledger")
        if not budget or spent is None or budget - spent >= LEAST_SHARE * budget:
            continue
        numbers = {"budget": budget, "spent": spent, "share_left": max(0.0, 1 - spent / budget)}
        _emit(LOW, site, run, experiment, numbers)
        low.append(site)
    return low


def _emit(event: str, site: str, run: str, experiment: str, payload: dict[str, Any]) -> None:
    resource = {
        "prefect.resource.id": f"consilium.site.{site}",
        "prefect.resource.name": site,
        "consilium.experiment": experiment,
    }
    emit_event(event, resource, payload={"run": run, "experiment": experiment, **payload})
