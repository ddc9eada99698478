"""join: a new site takes what a finished federation has in common and trains its own part."""

from concurrent.futures import Executor

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.data.dataset import DatasetInfo
from federated.run.folder import RunFolder
from federated.stages.coordinator import Coordinator
from federated.stages.join import Joined, join_site, offer, receive_joined
from tasks.pool import AnyCall, finished, submit_stage


@task(name="join", task_run_name="join[{call.site}]", cache_policy=NO_CACHE)
def join(
    pool: Executor,
    coordinator: Coordinator,
    call: AnyCall,
    federation: RunFolder,
    rounds: int,
    info: DatasetInfo,
) -> Joined:
    """Train and evaluate the joining site; return what it hands over.

    Args:
        pool: what runs the sites' stages.
        coordinator: of the joining site's run.
        call: the joining site.
        federation: the finished run.
        rounds: how many rounds of local epochs it trains.
        info: of its data set.
    """
    offer(coordinator, federation, call.site)
    finished([submit_stage(pool, join_site, call, rounds)])
    return receive_joined(coordinator, call.site, rounds, info)
