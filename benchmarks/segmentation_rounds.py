"""Rounds of segmentation beside a tuned bare loop on the same cases.

    python -m benchmarks.segmentation_rounds --folder FOLDER --data DATA
    python -m benchmarks.segmentation_rounds --folder FOLDER --experiment retina --repetitions 5

The bare loop is one process of one thread for each core, which keeps its prepared cases, the
network and its freed memory; channels last, weights in shared memory, the largest site first, and
nothing else. It reads and draws cases with this project's functions, so that it comes to the very
weights of the run of `consilium run` beside it but for the order of sums, which is checked. Both
run in turn, every other time in the opposite order. Neither evaluates but for the last round, which
is not counted; nor is the first, in which cases are prepared.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.contestants import CALL, ROOT, environment
from benchmarks.machine import machine
from benchmarks.peers.tuned import pack, unpack
from benchmarks.process_tree import FailedError, run
from benchmarks.standings import LEAST_COSINE, turns
from federated.configuration.cases import experiment_cases
from federated.configuration.load import load_experiment
from federated.data.load import load, locate
from federated.data.partitioning import partition_dataset
from federated.errors import ConsiliumError
from federated.learning import task_of
from federated.run.folder import RunFolder
from federated.run.memory import keep_freed_memory
from federated.training.loop import Turn, has_batch_norm, place
from federated.training.optimization import learning_rate, make_optimizer
from federated.weights.build import new_model
from federated.weights.model_file import load_model

LIMIT = 3600.0
# The first round prepares cases, and the last is evaluated.
ROUNDS = 4
EXPERIMENTS = ("hippocampus", "retina")


class Bare:
    """What one process of the bare loop keeps; all of it follows from the settings."""

    def __init__(self, name: str, sets: Sequence[str]) -> None:
        self.experiment = load_experiment(name, sets, ROOT / "params.yaml")
        data = self.experiment.data
        dataset = load(locate(data, download=False), data)
        self.partition = partition_dataset(dataset, self.experiment.sites, self.experiment.seed)
        self.cases = experiment_cases(self.experiment, dataset, self.partition)
        self.info, self.task = dataset.info, task_of(dataset.info, self.experiment.evaluation)
        self.model = place(new_model(self.experiment, dataset.info), torch.device("cpu"))
        self.tensors = list(self.model.state_dict().values())
        self.sites = list(self.partition.sites)

    def train(self, site: str, round_number: int) -> None:
        """One round's training at a site, and nothing else."""
        experiment, model = self.experiment, self.model
        how, cases = experiment.training, self.cases.of(site, "train")
        loss = self.task.make_loss(cases, how, self.info, torch.device("cpu"))
        generator = Turn(experiment.seed, site, round_number, experiment.rounds).generator()
        model.train()
        rate = learning_rate(how, round_number, experiment.rounds)
        optimizer = make_optimizer(model, how, rate)
        for _ in range(how.local_epochs):
            for images, targets in cases.epoch(how, has_batch_norm(model), generator):
                optimizer.zero_grad(set_to_none=True)
                loss(model(images), targets, "mean").backward()
                optimizer.step()


def work(
    name: str, sets: Sequence[str], start: Tensor, ended: Tensor, asked: Any, answers: Any
) -> None:
    """One process: train the sites that are asked for, until ``None`` is.

    Args:
        name: the experiment's.
        sets: what is set in it.
        start: the weights of the round, ``(size,)``, in shared memory.
        ended: those of each site after training, ``(sites, size)``.
        asked: the queue of (site's number, round).
        answers: the queue of what is done.
    """
    keep_freed_memory()
    torch.set_num_threads(1)
    bare = Bare(name, sets)
    answers.put(None)
    while (item := asked.get()) is not None:
        site, round_number = item
        unpack(start, bare.tensors)
        bare.train(bare.sites[site], round_number)
        pack(bare.tensors, ended[site])
        answers.put(None)


