"""How updates become the next state: compress, protect, add, and apply the sum.

Sites compress and protect; the coordinator adds; and whoever may know the sum applies it. With a
protection that has a key those are the sites alone, each for itself; here one of them does it for
all, since the state that comes of it is the same everywhere.
"""

import time
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Final

from torch import nn

from federated.configuration.experiment import Experiment
from federated.errors import ConsiliumError
from federated.protection import Protection
from federated.protection.homomorphic import CiphertextSums
from federated.protection.keys import (
    PublicContext,
    SecretContext,
    count_opening,
    erase_keys,
    key_folder,
    new_key,
    read_public,
    read_secret,
)
from federated.protection.parameters import Parameters
from federated.protection.secagg.protocol import Round
from federated.protection.secagg_plus import Masking
from federated.run.folder import RunFolder
from federated.run.key import public_context
from federated.run.result import StageResult, stage_result
from federated.run.update_files import (
    pack_compressed,
    pack_memory,
    read_compressed,
    read_layout,
    read_memory,
    read_payload,
    read_state,
    read_update,
    write_memory,
    write_packed,
    write_payload,
    write_state,
)
from federated.secrets.home import refuse_shared
from federated.site.releases import Parts, arrays_digest, site_releases, state_digest
from federated.stages.agreement import agreed, sent_groups, sent_length
from federated.stages.coordinator import choose_sites, participation
from federated.stages.privacy_report import spent_so_far
from federated.stages.private_release import (
    begin_release,
    largest_noise,
    noisy_grid,
    refuse_too_little_noise,
    release_sources,
)
from federated.stages.secagg import agreed_round, masking
from federated.stages.worker import worker_context
from federated.strategies.base import Server
from federated.training.loop import has_batch_norm
from federated.training.optimization import expected_change, local_work
from federated.update import Arrays, CompressedUpdate, Layout, RoundState

# How many standard deviations of privacy noise a range of quantisation holds from the start.
NOISE_ROOM = 4.0
# What a site writes of a round's compression.
COMPRESSED: Final = "compressed"
RESIDUAL: Final = "residual"


def key_parameters(experiment: Experiment, layout: Layout) -> Parameters:
    """The parameters of the key that fits what an experiment's sites send.

    Raises:
        ConsiliumError: its protection has no key, or no head room.
    """
    protection: Protection = experiment.protection
    if not isinstance(protection, CiphertextSums):
        raise ConsiliumError(
            f"Experiment {experiment.name} has protection.name={experiment.protection.name}, which "
            "has no key. Set protection.name=packed_bfv or ckks."
        )
    return protection.parameters(sent_length(experiment, layout), experiment.cohort())


def write_initial_state(folder: RunFolder, model: nn.Module) -> None:
    """Write what round 1 starts from: the model's weights, and what is agreed on before it."""
    experiment = folder.experiment()
    strategy, partition, training = experiment.strategy, folder.case_counts(), experiment.training
    layout = Layout.of(model, strategy.personal(model))
    weights = layout.flatten(model)
    server = strategy.open_server(weights[layout.shared])
    steps = (
        local_work(partition.cases(site, "train"), training, has_batch_norm(model)).steps
        for site in folder.sites()
    )
    change = expected_change(training, max(steps)) + NOISE_ROOM * largest_noise(folder)
    tensors = len(layout.shared_groups)
    expected = [size for size in strategy.sent_sizes(change) for _ in range(tensors)]
    begun = experiment.compression.open(expected)
    clip = experiment.privacy.agreed_clip()
    begin = RoundState(0, weights, layout, server.broadcast, begun, clip)
    agreed(folder, begin)  # what cannot be agreed on is said before anything is written
    write_memory(folder.server_path(0), server.memory)
    write_state(folder.state_path(0), begin)


def prepare_key(run: Path) -> PublicContext:
    """At a site: take the run's key, or make it; return what the coordinator may have.

    A run that goes on has the key that it had, unless that is lost or made for other rounds.

    Raises:
        ConsiliumError: the keys' folder is inside the run's, or not usable.
    """
    folder = RunFolder(run)
    experiment = folder.experiment()
    layout = read_layout(folder.state_path(folder.done_rounds()))
    parameters = key_parameters(experiment, layout)
    place = key_folder(experiment.name, folder.run_id, parameters)
    refuse_shared(folder.root.parent.parent, place)
    if (place / "context.json").is_file():
        return read_public(place)
    return new_key(experiment.name, folder.run_id, parameters)


def erase_key(run: Path) -> None:
    """At a site, once a run has ended: remove its key, from this process's memory as well."""
    folder = RunFolder(run)
    _secret.cache_clear()
    erase_keys(folder.experiment().name, folder.run_id)


@lru_cache(maxsize=1)
def _secret(experiment: str, run_id: str, public: PublicContext) -> SecretContext:
    return read_secret(experiment, run_id, public)


def _site_key(folder: RunFolder) -> SecretContext | None:
    public = public_context(folder)
    if public is None:
        return None
    return _secret(folder.experiment().name, folder.run_id, public)


