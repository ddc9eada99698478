"""aggregate: add the sites' payloads; and whoever may know the sum applies it.

With a protection that has a key these are the sites alone, each for itself; here one of them does
it for all, since the state that comes of it is the same everywhere.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from federated.errors import ConsiliumError
from federated.protection import Protection
from federated.protection.keys import (
    PublicContext,
    SecretContext,
    count_opening,
)
from federated.protection.secagg.round import Round
from federated.rounds.aggregation import next_state
from federated.rounds.context import RoundContext, RunContext, sum_length
from federated.run.folder import RunFolder
from federated.run.key import public_context
from federated.run.result import StageResult, stage_result
from federated.run.secagg_messages import read_roster
from federated.run.update_files import (
    read_layout,
    read_memory,
    read_payload,
    read_state,
    write_outcome,
    write_payload,
)
from federated.stages.context import read_run
from federated.stages.keys import site_key
from federated.stages.secagg import masked_round
from federated.update import Payload


def add_payloads(
    folder: RunFolder, run: RunContext, round_number: int, selected: Sequence[str]
) -> None:
    """Add the payloads of the ``selected`` sites one after the other, and write the sum.

    One payload and one sum are in memory at a time, however many sites there are; the fixed order
    of sites makes the floating-point sum the same in every run.

    Raises:
        ConsiliumError: no site was selected, or a payload is damaged or does not belong to the sum.
    """
    protection: Protection = run.experiment.protection
    running = None
    layout = read_layout(folder.state_path(round_number - 1), round_number - 1)
    length = sum_length(run.experiment, layout)
    for site in selected:
        payload = read_payload(folder.site_path(round_number, site, "payload"), length)
        _refuse_other_scalars(payload, site, run.experiment.privacy.scalar_names)
        if running is None:
            public = _public(folder, run, round_number)
            running = protection.open_sum(length, round_number, public)
        protection.add(running, payload)
    if running is None:
        raise ConsiliumError(f"No site was selected in round {round_number}.")
    write_payload(folder.sum_path(round_number), protection.close(running))


def _refuse_other_scalars(payload: Payload, site: str, expected: frozenset[str]) -> None:
    """Refuse a payload without a scalar that is summed, or with one that nobody asked for.

    Raises:
        ConsiliumError: the scalars are others; the message says which.
    """
    if payload.scalars.keys() != expected:
        told = ", ".join(sorted(payload.scalars)) or "none"
        raise ConsiliumError(
            f"The payload of {site} in round {payload.round_number} is refused: beside its update "
            f"it has the scalars {told:.200}, and {', '.join(sorted(expected)) or 'none'} are "
            "expected. Have it sent again; resuming the run does so."
        )


def download_size(folder: RunFolder, round_number: int) -> int:
    """The bytes of a round that every site downloads.

    They are those of the sum, and in round 1 of the initial state too.
    """
    size = folder.sum_path(round_number).stat().st_size
    return size + (folder.state_path(0).stat().st_size if round_number == 1 else 0)


def _public(folder: RunFolder, run: RunContext, round_number: int) -> PublicContext | Round | None:
    """What the coordinator adds with: the public half of a key, or the round of SecAgg+."""
    if run.experiment.protection.masked:
        return masked_round(run, read_roster(folder, round_number)[0], round_number)
    return public_context(folder, run.experiment)


def decrypt_site(run: Path, site: str, round_number: int, responded: list[str]) -> StageResult:
    """Open the round's sum, which is that of ``responded``, with the sites' key, and apply it.

    What is written, for the coordinator to read in this simulation, is flooded already where the
    protection is CKKS.

    Raises:
        ConsiliumError: the sum is of too few sites or of others than those selected, has too little
            noise for its privacy, or the key has opened as many sums as it may.
    """
    started = time.time()
    folder = RunFolder(run)
    context = read_run(folder)
    experiment, selected = context.experiment, context.selected(round_number)
    protection: Protection = experiment.protection
    counted = protection.refuse_too_few(site, round_number, selected, responded)
    context.refuse_too_little_noise(len(counted))
    # A key opens so many sums: none is counted where the last state cannot be read.
    read_layout(folder.state_path(round_number - 1), round_number - 1)
    key = site_key(folder, experiment)
    if key is not None:
        count_opening(experiment.name, folder.run_id, key.public)
    apply_sum(folder, context, round_number, sorted(counted), key)
    return stage_result(site, "decrypt", started)


def apply_sum(
    folder: RunFolder,
    run: RunContext,
    round_number: int,
    responded: Sequence[str],
    key: SecretContext | None = None,
) -> None:
    """Make the round's state from the last one and the round's sum, and write it.

    Args:
        folder: the run's.
        run: what is known of it.
        round_number: of the round whose sum it is.
        responded: the sites whose payloads are in the sum.
        key: what opens the sum, where it is not in the clear.

    Raises:
        ConsiliumError: a file is missing or damaged, or the state is that of another round.
    """
    state = read_state(folder.state_path(round_number - 1), round_number - 1)
    memory = read_memory(folder.server_path(round_number - 1))
    total = read_payload(folder.sum_path(round_number))
    who = run.participation(responded)
    state, memory = next_state(RoundContext(run, state), memory, total, key, who)
    path, memory_path = folder.state_path(round_number), folder.server_path(round_number)
    write_outcome(path, state, memory_path, memory)
