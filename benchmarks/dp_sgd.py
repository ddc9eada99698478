"""What gradients of single cases cost: an epoch of DP-SGD in each mode, beside an ordinary one.

    python benchmarks/dp_sgd.py --model small_cnn --cases 256
    python benchmarks/dp_sgd.py --model dp_resnet --cases 1024

Each mode has a process of its own with one thread, and the epochs take turns, so that what else
the machine does falls on all alike. The ratio is that of the median epochs; the memory is the
largest of the process less what it had before its first step. Images are random numbers. A Poisson
sample has more or fewer cases than an epoch; its seconds are brought to as many.
"""

import argparse
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from multiprocessing import get_context
from typing import Literal, get_args

import numpy as np
import psutil
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from federated.data.cases import LabelledImages
from federated.data.medmnist.files import dataset_info
from federated.data.records import identities
from federated.learning.classification import make_loss
from federated.privacy import DPSGD
from federated.privacy.accounting import Release
from federated.privacy.case_draws import CaseDraws
from federated.privacy.case_gradients import Mode
from federated.privacy.noise import SecretRandom
from federated.run.memory import keep_freed_memory
from federated.settings.networks import DPResNet, SmallCNN
from federated.settings.sections import TrainingSettings
from federated.training.loop import Turn, choose_device, place, train
from federated.training.rule import LocalRule

Network = Literal["small_cnn", "dp_resnet"]
# Whose channels, dimensions and classes the random images have.
SETS: dict[Network, str] = {"small_cnn": "adrenalmnist3d", "dp_resnet": "bloodmnist"}
NETWORKS = {"small_cnn": SmallCNN(), "dp_resnet": DPResNet()}
NONE = "none"


@lru_cache(maxsize=1)
def _prepared(network: Network, cases: int, device: str) -> tuple[nn.Module, LabelledImages]:
    torch.set_num_threads(1)
    keep_freed_memory()  # as workers do
    info = dataset_info(SETS[network])
    channels, dims, classes = info.channels, info.dims, len(info.classes)
    model = NETWORKS[network].build(channels, classes, dims, seed=0)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (cases, channels) + (28,) * dims, dtype=np.uint8)
    labels = rng.integers(0, classes, cases).astype(np.int64)
    return place(model, choose_device(device)), LabelledImages(images, labels)


def epoch(
    network: Network, mode: Mode | str, cases: int, batch: int, device: str
) -> tuple[float, float]:
    """Seconds of an epoch, and the largest growth of this process since before its first, in MiB.

    On a GPU, the latter is what torch has allocated there at most.
    """
    model, drawn = _prepared(network, cases, device)
    settings = TrainingSettings(lr=1e-3, batch_size=batch, device=device)
    make, sampled = None, cases
    if mode != NONE:
        release = Release(1.0, batch / cases, cases // batch)
        private = DPSGD(noise_multiplier=1.0, mode=mode)
        random, names = SecretRandom(bytes(32)), identities(drawn.records)
        draws = CaseDraws(random, names, release.sampling_rate, release.steps)
        sampled = sum(map(len, draws.batches()))
        make = partial(
            private.gradients,
            release=release,
            cases=names,
            clip=private.clip,
            random=random,
        )
    before = _before()
    where = choose_device(device)
    started = time.perf_counter()
    train(
        model,
        drawn,
        settings,
        LocalRule(),
        make_loss(drawn, settings, dataset_info(SETS[network]), where),
        Turn(0, "benchmark", 1, 1),
        private=make,
    )
    if where.type == "cuda":
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) * cases / sampled
    if where.type == "cuda":
        return seconds, torch.cuda.max_memory_allocated() / 2**20
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before


@lru_cache(maxsize=1)
def _before() -> float:
    import opacus.grad_sample  # noqa: F401 (not to be counted as the first epoch's)

    return float(psutil.Process().memory_info().rss / 2**20)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=SETS, default="small_cnn")
    parser.add_argument("--cases", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    given = parser.parse_args()
    modes = (NONE, *get_args(Mode))
    pools = {mode: ProcessPoolExecutor(1, mp_context=get_context("spawn")) for mode in modes}
    found: dict[str, list[tuple[float, float]]] = {mode: [] for mode in modes}
    for _ in range(given.repeats + 1):
        for mode, pool in pools.items():
            arguments = (given.model, mode, given.cases, given.batch, given.device)
            found[mode].append(pool.submit(epoch, *arguments).result())
    title = f"{given.model}, {given.cases} cases in batches of {given.batch}, {given.device}"
    table = Table(title=title)
    for column in ("gradients", "epoch, s", "to ordinary", "peak growth, MiB"):
        table.add_column(column, justify="right" if column != "gradients" else "left")
    # The first epoch of each warms up.
    medians = {mode: statistics.median(s for s, _ in runs[1:]) for mode, runs in found.items()}
    for mode, seconds in medians.items():
        memory = max(growth for _, growth in found[mode])
        ratio = f"{seconds / medians[NONE]:.2f}"
        table.add_row(mode, f"{seconds:.2f}", ratio, f"{memory:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
