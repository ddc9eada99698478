"""share-style: what a site tells the others of how its images look."""

from concurrent.futures import Executor
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.run.result import StageResult
from federated.stages.share_style import share_style as share
from tasks.pool import run_stage


@task(name="share-style", task_run_name="share-style[{site}]", cache_policy=NO_CACHE)
def share_style(pool: Executor, run: Path, site: str) -> StageResult:
    """Write one site's style, which the others read while they train."""
    return run_stage(pool, share, run, site)
