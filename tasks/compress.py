"""compress: a site reduces its update to what is sent."""

from concurrent.futures import Executor
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.run.result import StageResult
from federated.stages.compress import compress_site
from tasks.pool import run_stage


@task(name="compress", task_run_name="compress[{site}] round {round_number}", cache_policy=NO_CACHE)
def compress(pool: Executor, run: Path, site: str, round_number: int, weight: float) -> StageResult:
    """Weight a site's update by ``weight``, n_k / Σn, and compress it.

    Args:
        pool: what runs the sites' stages.
        run: the run's folder.
        site: whose update it is.
        round_number: the round.
        weight: n_k / Σn over the selected sites, in (0, 1].
    """
    return run_stage(pool, compress_site, run, site, round_number, weight)
