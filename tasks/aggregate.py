"""aggregate: the coordinator adds the payloads and makes the new global weights."""

import time
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.coordinator import aggregate as aggregate_payloads
from federated.run_folder import RunFolder
from federated.timing import Interval


@task(name="aggregate", task_run_name="aggregate round {round_number}", cache_policy=NO_CACHE)
def aggregate(run: Path, round_number: int, sites: list[str]) -> tuple[int, Interval]:
    """Write the round's state; return the bytes a site downloads and when it ran."""
    started = time.time()
    size = aggregate_payloads(RunFolder(run), round_number, sites)
    return size, Interval(started, time.time())
