"""What a site does in a round: local-train, compress, protect, evaluate.

Each function reads its input from the run's folder and writes its output there, so that only
paths pass between processes and any stage can be run again. They run in worker processes.
"""

import os
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import psutil
from safetensors.numpy import load_file, save_file
from torch import nn

from federated.config import Experiment
from federated.data.dataset import SPLITS, Dataset, Images, Labels, Split
from federated.data.load import load
from federated.data.partition import Partition
from federated.data.scanner import site_images
from federated.errors import ConsiliumError
from federated.files import atomic_path
from federated.metrics import Probabilities
from federated.optimization import local_work
from federated.randomness import derive_seed
from federated.run_folder import RunFolder
from federated.strategies.strategy import SiteStart
from federated.training import choose_device, has_batch_norm, place, predict, train
from federated.update import (
    Arrays,
    ModelUpdate,
    RoundState,
    Vector,
    read_compressed,
    read_memory,
    read_state,
    read_update,
    write_compressed,
    write_memory,
    write_payload,
    write_update,
)
from models import build_model

# The one who trains on all sites' cases where the strategy pools them.
POOLED = "pooled"
# A site's own tensors in its memory.
PERSONAL = "personal"

Stage = Literal["local_train", "compress", "protect", "evaluate"]


@dataclass(frozen=True)
class StageResult:
    """What a stage reports: when it ran (seconds since the epoch), and small numbers."""

    site: str
    stage: Stage
    started: float
    ended: float
    peak_rss_mb: float
    cases: int
    loss: float | None
    size: int


@dataclass(frozen=True)
class _Context:
    """What a worker keeps of a run between stages."""

    experiment: Experiment
    dataset: Dataset
    partition: Partition
    sites: tuple[str, ...]
    model: nn.Module


def new_model(experiment: Experiment, dataset: Dataset) -> nn.Module:
    """The experiment's network with its initial weights."""
    return build_model(
        experiment.model.name,
        channels=dataset.info.channels,
        classes=len(dataset.info.classes),
        dims=dataset.info.dims,
        norm=experiment.model.norm,
        seed=derive_seed(experiment.seed, purpose="initial weights"),
        conv=experiment.model.conv,
        stem=experiment.model.stem,
    )


@lru_cache(maxsize=1)
def _context(run: Path) -> _Context:
    folder = RunFolder(run)
    experiment = folder.experiment()
    dataset = load(folder.data(), experiment.data)
    worker = int(os.environ.get("CONSILIUM_WORKER", "0"))
    model = place(new_model(experiment, dataset), choose_device(experiment.training.device, worker))
    return _Context(experiment, dataset, folder.partition(), tuple(folder.sites()), model)


@lru_cache(maxsize=1024)
def _site_cases(run: Path, site: str, split: Split) -> tuple[Images, Labels]:
    """A site's images and labels; kept, because a scanner profile takes its time.

    :data:`POOLED` is all sites together.
    """
    context = _context(run)
    if site == POOLED:
        parts = [_site_cases(run, one, split) for one in context.sites]
        return np.concatenate([i for i, _ in parts]), np.concatenate([y for _, y in parts])
    return site_images(context.experiment, context.dataset, context.partition, site, split)


def peak_rss_mb() -> float:
    """The largest resident memory of this process so far, in MiB."""
    # psutil has no peak on Linux; the kernel's high-water mark has.
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return float(psutil.Process().memory_info().rss) / 2**20


def _result(
    site: str,
    stage: Stage,
    started: float,
    *,
    cases: int = 0,
    loss: float | None = None,
    size: int = 0,
) -> StageResult:
    return StageResult(site, stage, started, time.time(), peak_rss_mb(), cases, loss, size)


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
    folder, context = RunFolder(run), _context(run)
    experiment, model, strategy = context.experiment, context.model, context.experiment.strategy
    images, labels = _site_cases(run, site, "train")
    state, weights, memory = site_weights_after(folder, round_number - 1, site)
    layout = state.layout
    layout.load(model, weights)
    start = SiteStart(layout, state.broadcast, memory)
    rule = strategy.local_rule(model, start)
    result = train(
        model,
        images,
        labels,
        experiment.training,
        rule,
        seed=experiment.seed,
        round_number=round_number,
        rounds=experiment.rounds,
        site=site,
        device=next(model.parameters()).device,
        classes=len(context.dataset.info.classes),
    )
    trained = layout.flatten(model)
    work = local_work(len(images), experiment.training, has_batch_norm(model))
    update = (trained - weights)[layout.shared]
    sent, kept = strategy.finish_site(update, rule, work, start)
    if layout.personal:
        kept = {**kept, PERSONAL: trained[~layout.shared]}
    if kept:
        write_memory(folder.memory_path(round_number, site), kept)
    write_update(
        folder.site_path(round_number, site, "update"),
        ModelUpdate(site, round_number, len(images), sent),
    )
    return _result(site, "local_train", started, cases=len(images), loss=result.loss)


def compress_site(run: Path, site: str, round_number: int) -> StageResult:
    """Compress the site's update."""
    started = time.time()
    folder = RunFolder(run)
    update = read_update(folder.site_path(round_number, site, "update"))
    compressed = _context(run).experiment.compression.compress(update)
    write_compressed(folder.site_path(round_number, site, "compressed"), compressed)
    return _result(site, "compress", started, cases=update.cases)


def protect_site(run: Path, site: str, round_number: int, weight: float) -> StageResult:
    """Weight the site's compressed update by n_k / Σn and write the payload that travels."""
    started = time.time()
    folder = RunFolder(run)
    compressed = read_compressed(folder.site_path(round_number, site, "compressed"))
    payload = _context(run).experiment.protection.protect(compressed, weight)
    size = write_payload(folder.site_path(round_number, site, "payload"), payload)
    return _result(site, "protect", started, cases=compressed.cases, size=size)


def evaluate_site(run: Path, site: str, round_number: int) -> StageResult:
    """Predict the site's validation and test cases with the weights it has after a round."""
    started = time.time()
    folder, context = RunFolder(run), _context(run)
    state, weights, _ = site_weights_after(folder, round_number, site)
    state.layout.load(context.model, weights)
    device = next(context.model.parameters()).device
    classes = len(context.dataset.info.classes)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for split in SPLITS[1:]:
        images, labels = _site_cases(run, site, split)
        probabilities = predict(context.model, images, device, classes)
        if not np.isfinite(probabilities).all():
            raise ConsiliumError(
                f"The model after round {round_number} predicts no numbers at {site}: training "
                "diverged. Lower training.lr, or strategy.server_lr where the strategy has one."
            )
        arrays[f"{split}.labels"] = labels
        arrays[f"{split}.probabilities"] = probabilities
    with atomic_path(folder.site_path(round_number, site, "predictions")) as temporary:
        save_file(arrays, temporary)
    return _result(site, "evaluate", started)


def read_predictions(
    folder: RunFolder, round_number: int, site: str
) -> dict[Split, tuple[Labels, Probabilities]]:
    """Labels and probabilities that :func:`evaluate_site` wrote, per split."""
    arrays = load_file(folder.site_path(round_number, site, "predictions"))
    return {
        split: (arrays[f"{split}.labels"], arrays[f"{split}.probabilities"]) for split in SPLITS[1:]
    }
