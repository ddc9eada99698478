"""local-train: what a site does with its own cases in a round."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from torch import nn

from federated.data.cases import Cases
from federated.errors import ConsiliumError, RefusalError
from federated.rounds.local_training import (
    CLIP,
    LocalTask,
    PrivateRound,
    round_steps,
    train_round,
)
from federated.run.result import stage_result
from federated.run.timing import Laps
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
from federated.training.loop import Steps, take_all
from federated.training.stacked import take_together
from federated.update import Arrays, ModelUpdate, Vector

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
    take_all(_site_steps(call, round_number, None, Laps()))


def train_sites(calls: Sequence[SiteCall], round_number: int) -> dict[str, ConsiliumError]:
    """Train at several simulated sites at once, each as :func:`train_site` does.

    Each site has its own network, cases, generator and home. Of the steps that are due at the same
    time, those whose batches have one shape are computed in one call.

    Returns:
        The sites at which it failed, each with what :func:`train_site` raises.
    """
    laps = Laps()
    trainings = {
        call.site: _site_steps(call, round_number, place, laps) for place, call in enumerate(calls)
    }
    ended = take_together(trainings)
    return {site: end for site, end in ended.items() if isinstance(end, ConsiliumError)}


def _site_steps(call: SiteCall, round_number: int, place: int | None, laps: Laps) -> Steps[None]:
    """The steps of a site's training, which ends with its files and what it tells.

    Args:
        call: which site it is.
        round_number: the round.
        place: of the site among those that are trained at once; ``None`` where it is alone.
        laps: the times of the sites that are trained at once.

    Raises:
        ConsiliumError: as :func:`train_site` does; or a site of a private run is not alone.
    """
    site = open_site(call)
    opened, worker = open_round(site, round_number), worker_context(site)
    model = worker.network(place or 0)
    context = opened.context
    state, privacy = context.state, context.experiment.privacy
    if privacy.unit is not None and place is not None:
        raise RefusalError(f"{site.name} trains alone in a private run, and not with other sites.")
    settle(site, round_number - 1, opened.plan)
    cases = site_cases(site, "train")
    if not len(cases):
        raise ConsiliumError(
            f"{site.name} has no training cases, so it cannot train in round {round_number}. Give "
            "it some, or leave the site out of the run; with sites.on_dropout=continue the others "
            "go on without it."
        )
    memory = site_memory(site, round_number - 1)
    clip = float(memory[CLIP][0]) if CLIP in memory else state.clip
    moves = context.trained_values(model)
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
    task = local_task(worker, model, cases, partial(other_styles, site))
    releases = ReleaseStore(site.store.releases, site.home.root)

    def entered() -> PrivateRound | None:
        # Before anything is computed that leaves the site: from here on it counts as released.
        return None if privacy.noise_in_sum else begin_release(site, context, cases.records, clip)

    def make() -> Parts:
        update, kept, _ = train_round(task, start, moves, entered())
        return _packed(update, kept)

    loss = None
    if privacy.unit is None:
        update, kept, loss = yield from round_steps(task, start, moves, entered())
        parts = _packed(update, kept)
    elif privacy.noise_in_sum:
        # The noise is added to the quantised values. An attempt at a round has values of its own.
        releases.forget(round_number, "quantised")
        parts = make()
    else:
        inputs = {"state": state_digest(state), "memory": arrays_digest(memory)}
        if moves is not None:
            inputs["moves"] = arrays_digest({"moves": moves})
        sources = release_sources(site, context, cases.records, "update", clip, inputs)
        # Of a private site, the loss would be a release that nobody accounts for.
        parts = releases.once(sources, make)
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
            laps.next(),
            cases=len(cases),
            loss=loss,
            received=received,
            epsilon=spent_so_far(site) if privacy.unit and not privacy.noise_in_sum else None,
        ),
    )


def _packed(update: ModelUpdate, kept: Arrays) -> Parts:
    parts = {UPDATE: pack_update(update)}
    return parts | {MEMORY: pack_memory(kept)} if kept else parts


def local_task(
    worker: WorkerContext,
    model: nn.Module,
    cases: Cases,
    styles: Callable[[], Sequence[Vector]],
) -> LocalTask:
    """What a worker trains ``model`` with at a site; ``styles`` reads those of the other sites."""
    experiment = worker.experiment
    device = next(model.parameters()).device
    loss = worker.task.make_loss(cases, experiment.training, worker.info, device)
    return LocalTask(experiment, model, cases, loss, styles)
