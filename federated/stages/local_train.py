"""local-train: what a site does with its own cases in a round."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from federated.data.cases import Cases
from federated.errors import ConsiliumError
from federated.rounds.local_training import CLIP, LocalTask, train_round
from federated.run.result import stage_result
from federated.run.update_files import pack_memory, pack_update, write_packed
from federated.site.releases import Parts, ReleaseStore, arrays_digest, state_digest
from federated.stages.privacy_report import spent_so_far
from federated.stages.private_release import begin_release, release_sources
from federated.stages.report import tell
from federated.stages.share_style import other_styles, receive_styles
from federated.stages.site import SiteCall, open_round, open_site, settle
from federated.stages.site_model import site_memory
from federated.stages.worker import WorkerContext, site_cases, worker_context
from federated.strategies.base import SiteStart
from federated.update import Vector

# What a site writes of a round's training.
UPDATE: Final = "update"
MEMORY: Final = "memory"


def train_site(call: SiteCall, round_number: int) -> None:
    """Train from the round's state; keep what is to be sent, and the site's memory, in its home.

    The update is Δ_k = w_k − w on the shared values, where w are the global weights. Where it gets
    the noise of a privacy it is a release, which is made once: if it is asked again, the site sends
    what it stored.

    Raises:
        ConsiliumError: the site does not take part in the round or has no training cases, the loss
            is no longer finite, or the release would pass a budget.
    """
    started = time.time()
    site = open_site(call)
    opened, worker = open_round(site, round_number), worker_context(site)
    settle(site, round_number - 1, opened.plan)
    context = opened.context
    state, privacy = context.state, context.experiment.privacy
    cases = site_cases(site, "train")
    if not len(cases):
        raise ConsiliumError(
            f"{site.name} has no training cases, so it cannot train in round {round_number}. Give "
            "it some, or leave the site out of the run; with sites.on_dropout=continue the others "
            "go on without it."
        )
    memory = site_memory(site, round_number - 1)
    clip = float(memory[CLIP][0]) if CLIP in memory else state.clip
    moves = context.trained_values(worker.model)
    start = SiteStart(
        state.layout,
        state.weights,
        state.broadcast,
        memory,
        site.name,
        round_number,
        context.experiment.rounds,
    )
    received = receive_styles(site, round_number)
    task = local_task(worker, cases, partial(other_styles, site))
    releases = ReleaseStore(site.store.releases, site.home.root)

    def make() -> tuple[Parts, float | None]:
        private = None
        if not privacy.noise_in_sum:
            # Before anything is computed that leaves the site: from here on it counts as released.
            private = begin_release(site, context, cases.records, clip)
        update, kept, loss = train_round(task, start, moves, private)
        parts = {UPDATE: pack_update(update)}
        return (parts | {MEMORY: pack_memory(kept)} if kept else parts), loss

    loss = None
    if privacy.unit is None:
        parts, loss = make()
    elif privacy.noise_in_sum:
        # The noise is added to the quantised values. An attempt at a round has values of its own.
        releases.forget(round_number, "quantised")
        parts, _ = make()
    else:
        inputs = {"state": state_digest(state), "memory": arrays_digest(memory)}
        if moves is not None:
            inputs["moves"] = arrays_digest({"moves": moves})
        sources = release_sources(site, context, cases.records, "update", clip, inputs)
        # Of a private site, the loss would be a release that nobody accounts for.
        parts = releases.once(sources, lambda: make()[0])
    if MEMORY in parts:
        write_packed(site.store.memory_path(round_number), parts[MEMORY])
    path = site.store.work_path(round_number, UPDATE)
    write_packed(path, parts[UPDATE], durable=not site.ends_with_its_run)
    tell(
        site,
        round_number,
        stage_result(
            site.name,
            "local_train",
            started,
            cases=len(cases),
            loss=loss,
            received=received,
            epsilon=spent_so_far(site) if privacy.unit and not privacy.noise_in_sum else None,
        ),
    )


def local_task(
    worker: WorkerContext, cases: Cases, styles: Callable[[], Sequence[Vector]]
) -> LocalTask:
    """What a worker trains with at a site; ``styles`` reads the styles of the other sites."""
    experiment, model = worker.experiment, worker.model
    device = next(model.parameters()).device
    loss = worker.task.make_loss(cases, experiment.training, worker.info, device)
    return LocalTask(experiment, model, cases, loss, styles)
