"""The same run in turn in several ways, for benchmarks that compare what their rounds take."""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
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


def seconds_of(
    name: str, number: int, sets: Sequence[str], given: argparse.Namespace
) -> list[float]:
    """The seconds of each round but the first of a run.

    Args:
        name: what the way is called.
        number: which repetition of it.
        sets: its settings.
        given: the command line.

    Raises:
        FailedError: it fails.
    """
    out = given.folder.resolve() / f"{name.replace(' ', '-')}-{number}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    homes = {"CONSILIUM_HOME": str(out / "home"), "PREFECT_HOME": str(out / "prefect")}
    sets = (*sets, f"data.root={given.data.resolve()}")
    words = [word for item in (*sets, *given.sets) for word in ("--set", item)]
    command = [sys.executable, "-c", CALL, "run", EXPERIMENT, "--rounds", str(given.rounds), *words]
    command += ["--params", str(ROOT / "params.yaml"), "--runs", str(out / "runs")]
    run(command, out, environment() | homes, out / "log.txt", LIMIT)
    folder = RunFolder((out / "runs" / EXPERIMENT / "latest").resolve())
    rounds: list[float] = json.loads(folder.summary_path.read_text())["seconds"]["rounds"]
    print(f"{name} {number}: rounds of {', '.join(f'{s:.2f}' for s in rounds)} s", flush=True)
    return rounds[1:]


def compare(
    ways: Mapping[str, Sequence[str]], ratio: str, purpose: str, words: Sequence[str]
) -> int:
    """Measure and print; return the exit status.

    Args:
        ways: the settings of each; the others are compared with the first.
        ratio: what the column of that is called.
        purpose: the first line of the command's help.
        words: the command line.
    """
    parser = argparse.ArgumentParser(description=purpose.split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="for runs")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the folder of data sets")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--set", dest="sets", action="append", default=[])
    given = parser.parse_args(words)
    found: dict[str, list[float]] = {name: [] for name in ways}
    try:
        for name, number in turns(dict.fromkeys(ways, given.repetitions)):
            found[name] += seconds_of(name, number, ways[name], given)
    except FailedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    base = median(found[next(iter(ways))])
    table = Table("", "a round, s", ratio, title="medians")
    for name, seconds in found.items():
        table.add_row(name, f"{median(seconds):.2f}", f"{median(seconds) / base:.3f}")
    Console(width=80).print(table)
    print(json.dumps(machine()))
    return 0
