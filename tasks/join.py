"""join: a new site takes what a finished federation has in common and trains its own part."""

from concurrent.futures import Executor
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.stages.join import Joined, join_site
from tasks.pool import finished


@task(name="join", task_run_name="join[{site}]", cache_policy=NO_CACHE)
def join(pool: Executor, run: Path, federation: Path, site: str, rounds: int) -> Joined:
    """Train and evaluate the joining site; its weights lie in its folder afterwards.

    Args:
        pool: what runs the sites' stages.
        run: the site's folder.
        federation: the folder of the finished run.
        site: the site's name.
        rounds: how many rounds of local epochs it trains.
    """
    joined: Joined
    (joined,) = finished([pool.submit(join_site, run, federation, site, rounds)])
    return joined
