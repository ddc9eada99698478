"""The work that every contestant does, as a folder of files and the functions that read it.

Needs torch and NumPy alone: peers run it in environments that have nothing of this project but the
folder of its code. The network is this project's own file; batches and augmentation are drawn as
``federated.training.loop`` draws them, from the same seeds, so that all contestants come to the
same weights but for the order of sums.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.small_cnn import SmallCNN

Weights = dict[str, npt.NDArray[np.float32]]
# As the project evaluates.
EVALUATION_BATCH = 128


@dataclass(frozen=True)
class Work:
    """What is to be done.

    Args:
        folder: where the cases of the sites and the initial weights lie.
        rounds: how many.
        sites: their names, in order.
        sizes: how many training cases each has.
        seeds: for each round and site, what its batches are drawn from.
        network: the arguments of the network.
        batch_size: of training.
        lr: of AdamW.
        weight_decay: of AdamW.
    """

    folder: str
    rounds: int
    sites: tuple[str, ...]
    sizes: tuple[int, ...]
    seeds: tuple[tuple[int, ...], ...]
    network: Mapping[str, Any]
    batch_size: int
    lr: float
    weight_decay: float

    def write(self) -> None:
        """Write all but the arrays into the folder."""
        (Path(self.folder) / "work.json").write_text(json.dumps(asdict(self)))

    @staticmethod
    def read(folder: Path) -> "Work":
        """Read what :meth:`write` wrote."""
        told = json.loads((folder / "work.json").read_text())
        for key in ("sites", "sizes"):
            told[key] = tuple(told[key])
        told["seeds"] = tuple(tuple(row) for row in told["seeds"])
        return Work(**{**told, "folder": str(folder)})

    def initial(self) -> Weights:
        """The weights that training begins with."""
        return read_weights(Path(self.folder) / "initial.npz")

    def model(self) -> nn.Module:
        """The network with its initial weights."""
        model = SmallCNN(**self.network)
        load(model, self.initial())
        return model

    def optimizer(self, model: nn.Module, *, fused: bool = False) -> torch.optim.Optimizer:
        """AdamW over all parameters; torch chooses how it is computed unless it is ``fused``."""
        return torch.optim.AdamW(
            model.parameters(), lr=self.lr, weight_decay=self.weight_decay, fused=fused or None
        )

    def batches(self, site: int, round_number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of a site's epoch in a round, counted from 1: images and labels."""
        images, labels = cases(self.folder, self.sites[site], "train")
        generator = torch.Generator().manual_seed(self.seeds[round_number - 1][site])
        order = torch.randperm(len(labels), generator=generator)
        for indices in torch.split(order, self.batch_size):
            taken = torch.from_numpy(images[indices.numpy()].astype(np.float32) / 255.0)
            yield flipped(taken, generator), torch.from_numpy(labels[indices.numpy()])


@lru_cache(maxsize=64)
def cases(folder: str, site: str, split: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
    """The images ``(n, channels, *spatial)`` and labels ``(n,)`` of a site in a split."""
    with np.load(Path(folder) / f"{site}.{split}.npz") as file:
        return file["images"], file["labels"]


def flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each case flipped along each spatial axis with probability one half."""
    for axis in range(2, images.ndim):
        chosen = torch.rand(len(images), generator=generator) < 0.5
        chosen = chosen.view(-1, *[1] * (images.ndim - 1))
        images = torch.where(chosen, images.flip(axis), images)
    return images


def train(work: Work, model: nn.Module, site: int, round_number: int, fused: bool = False) -> float:
    """Train a model in place for a site's epoch, and return the mean loss."""
    model.train()
    optimizer = work.optimizer(model, fused=fused)
    total = 0.0
    for images, labels in work.batches(site, round_number):
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * len(labels)
    return total / work.sizes[site]


def evaluate(work: Work, model: nn.Module, site: int) -> tuple[int, int]:
    """Predict a site's validation and test cases; return how many there are, and were right."""
    model.eval()
    count = right = 0
    with torch.inference_mode():
        for split in ("val", "test"):
            images, labels = cases(work.folder, work.sites[site], split)
            for start in range(0, len(labels), EVALUATION_BATCH):
                taken = images[start : start + EVALUATION_BATCH].astype(np.float32) / 255.0
                found = model(torch.from_numpy(taken)).double().softmax(dim=1).argmax(1).numpy()
                right += int((found == labels[start : start + EVALUATION_BATCH]).sum())
            count += len(labels)
    return count, right


def weights_of(model: nn.Module) -> Weights:
    """A copy of a model's weights."""
    return {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}


def load(model: nn.Module, weights: Weights) -> None:
    """Give a model weights."""
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})


def read_weights(path: Path) -> Weights:
    """Read what :func:`write_weights` wrote."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def write_weights(path: Path, weights: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write weights by the names of their tensors."""
    np.savez(path, **dict(weights))


class Marks:
    """When the first round began and when each ended, in seconds since the epoch."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def now(self) -> None:
        """Mark this moment."""
        self.times.append(time.time())

    def write(self, folder: Path) -> None:
        """Write them where the benchmark reads them."""
        (folder / "marks.json").write_text(json.dumps(self.times))
