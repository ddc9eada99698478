"""join: a new site takes what a finished federation has in common and trains its own part."""

from concurrent.futures import Executor

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.run.folder import RunFolder
from federated.stages.coordinator import Coordinator
from federated.stages.join import Joined, join_site, offer, receive_joined
from federated.stages.site import SiteCall
from federated.update import Vector
from tasks.pool import finished, submit_stage


@task(name="join", task_run_name="join[{call.site}]", cache_policy=NO_CACHE)
def join(
    pool: Executor, coordinator: Coordinator, call: SiteCall, federation: RunFolder, rounds: int
) -> tuple[Joined, Vector]:
    """Train and evaluate the joining site; return how it went, and the weights ``(size,)``.

    Args:
        pool: what runs the sites' stages.
        coordinator: of the joining site's run.
        call: the joining site.
        federation: the finished run.
        rounds: how many rounds of local epochs it trains.
    """
    offer(coordinator, federation, call.site)
    joined: Joined
    (joined,) = finished([submit_stage(pool, join_site, call, rounds)])
    return joined, receive_joined(coordinator, call.site, rounds)
