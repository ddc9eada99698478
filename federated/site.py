"""What a site does with its own cases in a round: local-train and evaluate."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from federated.agreement import trained_values
from federated.data.dataset import SPLITS, Split
from federated.errors import ConsiliumError
from federated.files import atomic_path
from federated.learning import Arrays as Predictions
from federated.masked_training import MaskedRule
from federated.optimization import local_work
from federated.private_release import begin_release, spent_so_far
from federated.run_folder import RunFolder
from federated.strategies.strategy import SiteStart
from federated.training import has_batch_norm, train
from federated.update import Arrays, ModelUpdate, RoundState, Vector
from federated.update_files import read_memory, read_state, write_memory, write_update
from federated.worker import StageResult, site_cases, stage_result, worker_context

# A site's own tensors in its memory.
PERSONAL = "personal"
# Its clipping norm, where that is its own and changes.
CLIP = "clipping norm"


def site_weights_after(
    folder: RunFolder, round_number: int, site: str
) -> tuple[RoundState, Vector, Arrays]:
    """The state after a round, the weights a site has then, and the site's memory.

    The weights are the global ones with the site's own personal tensors, if it has any yet.
    """
    state = read_state(folder.state_path(round_number))
    path = folder.latest_memory(site, round_number)
    memory = dict(read_memory(path)) if path else {}
    personal = memory.pop(PERSONAL, None)
    weights = state.weights.copy()
    if personal is not None:
        weights[~state.layout.shared] = personal
    return state, weights, memory


def personal_tensors(folder: RunFolder, round_number: int) -> dict[str, dict[str, Vector]]:
    """By site, the tensors in which its model after a round differs from the global one."""
    personal = read_state(folder.state_path(round_number)).layout.personal
    if not personal:
        return {}
    result = {}
    for site in folder.sites():
        state, weights, _ = site_weights_after(folder, round_number, site)
        result[site] = {n: v for n, v in state.layout.split(weights).items() if n in personal}
    return result


def train_site(run: Path, site: str, round_number: int) -> StageResult:
    """Train from the last round's weights; write what is to be sent, and the site's memory.

    The update is Δ_k = w_k − w on the shared values; personal tensors go to the memory.
    """
    started = time.time()
    folder, context = RunFolder(run), worker_context(run)
    experiment, model, strategy = context.experiment, context.model, context.experiment.strategy
    cases = site_cases(run, site, "train")
    state, weights, memory = site_weights_after(folder, round_number - 1, site)
    clip = float(memory[CLIP][0]) if CLIP in memory else state.clip
    # Before anything is computed that leaves the site: from here on it counts as released.
    private = begin_release(folder, site, round_number, clip)
    layout = state.layout
    layout.load(model, weights)
    start = SiteStart(layout, state.broadcast, memory)
    rule = strategy.local_rule(model, start)
    moves = trained_values(folder, state, model)
    device = next(model.parameters()).device
    result = train(
        model,
        cases,
        experiment.training,
        rule if moves is None else MaskedRule(rule, layout, moves),
        context.task.make_loss(cases, experiment.training, context.info, device),
        seed=experiment.seed,
        round_number=round_number,
        rounds=experiment.rounds,
        site=site,
        device=device,
        private=private.make_gradients(len(cases)) if private else None,
    )
    trained = layout.flatten(model)
    work = local_work(len(cases), experiment.training, has_batch_norm(model))
    change = trained - weights
    if moves is not None:
        change[~moves] = 0  # weight decay touches every value
    update = change[layout.shared]
    sent, kept = strategy.finish_site(update, rule, work, start)
    below = 0.0
    if private:
        sent, below = private.protect_update(sent)
    if result.clip is not None:
        # An outcome of the mechanism, as the update is: it tells no more.
        kept = {**kept, CLIP: np.array([result.clip], np.float32)}
    if layout.personal:
        kept = {**kept, PERSONAL: trained[~layout.shared]}
    if kept:
        write_memory(folder.memory_path(round_number, site), kept)
    write_update(
        folder.site_path(round_number, site, "update"),
        ModelUpdate(site, round_number, len(cases), sent, below),
    )
    return stage_result(
        site,
        "local_train",
        started,
        cases=len(cases),
        # Of a private site, the loss would be a release that nobody accounts for.
        loss=None if private else result.loss,
        epsilon=spent_so_far(folder, site) if private else None,
    )


def evaluate_site(run: Path, site: str, round_number: int) -> StageResult:
    """Predict the site's validation and test cases with the weights it has after a round."""
    started = time.time()
    folder, context = RunFolder(run), worker_context(run)
    state, weights, _ = site_weights_after(folder, round_number, site)
    state.layout.load(context.model, weights)
    device = next(context.model.parameters()).device
    arrays: dict[str, npt.NDArray[Any]] = {}
    for split in SPLITS[1:]:
        found = context.task.predict(
            context.model, site_cases(run, site, split), device, context.info
        )
        if not all(np.isfinite(values).all() for values in found.values()):
            raise ConsiliumError(
                f"The model after round {round_number} predicts no numbers at {site}: training "
                "diverged. Lower training.lr, or strategy.server_lr where the strategy has one."
            )
        arrays |= {f"{split}.{name}": values for name, values in found.items()}
    with atomic_path(folder.site_path(round_number, site, "predictions")) as temporary:
        save_file(arrays, temporary)
    return stage_result(site, "evaluate", started)


def read_predictions(folder: RunFolder, round_number: int, site: str) -> dict[Split, Predictions]:
    """What :func:`evaluate_site` wrote, per split."""
    arrays = load_file(folder.site_path(round_number, site, "predictions"))
    return {
        split: {
            name.removeprefix(f"{split}."): values
            for name, values in arrays.items()
            if name.startswith(f"{split}.")
        }
        for split in SPLITS[1:]
    }
