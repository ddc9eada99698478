"""What a site does with its own cases in a round: local-train and evaluate."""

import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from federated.configuration.experiment import Experiment
from federated.data.cases import Cases
from federated.data.dataset import SPLITS, Split
from federated.errors import ConsiliumError
from federated.files import PRIVATE, atomic_path
from federated.learning import Arrays as Predictions
from federated.privacy.site_level import finite_or_zero
from federated.randomness import torch_generator
from federated.run.folder import RunFolder
from federated.run.result import StageResult, stage_result
from federated.run.update_files import (
    pack_memory,
    pack_update,
    read_arrays,
    read_memory,
    read_state,
    write_packed,
)
from federated.site.releases import Parts, arrays_digest, site_releases, state_digest
from federated.stages.agreement import trained_values
from federated.stages.entering import enter_evaluation
from federated.stages.privacy_report import spent_so_far
from federated.stages.private_release import PrivateRound, begin_release, release_sources
from federated.stages.share_style import other_styles, received_styles
from federated.stages.worker import site_cases, worker_context
from federated.strategies.base import SiteStart
from federated.training.loop import LocalResult, has_batch_norm, train
from federated.training.masked_rule import MaskedRule
from federated.training.objective import Loss
from federated.training.optimization import local_work
from federated.training.rule import LocalData, LocalRule
from federated.update import Arrays, Flags, ModelUpdate, RoundState, Vector

# In a site's memory, its clipping norm, where that is its own and changes.
CLIP = "clipping norm"
# What a site writes of a round's training.
UPDATE, MEMORY = "update", "memory"


def site_weights_after(
    folder: RunFolder, round_number: int, site: str
) -> tuple[RoundState, Vector]:
    """The state after a round, and the weights of a site's own model then."""
    state = read_state(folder.state_path(round_number))
    memory = site_memory(folder, round_number, site)
    strategy = worker_context(folder.root).experiment.strategy
    return state, strategy.own_weights(state.weights, state.layout, memory)


def site_memory(folder: RunFolder, round_number: int, site: str) -> Arrays:
    """What a site has kept until after a round; empty where that is nothing."""
    path = folder.latest_memory(site, round_number)
    return read_memory(path) if path else {}


def personal_tensors(folder: RunFolder, round_number: int) -> dict[str, dict[str, Vector]]:
    """By site, the tensors in which sites' models after a round differ from the global one.

    The same tensors for all sites; empty where every site has the global model.
    """
    state = read_state(folder.state_path(round_number))
    layout, strategy = state.layout, folder.experiment().strategy
    common, names, own = layout.split(state.weights), set(layout.personal), {}
    for site in folder.sites():
        memory = site_memory(folder, round_number, site)
        weights = strategy.own_weights(state.weights, layout, memory)
        own[site] = layout.split(weights)
        if weights is not state.weights:
            names |= {n for n, value in own[site].items() if (value != common[n]).any()}
    if not names:
        return {}
    return {site: {n: v for n, v in parts.items() if n in names} for site, parts in own.items()}


def train_site(run: Path, site: str, round_number: int) -> StageResult:
    """Train from the last round's weights; write what is to be sent, and the site's memory.

    The update is Δ_k = w_k − w on the shared values, where w are the global weights. Where it gets
    the noise of a privacy it is a release, made once: asked again, the site sends what it stored.
    """
    started = time.time()
    folder, context = RunFolder(run), worker_context(run)
    privacy = context.experiment.privacy
    state = read_state(folder.state_path(round_number - 1))
    memory = site_memory(folder, round_number - 1, site)
    clip = float(memory[CLIP][0]) if CLIP in memory else state.clip
    moves = trained_values(folder, state, context.model)
    start = SiteStart(
        state.layout,
        state.weights,
        state.broadcast,
        memory,
        site,
        round_number,
        context.experiment.rounds,
    )
    loss = None
    if privacy.unit is None:
        parts, loss = _train(folder, start, moves, clip)
    elif privacy.noise_in_sum:
        # The noise is added to the levels. An attempt at a round has levels of its own.
        site_releases(run, site).forget(round_number, "levels")
        parts, _ = _train(folder, start, moves, clip)
    else:
        inputs = {"state": state_digest(state), "memory": arrays_digest(memory)}
        if moves is not None:
            inputs["moves"] = arrays_digest({"moves": moves})
        sources = release_sources(folder, site, round_number, "update", clip, inputs)
        # Of a private site, the loss would be a release that nobody accounts for.
        parts = site_releases(run, site).once(
            sources, lambda: _train(folder, start, moves, clip)[0]
        )
    if MEMORY in parts:
        write_packed(folder.memory_path(round_number, site), parts[MEMORY])
    write_packed(folder.site_path(round_number, site, UPDATE), parts[UPDATE])
    return stage_result(
        site,
        "local_train",
        started,
        cases=len(site_cases(run, site, "train")),
        loss=loss,
        received=received_styles(folder, site, round_number),
        epsilon=spent_so_far(folder, site) if privacy.unit and not privacy.noise_in_sum else None,
    )


