"""A federation of two small sites, run by the stage functions themselves: no server, no pool."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from federated.configuration.experiment import Experiment
from federated.configuration.load import resolve
from federated.data.load import load, locate
from federated.data.partitioning import partition_dataset
from federated.files import write_json
from federated.rounds.participation import site_weights
from federated.run.folder import RunFolder
from federated.run.prepared import partition_inputs
from federated.run.runs import new_run
from federated.run.update_files import read_state, write_state
from federated.stages.aggregate import add_payloads, apply_sum
from federated.stages.begin import write_initial_state
from federated.stages.compress import compress_site
from federated.stages.context import read_run
from federated.stages.local_train import train_site
from federated.stages.privacy import plan_site
from federated.stages.protect import protect_site
from federated.stages.secagg import (
    advertise_site,
    answer_site,
    relay_keys,
    relay_responded,
    relay_shares,
    share_site,
    unmask_sum,
)
from federated.stages.worker import worker_context
from federated.weights.build import new_model

CASES = {"train": 24, "val": 8, "test": 8}
ROUNDS = 2


def small_images(root: Path) -> Path:
    """BloodMNIST's schema with a few noisy images; eight classes, by brightness."""
    rng = np.random.default_rng(0)
    path = root / "data" / "medmnist" / "bloodmnist.npz"
    path.parent.mkdir(parents=True)
    arrays = {}
    for split, count in CASES.items():
        labels = (np.arange(count) % 8).astype(np.uint8)
        noise = rng.integers(0, 40, (count, 28, 28, 3))
        arrays[f"{split}_images"] = (noise + 25 * labels[:, None, None, None]).astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None]
    np.savez(path, **arrays)
    return root / "data"


def small_experiment(data: Path, **sections: Any) -> Experiment:
    """Two sites, two rounds of one epoch of SGD.

    Raises:
        ConsiliumError: the sections do not go together.
    """
    value: dict[str, Any] = {
        "rounds": ROUNDS,
        "data": {"dataset": "bloodmnist", "source": "files", "root": str(data)},
        "sites": {"count": 2, "partition": "iid", "min_cases": 2},
        "training": {"lr": 0.1, "batch_size": 6, "device": "cpu", "optimizer": "sgd"},
        "selection": {"metric": "val/loss", "keep": "last"},
        "compression": {"name": "none"},
        "protection": {"name": "plain"},
        "privacy": {"name": "none"},
        "strategy": {"name": "fedavg"},
        "runner": {"name": "processes"},
    }
    return resolve("small", value | sections, "a test")


def begin(experiment: Experiment, runs: Path) -> RunFolder:
    """A new run's folder, before the first round."""
    folder = new_run(runs, experiment)
    located = locate(experiment.data)
    dataset = load(located, experiment.data)
    partition = partition_dataset(dataset, experiment.sites, 0)
    folder.write_partition(partition, partition_inputs(experiment, located, located.md5))
    folder.write_inputs(experiment, located, ())
    worker_context.cache_clear()
    if experiment.privacy.unit:
        write_json(folder.privacy_path, {s: plan_site(folder.root, s) for s in folder.sites()})
    write_initial_state(folder, new_model(experiment, dataset.info))
    return folder


def play_round(folder: RunFolder, number: int) -> None:
    """One round at all sites, up to the state that comes of it."""
    run, sites = folder.root, folder.sites()
    masked = folder.experiment().protection.masked
    if masked:
        _exchange_keys(folder, number, sites)
    weights = site_weights(folder.partition(), sites)
    for site in sites:
        train_site(run, site, number)
        compress_site(run, site, number, weights[site])
        protect_site(run, site, number)
    add_payloads(folder, read_run(folder), number, sites)
    if masked:
        relay_responded(folder, read_run(folder), number, sites)
        for site in sites:
            answer_site(run, site, number)
        unmask_sum(folder, read_run(folder), number, sites)
    apply_sum(folder, read_run(folder), number, sites)


def start_again(folder: RunFolder, number: int) -> None:
    """Let the next round start from the initial weights, as if no round's noise were in them."""
    first = read_state(folder.state_path(0))
    write_state(folder.state_path(number), replace(first, round_number=number))
    folder.server_path(number).write_bytes(folder.server_path(0).read_bytes())


def _exchange_keys(folder: RunFolder, number: int, sites: Sequence[str]) -> None:
    for site in sites:
        advertise_site(folder.root, site, number)
    relay_keys(folder, read_run(folder), number, sites)
    for site in sites:
        share_site(folder.root, site, number)
    relay_shares(folder, read_run(folder), number, sites)
