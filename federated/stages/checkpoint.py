"""checkpoint: what makes a round count as done, and what is forgotten of it."""

from collections.abc import Mapping
from typing import Any

from federated.files import write_json
from federated.rounds.context import RunContext
from federated.run.folder import MEMORY_KINDS, MESSAGE_KINDS, RunFolder, memory_round
from federated.run.selection import kept_round


def forget_round(folder: RunFolder, round_number: int, site: str) -> None:
    """Leave a site that has dropped out of a round as it was before: nothing of it was sent."""
    for kind in MEMORY_KINDS:
        folder.memory_path(round_number, site, kind).unlink(missing_ok=True)


def commit_round(
    folder: RunFolder, run: RunContext, round_number: int, record: Mapping[str, Any]
) -> None:
    """Mark a round as done, then drop what no later round reads.

    What stays are the states of the last two rounds, that of the round whose model is kept so far,
    and what sites sent of the last round's evaluation.
    """
    write_json(folder.record_path(round_number), record)
    for kind in ("update", "compressed", "payload"):
        for path in folder.round_path(round_number).glob(f"*.{kind}.safetensors"):
            path.unlink()
    for message in MESSAGE_KINDS:
        for path in folder.round_path(round_number).glob(f"*.{message}.json"):
            path.unlink()
    folder.sum_path(round_number).unlink(missing_ok=True)
    folder.roster_path(round_number).unlink(missing_ok=True)
    # Until 0.2.0 these were always predictions.
    for kind in ("evaluation", "predictions"):
        for path in folder.round_path(round_number - 1).glob(f"*.{kind}.safetensors"):
            path.unlink()
    kept = {
        round_number,
        round_number - 1,
        kept_round(folder.records(), run.experiment.selection),
    }
    for number in set(range(round_number)) - kept:
        folder.state_path(number).unlink(missing_ok=True)
        folder.server_path(number).unlink(missing_ok=True)
    for site in run.sites:
        needed = {folder.latest_memory(site, number) for number in kept}
        needed.add(folder.latest_memory(site, round_number, "residual"))
        for path in [*folder.memory_paths(site), *folder.memory_paths(site, "residual")]:
            if path not in needed and memory_round(path) <= round_number:
                path.unlink()
