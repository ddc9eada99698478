"""checkpoint: the round's record, which makes the round count as done."""

from collections.abc import Mapping
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.rounds.context import RunContext
from federated.run.folder import RunFolder
from federated.stages.checkpoint import commit_round


@task(name="checkpoint", task_run_name="checkpoint round {round_number}", cache_policy=NO_CACHE)
def checkpoint(
    folder: RunFolder, run: RunContext, round_number: int, record: Mapping[str, Any]
) -> None:
    """Write the record, then drop what no later round reads."""
    commit_round(folder, run, round_number, record)
