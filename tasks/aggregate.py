"""aggregate: the coordinator adds the payloads and makes the new global weights."""

import time
from dataclasses import dataclass
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.coordinator import aggregate as aggregate_payloads
from federated.run_folder import RunFolder
from federated.timing import Interval


@dataclass(frozen=True)
class Aggregated:
    """Bytes that a site downloads, values in the model, and when it ran."""

    down: int
    length: int
    interval: Interval


@task(name="aggregate", task_run_name="aggregate round {round_number}", cache_policy=NO_CACHE)
def aggregate(run: Path, round_number: int, sites: list[str]) -> Aggregated:
    """Add the payloads of ``sites`` and write the round's state."""
    started = time.time()
    down, length = aggregate_payloads(RunFolder(run), round_number, sites)
    return Aggregated(down, length, Interval(started, time.time()))
