"""The memory that large volumes take: validation, patch training, sliding-window evaluation.

    python benchmarks/segmentation_memory.py --side 128

Generated volumes of four modalities in BraTS' folders pass through each step in this process, one
after the other; the peak of its resident memory is printed after each.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console

from federated.configuration.cases import experiment_cases
from federated.configuration.load import load_experiment
from federated.data.dataset import SPLITS
from federated.data.folders.dataset import read_folder
from federated.data.folders.families import FAMILIES
from federated.data.folders.phantom import write_phantom
from federated.data.partitioning import partition_dataset
from federated.data.tables import site_tables
from federated.learning import SEGMENTATION
from federated.run.memory import keep_freed_memory, peak_rss_mb
from federated.settings.sections import SitesSettings
from federated.training.loop import Turn, choose_device, place, train
from federated.training.rule import LocalRule
from federated.weights.build import new_model


def main() -> None:
    """Run every step and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as workers do
    console, family, device = Console(), FAMILIES["brain"], choose_device(given.device)
    sets = ["data.source=phantom", "sites.count=1", f"model.width={given.width}"]
    experiment = load_experiment("brain", [*sets, "training.patches_per_case=1"])
    started = time.perf_counter()

    def tell(step: str) -> None:
        nonlocal started
        seconds = time.perf_counter() - started
        peak = f"{peak_rss_mb() / 1024:.2f} GiB"
        if device.type == "cuda":
            peak += f", on the GPU {torch.cuda.max_memory_reserved(device) / 2**30:.2f} GiB"
        console.print(f"{step}: {seconds:.1f} s, peak so far {peak}")
        started = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        write_phantom(family, Path(folder), given.cases, 0, (given.side,) * 3)
        dataset = read_folder(Path(folder), "brain")
        tell(f"{given.cases} volumes of {given.side}^3 with four channels written")
        partition = partition_dataset(
            dataset, SitesSettings(count=1, partition="iid", min_cases=1), 0
        )
        site_tables(dataset, partition)
        tell("validation")
        model = place(new_model(experiment, dataset.info), device)
        cases = experiment_cases(experiment, dataset, partition)
        (site,) = partition.sites
        own = cases.of(site, "train")
        loss = SEGMENTATION.make_loss(own, experiment.training, dataset.info, device)
        train(
            model,
            own,
            experiment.training,
            LocalRule(),
            loss,
            Turn(0, site, 1, 1),
        )
        tell(f"one epoch of patches of {family.shape[0]}^3")
        for split in SPLITS[1:]:
            SEGMENTATION.predict(model, cases.of(site, split), device, dataset.info)
        tell("sliding-window evaluation")


if __name__ == "__main__":
    main()
