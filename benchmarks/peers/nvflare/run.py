"""FedAvg with NVIDIA FLARE's simulator.

    python -m benchmarks.peers.nvflare.run WORK OUT [--threads 10]

With as many threads as there are sites, which is its default, each site is a process that keeps its
cases; with fewer, sites take turns in that many processes.
"""

import argparse
from pathlib import Path

import torch
from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.recipe import SimEnv

from benchmarks.peers.nvflare.log import marks_of
from benchmarks.peers.work import Marks, Work, write_weights

JOB = "rounds"


def main(folder: Path, out: Path, threads: int) -> None:
    """Train, and write the marks and the final weights to ``out``."""
    work = Work.read(folder)
    first = out / "initial.pt"
    torch.save(work.model().state_dict(), first)
    recipe = FedAvgRecipe(
        name=JOB,
        model={"class_path": "models.small_cnn.SmallCNN", "args": dict(work.network)},
        initial_ckpt=str(first.resolve()),
        min_clients=len(work.sites),
        num_rounds=work.rounds,
        train_script=str(Path(__file__).with_name("client.py")),
        train_args=str(folder.resolve()),
    )
    count = len(work.sites)
    env = SimEnv(
        num_clients=count, num_threads=min(threads or count, count), workspace_root=str(out)
    )
    recipe.execute(env)
    server = out / JOB / "server"
    marks = Marks()
    marks.times = marks_of(next(server.rglob("log.txt")).read_text())
    marks.write(out)
    saved = torch.load(next(server.rglob("FL_global_model.pt")), weights_only=True)
    model = saved.get("model", saved)
    write_weights(out / "weights.npz", {k: torch.as_tensor(v).numpy() for k, v in model.items()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    main(given.work, given.out, given.threads)
