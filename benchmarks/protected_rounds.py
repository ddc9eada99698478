"""What a round costs more where updates are protected: the same run in turn under each protection.

    python -m benchmarks.protected_rounds --folder FOLDER --data DATA

AdrenalMNIST3D, 10 sites, the small network, one local epoch, as `consilium run` does it: in the
clear, masked with SecAgg+ (16-bit values), and encrypted with packed BFV (2 % of the values, 7
bits). The median of all rounds but the first of each run, over all repetitions, and its ratio to
that of the rounds in the clear. Runs are in turn, every other time in the opposite order.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.contestants import CALL, ROOT, environment
from benchmarks.machine import machine
from benchmarks.process_tree import FailedError, run
from benchmarks.standings import turns
from federated.run.folder import RunFolder

EXPERIMENT, LIMIT = "adrenal", 3600.0
PLAIN = "plain"
PROTECTIONS = {
    PLAIN: ("protection.name=plain",),
    "secagg_plus": ("protection.name=secagg_plus", "compression.bits=16"),
    "packed_bfv": (
        *("protection.name=packed_bfv", "compression.name=shared_mask", "compression.bits=7"),
        *("compression.density=0.02", "compression.explore=1"),
    ),
}


def seconds_of(name: str, number: int, given: argparse.Namespace) -> list[float]:
    """The seconds of each round but the first of a run under a protection.

    Raises:
        FailedError: it fails.
    """
    out = given.folder.resolve() / f"{name}-{number}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    homes = {"CONSILIUM_HOME": str(out / "home"), "PREFECT_HOME": str(out / "prefect")}
    sets = (*PROTECTIONS[name], f"data.root={given.data.resolve()}", "training.batch_size=32")
    words = [word for item in (*sets, *given.sets) for word in ("--set", item)]
    command = [sys.executable, "-c", CALL, "run", EXPERIMENT, "--rounds", str(given.rounds), *words]
    command += ["--params", str(ROOT / "params.yaml"), "--runs", str(out / "runs")]
    run(command, out, environment() | homes, out / "log.txt", LIMIT)
    folder = RunFolder((out / "runs" / EXPERIMENT / "latest").resolve())
    rounds: list[float] = json.loads(folder.summary_path.read_text())["seconds"]["rounds"]
    print(f"{name} {number}: rounds of {', '.join(f'{s:.2f}' for s in rounds)} s", flush=True)
    return rounds[1:]


def main(words: Sequence[str]) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="for runs")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the folder of data sets")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--set", dest="sets", action="append", default=[])
    given = parser.parse_args(words)
    found: dict[str, list[float]] = {name: [] for name in PROTECTIONS}
    try:
        for name, number in turns(dict.fromkeys(PROTECTIONS, given.repetitions)):
            found[name] += seconds_of(name, number, given)
    except FailedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    base = median(found[PLAIN])
    table = Table("", "a round, s", "of one in the clear", title="medians")
    for name, seconds in found.items():
        table.add_row(name, f"{median(seconds):.2f}", f"{median(seconds) / base:.3f}")
    Console(width=80).print(table)
    print(json.dumps(machine()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
