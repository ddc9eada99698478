"""local-train: a site trains from the global weights."""

from concurrent.futures import Executor
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.run.result import StageResult
from federated.stages.local_train import train_site
from tasks.pool import run_stage


@task(
    name="local-train",
    task_run_name="local-train[{site}] round {round_number}",
    cache_policy=NO_CACHE,
)
def local_train(pool: Executor, run: Path, site: str, round_number: int) -> StageResult:
    """Train at one site; the update lies in the round's folder afterwards."""
    return run_stage(pool, train_site, run, site, round_number)
