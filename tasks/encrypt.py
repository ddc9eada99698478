"""encrypt: a site protects its compressed update, and so makes the payload that travels."""

from concurrent.futures import Executor
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.run.result import StageResult
from federated.stages.protect import protect_site
from tasks.pool import run_stage


@task(name="encrypt", task_run_name="encrypt[{site}] round {round_number}", cache_policy=NO_CACHE)
def encrypt(pool: Executor, run: Path, site: str, round_number: int) -> StageResult:
    """Protect a site's compressed update."""
    return run_stage(pool, protect_site, run, site, round_number)