def _train(
    folder: RunFolder, start: SiteStart, moves: Flags | None, clip: float | None
) -> tuple[Parts, float | None]:
    """The files of a site's update and memory of a round, and the loss of its training."""
    context = worker_context(folder.root)
    experiment, strategy = context.experiment, context.experiment.strategy
    site, round_number, layout = start.name, start.round_number, start.layout
    cases = site_cases(folder.root, site, "train")
    private = None
    if not experiment.privacy.noise_in_sum:
        # Before anything is computed that leaves the site: from here on it counts as released.
        private = begin_release(folder, site, round_number, clip)
    result, ended, rules = _train_passes(folder, start, cases, moves, private)
    change = ended[-1] - start.weights
    if moves is not None:
        change[~moves] = 0  # weight decay touches every value
    work = local_work(len(cases), experiment.training, has_batch_norm(context.model))
    sent, kept = strategy.finish_site(change[layout.shared], rules[-1], work, start)
    kept = {**kept, **strategy.keep(ended, rules, start)}
    below = 0.0
    if private:
        sent, below = private.protect_update(sent)
    elif experiment.privacy.noise_in_sum:
        sent = finite_or_zero(sent)
    if result.clip is not None:
        # An outcome of the mechanism, as the update is: it tells no more.
        kept[CLIP] = np.array([result.clip], np.float32)
    update = ModelUpdate(site, round_number, len(cases), sent, below)
    parts = {UPDATE: pack_update(update)}
    if kept:
        parts[MEMORY] = pack_memory(kept)
    return parts, result.loss


def _train_passes(
    folder: RunFolder,
    start: SiteStart,
    cases: Cases,
    moves: Flags | None,
    private: PrivateRound | None,
) -> tuple[LocalResult, list[Vector], list[LocalRule]]:
    """Train what the strategy says, in order: how the last pass went, the weights and rules of all.

    ``moves`` are the values that the last pass may move, which is the one that is sent.
    """
    context = worker_context(folder.root)
    experiment, model, layout = context.experiment, context.model, start.layout
    settings, device = experiment.training, next(model.parameters()).device
    loss = context.task.make_loss(cases, settings, context.info, device)
    passes = experiment.strategy.passes(start)
    ended: list[Vector] = []
    rules: list[LocalRule] = []
    for number, one in enumerate(passes):
        if one.weights is not None:
            layout.load(model, one.weights)
        last = number == len(passes) - 1
        rule = one.rule(model)
        own = {"local_epochs": one.epochs, "local_steps": None} if one.epochs else {}
        result = train(
            model,
            cases,
            settings.model_copy(update=own),
            rule if moves is None or not last else MaskedRule(rule, layout, moves),
            loss,
            seed=experiment.seed,
            round_number=start.round_number,
            rounds=start.rounds,
            site=start.name,
            # The passes before the last draw other batches.
            purpose="local training" if last else f"local training, pass {number}",
            device=device,
            private=private.make_gradients(cases) if private else None,
            # Of a private site even that it stopped would be told.
            stop_diverged=experiment.privacy.unit is None,
        )
        rule.look(model, local_data(folder, experiment, start, cases, loss, device))
        ended.append(layout.flatten(model))
        rules.append(rule)
    return result, ended, rules


def local_data(
    folder: RunFolder,
    experiment: Experiment,
    start: SiteStart,
    cases: Cases,
    loss: Loss,
    device: torch.device,
) -> LocalData:
    """A site's training cases, as a strategy looks at them; ``folder`` has the others' styles."""
    generator = torch_generator(
        experiment.seed, purpose="a look", round_number=start.round_number, site=start.name
    )

    def take(indices: Tensor) -> tuple[Tensor, Tensor]:
        images, targets = cases.take(indices, experiment.training, generator)
        return images.to(device), targets.to(device)

    styles = partial(other_styles, folder, start.name)
    drawn = experiment.training.drawn(len(cases))
    return LocalData(len(cases), drawn, take, loss, generator, styles)


def evaluate_site(run: Path, site: str, round_number: int) -> StageResult:
    """Predict the site's validation and test cases with the weights it has after a round."""
    started = time.time()
    folder, context = RunFolder(run), worker_context(run)
    enter_evaluation(run, site, round_number)
    state, weights = site_weights_after(folder, round_number, site)
    state.layout.load(context.model, weights)
    arrays = {
        f"{split}.{name}": values
        for split, found in predict_splits(run, site).items()
        for name, values in found.items()
    }
    path = folder.site_path(round_number, site, "predictions")
    with atomic_path(path, PRIVATE) as temporary:
        save_file(arrays, temporary)
    return stage_result(site, "evaluate", started)


def predict_splits(run: Path, site: str) -> dict[Split, Predictions]:
    """What the worker's model, as it is, predicts of the site's validation and test cases.

    Raises:
        ConsiliumError: something that is no number.
    """
    context = worker_context(run)
    device = next(context.model.parameters()).device
    predictions: dict[Split, Predictions] = {}
    for split in SPLITS[1:]:
        cases = site_cases(run, site, split)
        found = context.task.predict(context.model, cases, device, context.info)
        if not all(np.isfinite(values).all() for values in found.values()):
            raise ConsiliumError(
                f"The model predicts no numbers at {site}: training diverged. Lower training.lr, "
                "or strategy.server_lr where the strategy has one."
            )
        predictions[split] = found
    return predictions


def read_predictions(folder: RunFolder, round_number: int, site: str) -> dict[Split, Predictions]:
    """What :func:`evaluate_site` wrote, per split.

    Raises:
        ConsiliumError: it is missing or damaged.
    """
    arrays = read_arrays(folder.site_path(round_number, site, "predictions"), "predictions")
    return {
        split: {
            name.removeprefix(f"{split}."): values
            for name, values in arrays.items()
            if name.startswith(f"{split}.")
        }
        for split in SPLITS[1:]
    }
