"""share-style: what a site tells the others of how its images look."""

from concurrent.futures import Executor

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.run.result import Stage
from federated.stages.coordinator import Coordinator
from federated.stages.share_style import keep_styles as keep
from federated.stages.share_style import share_style as share
from tasks.pool import AnyCall, run_stage


@task(name="share-style", task_run_name="share-style[{call.site}]", cache_policy=NO_CACHE)
def share_style(pool: Executor, call: AnyCall) -> Stage:
    """Send one site's style, which the others take before they train."""
    run_stage(pool, share, call)
    return "style"


@task(name="keep-styles", task_run_name="keep styles", cache_policy=NO_CACHE)
def keep_styles(coordinator: Coordinator) -> dict[str, str]:
    """Keep the styles of the sites, for those that join later; those that do not count, and why."""
    return keep(coordinator)
