"""propose and take-part: a run is proposed to sites, which answer, and then its plan is signed."""

from collections.abc import Sequence
from concurrent.futures import Executor

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.stages.coordinator import Coordinator, plan_run
from federated.stages.take_part import take_part
from tasks.pool import AnyCall, gathered, submit_stage


@task(name="take-part", task_run_name="take part", cache_policy=NO_CACHE)
def agree(
    pool: Executor, proposed: Coordinator, calls: Sequence[AnyCall]
) -> tuple[Coordinator, dict[str, list[str]]]:
    """Have all sites answer what is proposed to them, and sign the plan of a run of those that do.

    Returns:
        The coordinator from then on, and for each site what a person should know of its privacy.

    Raises:
        ConsiliumError: too few sites take part; or a site refuses to, only where
            ``sites.on_dropout`` is ``abort``.
    """
    abort = proposed.run.experiment.sites.on_dropout == "abort"
    asked = gathered({call.site: submit_stage(pool, take_part, call) for call in calls}, abort)
    return plan_run(proposed, asked.failed)
