"""checkpoint: the round's record, which makes the round count as done."""

from collections.abc import Mapping
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.stages.checkpoint import commit_round
from federated.stages.coordinator import Coordinator


@task(name="checkpoint", task_run_name="checkpoint round {round_number}", cache_policy=NO_CACHE)
def checkpoint(coordinator: Coordinator, round_number: int, record: Mapping[str, Any]) -> None:
    """Write the record, then drop what no later round reads."""
    commit_round(coordinator, round_number, record)
