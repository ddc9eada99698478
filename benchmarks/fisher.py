"""What pFL-ResFIM's masks cost: finding one, beside a local epoch, and the memory of both.

    python benchmarks/fisher.py --experiment hippocampus --cases 28
    python benchmarks/fisher.py --experiment retina --cases 14

The network, batch size and patches are the experiment's own, the images random numbers of the shape
that it trains on. Epochs and masks take turns in processes of one thread; the ratio is that of the
medians. Memory is the growth of the process's peak over what it had before, in MiB and in models.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import psutil
import torch
from rich.console import Console
from rich.table import Table

from federated.configuration.experiment import Experiment
from federated.configuration.load import load_experiment
from federated.data.cases import Batch, batches
from federated.data.folders.dataset import folder_info
from federated.data.folders.families import FAMILIES
from federated.learning.segmentation import make_loss
from federated.run.memory import keep_freed_memory, peak_rss_mb
from federated.settings.sections import TrainingSettings
from federated.strategies import ResFIM
from federated.strategies.base import SiteStart
from federated.strategies.resfim.spectral_style import style_of
from federated.training.loop import Turn, place, train
from federated.training.rule import LocalData, LocalRule
from federated.update import Layout
from federated.weights.build import new_model

CPU = torch.device("cpu")


@dataclass(frozen=True)
class RandomCases:
    """Cases of random numbers, of the shape of a family's patches or whole cases."""

    count: int
    channels: int
    classes: int
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.count

    def load_batch(
        self,
        indices: torch.Tensor,
        how: TrainingSettings,  # noqa: ARG002 - as every set's
        generator: torch.Generator,
    ) -> Batch:
        """New numbers every time."""
        size = (len(indices), *self.shape)
        images = torch.randn((size[0], self.channels, *self.shape), generator=generator)
        return images, torch.randint(0, self.classes, size, generator=generator)

    def epoch(
        self, how: TrainingSettings, batch_norm: bool, generator: torch.Generator
    ) -> Iterator[Batch]:
        """As many patches of a case as the experiment draws."""
        patches = torch.arange(how.drawn(self.count))
        for indices in batches(patches, how.batch_size, batch_norm):
            yield self.load_batch(indices, how, generator)


def measure(name: str, count: int, find: bool) -> tuple[float, float, float]:
    """Seconds, growth of the peak in MiB, and a model's size in MiB."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as workers do
    experiment: Experiment = load_experiment(name)
    family, settings = FAMILIES[experiment.data.dataset], experiment.training
    info = folder_info(family, {})
    cases = RandomCases(count, info.channels, len(info.classes), family.shape)
    model = place(new_model(experiment, info), CPU).train()
    layout, loss = Layout.of(model), make_loss(cases, settings, info, CPU)
    generator = torch.Generator().manual_seed(0)
    resident = psutil.Process().memory_info().rss / 2**20
    started = time.perf_counter()
    if find:
        strategy = ResFIM()
        other, _ = cases.load_batch(torch.arange(1), settings, generator)
        style = style_of(other, strategy.beta)[0].numpy()
        start = SiteStart(layout, layout.flatten(model))
        data = LocalData(
            count,
            settings.drawn(count),
            lambda some: cases.load_batch(some, settings, generator),
            loss,
            generator,
            lambda: [style],
        )
        strategy.find_mask(start, model, data)
    else:
        train(
            model,
            cases,
            settings,
            LocalRule(),
            loss,
            Turn(0, "benchmark", 1, 1),
        )
    seconds = time.perf_counter() - started
    return seconds, max(0.0, peak_rss_mb() - resident), 4 * layout.size / 2**20


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--experiment", default="hippocampus", choices=sorted(FAMILIES))
    parser.add_argument("--cases", type=int, default=28)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    found: dict[bool, list[tuple[float, float, float]]] = {False: [], True: []}
    for _ in range(given.repeats):
        for find in found:
            # A process of its own each time, so that peaks are of one thing.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                one = pool.submit(measure, given.experiment, given.cases, find).result()
                found[find].append(one)
    epoch = statistics.median(seconds for seconds, _, _ in found[False])
    table = Table(title=f"{given.experiment}, {given.cases} cases")
    for column in ("", "seconds", "of an epoch", "MiB", "models"):
        table.add_column(column, justify="right")
    for find, rows in found.items():
        seconds, memory, model = (statistics.median(values) for values in zip(*rows, strict=True))
        name = "mask" if find else "local epoch"
        ratio, models = seconds / epoch, memory / model
        table.add_row(name, f"{seconds:.1f}", f"{ratio:.2f}", f"{memory:.0f}", f"{models:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
