"""overlays: pictures of the sites' test cases with their masks."""

from collections.abc import Sequence
from concurrent.futures import Executor

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.exchange.message import Topic
from federated.stages.coordinator import Coordinator
from tasks.pool import AnyCall, gathered, submit_stage


@task(name="overlays", task_run_name="overlays", cache_policy=NO_CACHE)
def overlays(
    pool: Executor, coordinator: Coordinator, calls: Sequence[AnyCall], topic: Topic
) -> dict[str, str]:
    """Have every site's worst, median and best test case drawn into ``overlays/`` of the run.

    Returns:
        The sites of which there are no pictures, and why.

    Raises:
        ConsiliumError: a site fails, only where ``sites.on_dropout`` is ``abort``.
    """
    # Importing Matplotlib takes a while; only runs with overlays should wait for it.
    from federated.stages.overlays import draw_site, receive_pictures

    abort = coordinator.run.experiment.sites.on_dropout == "abort"
    gathered({c.site: submit_stage(pool, draw_site, c, topic.round) for c in calls}, abort)
    return receive_pictures(coordinator, topic, [call.site for call in calls])
