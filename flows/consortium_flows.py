"""fl-round and fl-statistics as a coordinator deploys them: of the sites of its consortium."""

from collections.abc import Sequence
from functools import wraps
from inspect import signature
from typing import Any

from prefect import Flow

from federated.configuration.params_file import parse_overrides
from flows.round import fl_round
from flows.site_statistics import fl_statistics

# What makes a run one of the consortium's sites.
OF_SITES = "runner.name=sites"


def of_sites(overrides: Sequence[str]) -> list[str]:
    """Some overrides, with the consortium's sites as the runner where they name none.

    Whoever gives a deployment overrides replaces all that it had. Without a runner the run would be
    a simulation at the coordinator, on generated images if it has no others.

    Raises:
        ConsiliumError: an item is not of the form ``section.key=value``.
    """
    runner = parse_overrides(overrides).get("runner", {})
    named = not isinstance(runner, dict) or "name" in runner
    return list(overrides) if named else [OF_SITES, *overrides]


def _of_sites(here: Flow[..., str]) -> Flow[..., str]:
    """A flow with the name and the parameters of another one, whose overrides name a runner."""

    @wraps(here.fn, assigned=("__doc__",))
    def begin(*given: Any, **named: Any) -> str:
        asked = signature(here.fn).bind(*given, **named)
        asked.arguments["overrides"] = of_sites(asked.arguments.get("overrides") or ())
        return here.fn(*asked.args, **asked.kwargs)

    # By this name Prefect finds it in this module.
    begin.__name__ = begin.__qualname__ = f"{here.fn.__name__}_of_sites"
    return Flow(
        begin, name=here.name, flow_run_name=here.flow_run_name, task_runner=here.task_runner
    )


fl_round_of_sites = _of_sites(fl_round)
fl_statistics_of_sites = _of_sites(fl_statistics)
