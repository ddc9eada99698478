"""compress: a site reduces its update to what is sent."""

from concurrent.futures import Executor

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.run.result import Stage
from federated.stages.compress import compress_site
from tasks.pool import AnyCall, run_stage


@task(
    name="compress",
    task_run_name="compress[{call.site}] round {round_number}",
    cache_policy=NO_CACHE,
)
def compress(pool: Executor, call: AnyCall, round_number: int) -> Stage:
    """Weight a site's update by its share of the cases, and compress it."""
    run_stage(pool, compress_site, call, round_number)
    return "compress"
