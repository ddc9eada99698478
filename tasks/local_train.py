"""local-train: a site trains from the global weights."""

from concurrent.futures import Executor

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.run.result import Stage
from federated.stages.local_train import train_site
from tasks.pool import AnyCall, run_stage


@task(
    name="local-train",
    task_run_name="local-train[{call.site}] round {round_number}",
    cache_policy=NO_CACHE,
)
def local_train(pool: Executor, call: AnyCall, round_number: int) -> Stage:
    """Train at one site; the update lies in the site's home afterwards."""
    run_stage(pool, train_site, call, round_number)
    return "local_train"
