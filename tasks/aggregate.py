"""aggregate: the coordinator adds the payloads; whoever may know the sum makes the next state."""

import time
from concurrent.futures import Executor
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.rounds.context import RunContext
from federated.run.folder import RunFolder
from federated.run.result import StageResult
from federated.run.timing import Interval
from federated.stages.aggregate import add_payloads, apply_sum, decrypt_site
from tasks.pool import run_stage


@task(name="aggregate", task_run_name="aggregate round {round_number}", cache_policy=NO_CACHE)
def aggregate(folder: RunFolder, run: RunContext, round_number: int, sites: list[str]) -> Interval:
    """Add the payloads of ``sites``; where the sum is in the clear, write the round's state too.

    The result is the time in which it was done.
    """
    started = time.time()
    protection = run.experiment.protection
    add_payloads(folder, run, round_number, sites)
    if not (protection.keyed or protection.masked):
        apply_sum(folder, run, round_number, sites)
    return Interval(started, time.time())


@task(name="decrypt", task_run_name="decrypt[{site}] round {round_number}", cache_policy=NO_CACHE)
def decrypt(
    pool: Executor,
    run: Path,
    site: str,
    round_number: int,
    sites: list[str],
) -> StageResult:
    """Open the sum of ``sites`` at a site, which has the key, and write the round's state.

    Args:
        pool: what runs the sites' stages.
        run: the run's folder.
        site: the site that opens the sum.
        round_number: the round.
        sites: the sites whose payloads are in the sum.
    """
    return run_stage(pool, decrypt_site, run, site, round_number, sites)
