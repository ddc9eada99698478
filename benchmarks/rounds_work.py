"""The work of ``benchmarks.rounds`` as this project deals it, and the metric of who has done it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.peers.work import Weights, Work, load, write_weights
from federated.configuration.experiment import Experiment
from federated.configuration.load import load_experiment
from federated.data.dataset import SPLITS, Dataset
from federated.data.load import load as load_data
from federated.data.load import locate
from federated.data.medmnist.files import file_name
from federated.data.partition import Partition
from federated.data.partitioning import partition_dataset
from federated.errors import ConsiliumError
from federated.learning.classification import predict
from federated.learning.classification_metrics import auc
from federated.randomness import derive_seed
from federated.weights.build import new_model

EXPERIMENT = "adrenal"
# Beside what params.yaml says of the experiment.
SETTINGS = (
    "training.batch_size=32",
    "training.local_epochs=1",
    "training.schedule=constant",
    "training.device=cpu",
    "sites.beta=0.5",
)


@dataclass(frozen=True)
class Dealt:
    """The experiment, its data and partition; ``sets`` are what the experiment was made with."""

    experiment: Experiment
    sets: tuple[str, ...]
    dataset: Dataset
    partition: Partition
    source: str

    def auc(self, weights: Weights) -> float:
        """The AUC of weights on the test cases of all sites together."""
        model = new_model(self.experiment, self.dataset.info)
        load(model, weights)
        indices = [i for site in self.partition.sites.values() for i in site["test"]]
        images = self.dataset.images["test"][indices]
        found = predict(model, images, torch.device("cpu"), len(self.dataset.info.classes))
        area = auc(self.dataset.labels["test"][indices], found)
        if area is None:
            raise ConsiliumError("The test cases are all of one class, so there is no AUC.")
        return area


def update(before: Weights, after: Weights) -> np.ndarray:
    """What has been added to the floating-point weights, in the order of their names."""
    names = sorted(name for name, value in before.items() if value.dtype.kind == "f")
    return np.concatenate(
        [(after[name].astype(np.float64) - before[name]).ravel() for name in names]
    )


def deal(sets: Sequence[str], params: Path) -> Dealt:
    """Read the data and deal them to the sites.

    Raises:
        ConsiliumError: the data cannot be had, or not be dealt so.
    """
    given = (*SETTINGS, *sets)
    experiment = load_experiment(EXPERIMENT, given, params)
    located = locate(experiment.data)
    dataset = load_data(located, experiment.data)
    assert isinstance(dataset, Dataset)
    partition = partition_dataset(dataset, experiment.sites, experiment.seed)
    return Dealt(experiment, given, dataset, partition, located.source)


def write_work(dealt: Dealt, folder: Path) -> Work:
    """Write the cases of each site, the initial weights and what is drawn, for all contestants."""
    experiment, dataset = dealt.experiment, dealt.dataset
    names = tuple(dealt.partition.sites)
    folder.mkdir(parents=True, exist_ok=True)
    for site, splits in dealt.partition.sites.items():
        for split in SPLITS:
            chosen = list(splits[split])
            np.savez(
                folder / f"{site}.{split}.npz",
                images=dataset.images[split][chosen],
                labels=dataset.labels[split][chosen],
            )
    model = new_model(experiment, dataset.info)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    write_weights(folder / "initial.npz", state)
    training, rounds = experiment.training, range(1, experiment.rounds + 1)
    work = Work(
        folder=str(folder),
        rounds=experiment.rounds,
        sites=names,
        sizes=tuple(len(splits["train"]) for splits in dealt.partition.sites.values()),
        seeds=tuple(
            tuple(
                derive_seed(experiment.seed, purpose="local training", round_number=n, site=site)
                for site in names
            )
            for n in rounds
        ),
        network={
            "channels": dataset.info.channels,
            "classes": len(dataset.info.classes),
            "dims": dataset.info.dims,
            "norm": experiment.model.norm,
        },
        batch_size=training.batch_size,
        lr=training.lr,
        weight_decay=training.weight_decay,
    )
    work.write()
    return work


def cut_data(root: Path, target: Path, cases: int) -> tuple[str, ...]:
    """Put the first cases of the data set's file below ``target``; return the settings for them.

    Of each split there are so many cases as it has for ``cases`` of training.

    Raises:
        ConsiliumError: there is no such file, and none could be generated.
    """
    experiment = load_experiment(EXPERIMENT, [f"data.root={root}", "data.source=auto"])
    located = locate(experiment.data, download=False)
    path = target / "medmnist" / file_name(experiment.data.dataset, experiment.data.size)
    path.parent.mkdir(parents=True, exist_ok=True)
    with np.load(located.path) as file:
        whole = len(file["train_labels"])
        np.savez(
            path,
            **{name: file[name][: max(8, len(file[name]) * cases // whole)] for name in file.files},
        )
    return (f"data.root={target}", "data.source=files")
