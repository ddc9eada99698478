"""checkpoint: what makes a round count as done, and what is forgotten of it."""

from collections.abc import Mapping
from typing import Any

from federated.exchange import kinds
from federated.files import write_json
from federated.run.selection import kept_round
from federated.stages.coordinator import Coordinator

# What is said before the first round holds for all of them.
BEFORE_ROUNDS = (kinds.PROPOSAL, kinds.JOINING, kinds.RUN_PLAN, kinds.KEY_ROSTER, kinds.STYLE)


def commit_round(coordinator: Coordinator, round_number: int, record: Mapping[str, Any]) -> None:
    """Mark a round as done, then drop what no later round reads.

    What stays are the states of the last two rounds and that of the round whose model is kept so
    far; of the messages, the last state, and those before the first round.
    """
    folder, run = coordinator.folder, coordinator.run
    write_json(folder.record_path(round_number), record)
    for number in (round_number - 1, round_number):
        # That before is there where a run was stopped just after it had written its record.
        folder.summed_path(number).unlink(missing_ok=True)
    for path in folder.round_path(round_number).glob("sum*.safetensors"):
        path.unlink()
    exchange = coordinator.mailbox.exchange
    exchange.forget(run.run_id, round_number, keep=(kinds.STATE, kinds.EVALUATION))
    if round_number > 1:
        exchange.forget(run.run_id, round_number - 1)
    else:
        exchange.forget(run.run_id, 0, keep=BEFORE_ROUNDS)
    coordinator.published.pop(round_number - 1, None)
    kept = {
        round_number,
        round_number - 1,
        kept_round(coordinator.records(), run.experiment.selection),
    }
    for number in set(range(round_number)) - kept:
        folder.state_path(number).unlink(missing_ok=True)
        folder.server_path(number).unlink(missing_ok=True)
        folder.statistics_path(number).unlink(missing_ok=True)