def compress_site(run: Path, site: str, round_number: int, weight: float) -> StageResult:
    """Weight the site's update by n_k / Σn, compress it, and keep what is not sent.

    Where the levels get the noise of a privacy they are a release, made once: asked again, the site
    sends what it stored.
    """
    started = time.time()
    folder = RunFolder(run)
    experiment = worker_context(run).experiment
    update = read_update(folder.site_path(round_number, site, "update"))
    state = read_state(folder.state_path(round_number - 1))
    path = folder.latest_memory(site, round_number - 1, RESIDUAL)
    memory = read_memory(path) if path else {}
    known = agreed(folder, state)
    compress = partial(experiment.compression.compress, update, weight, known, memory)
    grid = noisy_grid(folder, sent_length(experiment, state.layout))
    if grid is None:
        parts = _packed(*compress())
    else:
        inputs = {
            "update": arrays_digest({"vector": update.vector}),
            "state": state_digest(state),
            "memory": arrays_digest(memory),
        }
        given = {"weight": weight, "grid": asdict(grid)}
        sources = release_sources(folder, site, round_number, "levels", None, inputs, given)

        def make() -> Parts:
            private = begin_release(folder, site, round_number, None)
            assert private is not None
            return _packed(*compress(partial(grid.levels, random=private.random)))

        parts = site_releases(run, site).once(sources, make)
    if RESIDUAL in parts:
        write_packed(folder.memory_path(round_number, site, RESIDUAL), parts[RESIDUAL])
    write_packed(folder.site_path(round_number, site, COMPRESSED), parts[COMPRESSED])
    return stage_result(
        site,
        "compress",
        started,
        cases=update.cases,
        epsilon=spent_so_far(folder, site) if grid else None,
    )


def _packed(compressed: CompressedUpdate, kept: Arrays) -> Parts:
    parts = {COMPRESSED: pack_compressed(compressed)}
    return parts | {RESIDUAL: pack_memory(kept)} if kept else parts


def protect_site(run: Path, site: str, round_number: int) -> StageResult:
    """Protect the site's compressed update and write the payload that travels."""
    started = time.time()
    folder = RunFolder(run)
    compressed = read_compressed(folder.site_path(round_number, site, COMPRESSED))
    protection: Protection = worker_context(run).experiment.protection
    key: SecretContext | Masking | None = _site_key(folder)
    received = 0
    if protection.masked:
        key, received = masking(folder, site, round_number)
    payload = protection.protect(compressed, key)
    sent = write_payload(folder.site_path(round_number, site, "payload"), payload)
    return stage_result(
        site, "protect", started, cases=compressed.cases, sent=sent, received=received
    )


def decrypt_site(run: Path, site: str, round_number: int, arrived: list[str]) -> StageResult:
    """Open the round's sum, which is that of ``arrived``, with the sites' key, and apply it.

    What is written, for the coordinator to read in this simulation, is flooded already where the
    protection is CKKS.

    Raises:
        ConsiliumError: the sum is of too few sites or of others than those asked, has too little
            noise for its privacy, or the key has opened as many sums as it may.
    """
    started = time.time()
    folder = RunFolder(run)
    experiment = folder.experiment()
    asked = choose_sites(experiment, folder.sites(), round_number)
    counted = experiment.protection.refuse_too_few(site, round_number, asked, arrived)
    refuse_too_little_noise(folder, len(counted))
    key = _site_key(folder)
    if key is not None:
        count_opening(experiment.name, folder.run_id, key.public)
    apply_sum(folder, round_number, sorted(counted), key)
    return stage_result(site, "decrypt", started)


def add_payloads(folder: RunFolder, round_number: int, asked: list[str]) -> None:
    """Add the sites' payloads one after the other, and write the sum.

    One payload and one sum are in memory at a time, however many sites there are; the fixed order
    of sites makes the floating-point sum the same in every run.
    """
    protection: Protection = folder.experiment().protection
    running = None
    length = _summed_length(folder, round_number)
    for site in asked:
        payload = read_payload(folder.site_path(round_number, site, "payload"), length)
        if running is None:
            context = _coordinator_context(folder, round_number)
            running = protection.open_sum(length, round_number, context)
        protection.add(running, payload)
    if running is None:
        raise ConsiliumError(f"No site was asked in round {round_number}.")
    write_payload(folder.sum_path(round_number), protection.close(running))


def _summed_length(folder: RunFolder, round_number: int) -> int:
    """How many numbers the sum of a round has: told by no payload, but by what all agree on."""
    experiment = folder.experiment()
    layout = read_layout(folder.state_path(round_number - 1))
    if experiment.compression.same_positions:
        return sent_length(experiment, layout)
    return sum(sent_groups(experiment, layout))


def download_size(folder: RunFolder, round_number: int) -> int:
    """Bytes of a round that every site downloads: the sum, and before round 1 the initial state."""
    size = folder.sum_path(round_number).stat().st_size
    return size + (folder.state_path(0).stat().st_size if round_number == 1 else 0)


def _coordinator_context(folder: RunFolder, round_number: int) -> PublicContext | Round | None:
    if folder.experiment().protection.masked:
        return agreed_round(folder, round_number)
    return public_context(folder)


def apply_sum(
    folder: RunFolder, round_number: int, asked: list[str], key: SecretContext | None
) -> None:
    """Make the round's state from the last one and the sum."""
    experiment = folder.experiment()
    state = read_state(folder.state_path(round_number - 1))
    total = read_payload(folder.sum_path(round_number))
    protection: Protection = experiment.protection
    numbers = protection.reveal(total, key)
    mean, learned = experiment.compression.expand(numbers, total.weight, agreed(folder, state))
    layout = state.layout
    before = Server(
        state.weights[layout.shared],
        state.broadcast,
        read_memory(folder.server_path(round_number - 1)),
    )
    after = experiment.strategy.server_step(before, mean, participation(folder, experiment, asked))
    weights = state.weights
    weights[layout.shared] = after.weights
    write_memory(folder.server_path(round_number), after.memory)
    clip = state.clip
    if clip is not None:
        clip = experiment.privacy.next_clip(clip, total.below / total.weight)
    path = folder.state_path(round_number)
    write_state(path, RoundState(round_number, weights, layout, after.broadcast, learned, clip))
