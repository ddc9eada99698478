"""overlays: pictures of the sites' test cases with their masks."""

from concurrent.futures import Executor
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.pool import finished


@task(name="overlays", task_run_name="overlays", cache_policy=NO_CACHE)
def overlays(pool: Executor, run: Path, sites: list[str], round_number: int) -> None:
    """Draw every site's worst, median and best test case into ``overlays/`` of the run."""
    # Importing Matplotlib takes a while; only runs with overlays should wait for it.
    from federated.stages.overlays import draw_site

    finished([pool.submit(draw_site, run, site, round_number) for site in sites])