def bare_rounds(name: str, sets: Sequence[str], initial: Tensor) -> tuple[list[float], Tensor]:
    """The seconds of each round of the bare loop, and the weights ``(size,)`` that it ends with."""
    bare = Bare(name, sets)
    sizes = [len(splits["train"]) for splits in bare.partition.sites.values()]
    start = initial.clone().share_memory_()
    ended = torch.zeros(len(sizes), len(start)).share_memory_()
    context = get_context("spawn")
    asked, answers = context.Queue(), context.Queue()
    begin = partial(context.Process, target=work, args=(name, sets, start, ended, asked, answers))
    processes = [begin() for _ in os.sched_getaffinity(0)]
    for process in processes:
        process.start()
    for _ in processes:
        answers.get()
    shares = torch.tensor(sizes, dtype=torch.float32) / sum(sizes)
    order = sorted(range(len(sizes)), key=lambda site: -sizes[site])
    marks = [time.perf_counter()]
    for round_number in range(1, bare.experiment.rounds + 1):
        for site in order:
            asked.put((site, round_number))
        for _ in order:
            answers.get()
        start.copy_(shares @ ended)
        marks.append(time.perf_counter())
    for _ in processes:
        asked.put(None)
    for process in processes:
        process.join()
    return [after - before for before, after in pairwise(marks)], start


def our_rounds(name: str, sets: Sequence[str], out: Path) -> tuple[list[float], Tensor]:
    """The same of `consilium run`, with homes of its own in ``out``, a new folder."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    homes = {"CONSILIUM_HOME": str(out / "home"), "PREFECT_HOME": str(out / "prefect")}
    words = [word for item in sets for word in ("--set", item)]
    command = [sys.executable, "-c", CALL, "run", name, *words]
    command += ["--params", str(ROOT / "params.yaml"), "--runs", str(out / "runs")]
    run(command, out, environment() | homes, out / "log.txt", LIMIT)
    folder = RunFolder((out / "runs" / name / "latest").resolve())
    seconds = json.loads(folder.summary_path.read_text())["seconds"]["rounds"]
    return list(seconds), flat(load_model(folder.model_path))


def flat(model: torch.nn.Module) -> Tensor:
    """All tensors of a model, in order, as one vector."""
    return torch.cat([t.detach().float().reshape(-1) for t in model.state_dict().values()])


def cosine(initial: Tensor, one: Tensor, other: Tensor) -> float:
    """That of what two have added to the initial weights."""
    return float(torch.cosine_similarity(one - initial, other - initial, dim=0))


def measure(given: argparse.Namespace, name: str) -> dict[str, Any]:
    """The medians of a round in each, the ratio, and how alike the weights are.

    Raises:
        FailedError: a run fails, or has come to other weights.
    """
    root = f"data.root={given.data.resolve()}"
    sets = [root, f"rounds={ROUNDS}", f"selection.every={ROUNDS}", "training.device=cpu"]
    sets += given.sets
    initial = flat(Bare(name, sets).model)
    seconds: dict[str, list[float]] = {"consilium": [], "bare": []}
    ended: dict[str, Tensor] = {}
    for who, number in turns(dict.fromkeys(seconds, given.repetitions)):
        if who == "bare":
            rounds, ended[who] = bare_rounds(name, sets, initial)
        else:
            rounds, ended[who] = our_rounds(name, sets, given.folder / f"{name}-{number}")
        seconds[who] += rounds[1:-1]
        told = ", ".join(f"{each:.1f}" for each in rounds)
        print(f"{name}, {who} {number}: rounds of {told} s", flush=True)
    alike = cosine(initial, ended["consilium"], ended["bare"])
    if alike < LEAST_COSINE:
        raise FailedError(f"{name}: the weights have a cosine of {alike:.3f}: it is other work")
    ours, bare = median(seconds["consilium"]), median(seconds["bare"])
    return {"experiment": name, "ours": ours, "bare": bare, "ratio": ours / bare, "cosine": alike}


def main(words: Sequence[str]) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="for runs")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the folder of data sets")
    parser.add_argument("--experiment", action="append", choices=EXPERIMENTS)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--set", dest="sets", action="append", default=[])
    given = parser.parse_args(words)
    try:
        rows = [measure(given, name) for name in given.experiment or EXPERIMENTS]
    except (ConsiliumError, FailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    table = Table("", "Consilium, s a round", "bare loop, s", "ratio", "cosine of the weights")
    for row in rows:
        numbers = (f"{row['ours']:.2f}", f"{row['bare']:.2f}", f"{row['ratio']:.3f}")
        table.add_row(row["experiment"], *numbers, f"{row['cosine']:.4f}")
    Console(width=100).print(table)
    print(json.dumps({"machine": machine(), "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
