"""Who takes part in ``benchmarks.rounds``: environments, what each is started by and leaves."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.peers.work import Weights, Work, read_weights
from benchmarks.process_tree import FailedError, Measured, run
from benchmarks.rounds_work import EXPERIMENT, Dealt

ROOT = Path(__file__).parents[1]
# The build of torch that all contestants use; pip finds it as `make setup` does.
TORCH = "torch==2.13.0"
# Of what a person or a parent process has set nothing is to decide how fast a contestant is.
UNSET = ("OMP_", "MKL_", "OPENBLAS_", "PREFECT_", "MLFLOW_", "CONSILIUM_", "PYTHON", "VIRTUAL_ENV")
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONPATH": str(ROOT),
    "PYTHONUNBUFFERED": "1",
}
LIMIT = 1800.0
# The command `consilium`, wherever it is installed.
CALL = "from flows.cli import main; main()"


@dataclass(frozen=True)
class Outcome:
    """What a contestant did: seconds in all, before the first round and in each round.

    ``weights`` are the final ones.
    """

    measured: Measured
    startup: float
    rounds: tuple[float, ...]
    weights: Weights


@dataclass(frozen=True)
class Contestant:
    """A contestant.

    Args:
        name: as it is called on the command line.
        title: as the table calls it.
        module: the module of its program; empty for this project, whose program is a command.
        peer: the package of the framework, which has an environment of its own; empty for none.
        arguments: of its program, after the two folders.
        launcher: what its module is started by, after the environment's Python.
    """

    name: str
    title: str
    module: str = ""
    peer: str = ""
    arguments: tuple[str, ...] = ()
    launcher: tuple[str, ...] = ("-m",)

    def python(self, peers: Path) -> Path:
        """The Python of its environment."""
        if not self.peer:
            return Path(sys.executable)
        return peers / self.name.partition("-")[0] / "bin" / "python"

    def versions(self, peers: Path) -> dict[str, str]:
        """The versions of its framework and of torch."""
        wanted = [each for each in (self.peer or "consilium", "torch", "numpy") if each]
        code = (
            "import importlib.metadata as m, json, sys;"
            "print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
        )
        said = subprocess.run(  # noqa: S603 - our own
            [self.python(peers), "-c", code, *wanted], check=True, capture_output=True, text=True
        )
        found: dict[str, str] = json.loads(said.stdout)
        return found

    def start(self, dealt: Dealt, work: Path, out: Path, peers: Path) -> Outcome:
        """Have it do the work; what it leaves lies in ``out``, a new folder.

        Raises:
            FailedError: it fails, or leaves no rounds.
        """
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        if not self.module:
            return _consilium(dealt, out, peers)
        command = [str(self.python(peers)), *self.launcher, self.module, str(work), str(out)]
        place = environment() | {"FLWR_HOME": str(out)}
        measured = run([*command, *self.arguments], ROOT, place, out / "log.txt", LIMIT)
        marks = json.loads((out / "marks.json").read_text())
        if len(marks) != dealt.experiment.rounds + 1:
            raise FailedError(f"{self.name} has marked {len(marks)} times; see {out}/log.txt")
        rounds = tuple(after - before for before, after in pairwise(marks))
        weights = read_weights(out / "weights.npz")
        first = Work.read(work).initial()
        if all(np.array_equal(value, first[name]) for name, value in weights.items()):
            raise FailedError(f"{self.name} has not trained; see {out}/log.txt")
        return Outcome(measured, marks[0] - measured.started, rounds, weights)


CONTESTANTS: Mapping[str, Contestant] = {
    each.name: each
    for each in (
        Contestant("consilium", "Consilium"),
        Contestant("loop", "bare PyTorch loop", "benchmarks.peers.loop"),
        Contestant("tuned", "tuned bare loop", "benchmarks.peers.tuned"),
        Contestant(
            "tuned-first", "tuned bare loop, channels first", "benchmarks.peers.tuned",
            arguments=("--layout", "first"),
        ),
        Contestant(
            "tuned-throughout", "tuned bare loop, channels last throughout",
            "benchmarks.peers.tuned", arguments=("--layout", "throughout"),
        ),
        Contestant("flower", "Flower (simulation)", "benchmarks.peers.flower.run", "flwr"),
        Contestant(
            "pfl", "pfl-research (torchrun)", "benchmarks.peers.pfl.run", "pfl",
            launcher=(
                "-m", "torch.distributed.run", "--standalone",
                f"--nproc-per-node={len(os.sched_getaffinity(0))}", "-m",
            ),
        ),
        Contestant("pfl-one", "pfl-research (one process)", "benchmarks.peers.pfl.run", "pfl"),
        Contestant(
            "nvflare", "NVIDIA FLARE (simulator)", "benchmarks.peers.nvflare.run", "nvflare"
        ),
        Contestant(
            "nvflare-turns", "NVIDIA FLARE (sites take turns)", "benchmarks.peers.nvflare.run",
            "nvflare", arguments=("--threads", str(len(os.sched_getaffinity(0)))),
        ),
    )
}  # fmt: skip


def environment() -> dict[str, str]:
    """What every contestant's process gets."""
    return {k: v for k, v in os.environ.items() if not k.startswith(UNSET)} | QUIET


def make_environment(contestant: Contestant, peers: Path) -> None:
    """Make the environment of a peer from its lock, unless it is there.

    Raises:
        subprocess.CalledProcessError: a package cannot be had.
    """
    if not contestant.peer:
        return
    python = contestant.python(peers)
    place = python.parents[1]
    lock = ROOT / "benchmarks" / "peers" / place.name / "requirements.txt"
    made = place / "lock.txt"
    if made.is_file() and made.read_text() == lock.read_text():
        return
    print(f"making the environment of {place.name} in {place}", flush=True)
    peers.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(place, ignore_errors=True)
    steps: Sequence[Sequence[str | Path]] = (
        (sys.executable, "-m", "venv", place),
        (python, "-m", "pip", "install", "--quiet", TORCH, "uv"),
        (
            place / "bin" / "uv", "pip", "install", "--quiet", "--python", python, "--no-deps",
            "--require-hashes", "--compile-bytecode", "-r", lock,
        ),
    )  # fmt: skip
    # Or pip takes this project for one of the packages that are there.
    apart = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for step in steps:
        subprocess.run([str(each) for each in step], check=True, env=apart, cwd=peers)  # noqa: S603
    made.write_text(lock.read_text())


def _consilium(dealt: Dealt, out: Path, peers: Path) -> Outcome:
    """Run this project's own command, as anybody does, with homes of its own."""
    from federated.run.folder import RunFolder
    from federated.weights.model_file import load_model

    home = peers / "consilium"
    place = environment() | {
        "CONSILIUM_HOME": str(out / "home"),
        # Prefect's and MLflow's databases are made once, as by `make setup`.
        "PREFECT_HOME": str(home / "prefect"),
    }
    home.mkdir(parents=True, exist_ok=True)
    sets = [word for item in dealt.sets for word in ("--set", item)]
    command = [sys.executable, "-c", CALL, "run", EXPERIMENT, *sets]
    command += ["--params", str(ROOT / "params.yaml"), "--runs", str(out / "runs")]
    measured = run(command, home, place, out / "log.txt", LIMIT)
    folder = RunFolder((out / "runs" / EXPERIMENT / "latest").resolve())
    seconds = json.loads(folder.summary_path.read_text())["seconds"]
    model = load_model(folder.model_path)
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    return Outcome(measured, sum(seconds["startup"].values()), tuple(seconds["rounds"]), weights)
