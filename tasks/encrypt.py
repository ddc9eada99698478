"""encrypt: a site protects its compressed update, and so makes the payload that travels."""

from concurrent.futures import Executor

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.run.result import Stage
from federated.stages.protect import protect_site
from tasks.pool import AnyCall, run_stage


@task(
    name="encrypt", task_run_name="encrypt[{call.site}] round {round_number}", cache_policy=NO_CACHE
)
def encrypt(pool: Executor, call: AnyCall, round_number: int) -> Stage:
    """Protect a site's compressed update."""
    run_stage(pool, protect_site, call, round_number)
    return "protect"
