"""evaluate: the new global model on every site's validation and test cases."""

import time
from concurrent.futures import Executor
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.data.dataset import DatasetInfo
from federated.learning.evaluation import Evaluation
from federated.run.folder import RunFolder
from federated.run.result import StageResult
from federated.run.timing import Interval
from federated.stages.evaluate import evaluate as evaluate_shared
from federated.stages.evaluate import evaluate_site
from tasks.pool import run_stage


@task(name="evaluate", task_run_name="evaluate[{site}] round {round_number}", cache_policy=NO_CACHE)
def evaluate_at_site(pool: Executor, run: Path, site: str, round_number: int) -> StageResult:
    """Predict one site's cases; what it sends of them lies in the round's folder afterwards."""
    return run_stage(pool, evaluate_site, run, site, round_number)


@task(name="evaluate-all", task_run_name="evaluate round {round_number}", cache_policy=NO_CACHE)
def evaluate(
    run: Path, round_number: int, sites: list[str], info: DatasetInfo
) -> tuple[Evaluation, Interval]:
    """The metrics over all sites together and at each of them, and when they were computed."""
    started = time.time()
    evaluation = evaluate_shared(RunFolder(run), round_number, sites, info)
    return evaluation, Interval(started, time.time())
