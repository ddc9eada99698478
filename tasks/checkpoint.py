"""checkpoint: the round's record, which makes the round count as done."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.stages.checkpoint import commit_round
from federated.stages.coordinator import Coordinator


@dataclass(frozen=True)
class Recorded:
    """The round whose record is written; what comes after has an edge from here."""

    round: int


@task(name="checkpoint", task_run_name="checkpoint round {round_number}", cache_policy=NO_CACHE)
def checkpoint(coordinator: Coordinator, round_number: int, record: Mapping[str, Any]) -> Recorded:
    """Write the record, then drop what no later round reads."""
    commit_round(coordinator, round_number, record)
    return Recorded(round_number)
