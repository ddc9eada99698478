"""Rounds of one experiment beside other frameworks, and beside none.

    python -m benchmarks.rounds --peers FOLDER
    python -m benchmarks.rounds --peers FOLDER --contestants consilium,tuned --repetitions 5
    python -m benchmarks.rounds --peers FOLDER --quick

AdrenalMNIST3D, 10 sites, Dirichlet 0.5, the small network, batches of 32, one local epoch, 5
rounds; the same partition, initial weights, batches and flips for all, so that all come to the same
weights but for the order of sums. Each model is evaluated on all validation and test cases after
each round. Contestants run in turn, every other time in the opposite order. Each peer has an
environment of its own below ``--peers``, made from its lock the first time. Prints the medians and
ratios, and exits with 1 where a ratio differs from the baseline by more than 10 %.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.contestants import CONTESTANTS, ROOT, make_environment
from benchmarks.machine import machine
from benchmarks.peers.work import Work
from benchmarks.process_tree import FailedError
from benchmarks.rounds_work import Dealt, cut_data, deal, update, write_work
from benchmarks.standings import (
    OURS,
    Timed,
    as_json,
    changes,
    markdown,
    medians,
    other_models,
    other_work,
    ratios,
    table,
    turns,
)
from federated.errors import ConsiliumError
from federated.files import write_json, write_text
from federated.provenance import git_commit

BASELINE = ROOT / "benchmarks" / "baseline" / "rounds.json"
DEFAULT = "consilium,loop,tuned,flower,pfl,nvflare"
QUICK_CASES, QUICK_SITES, QUICK_ROUNDS = 90, 3, 2


def read_contestants(text: str, repetitions: int) -> dict[str, int]:
    """How often each contestant of ``name,name:times,…`` runs.

    Raises:
        ConsiliumError: there is no contestant of that name, or a number is none.
    """
    found: dict[str, int] = {}
    for item in text.split(","):
        name, _, times = item.partition(":")
        if name not in CONTESTANTS:
            known = ", ".join(CONTESTANTS)
            raise ConsiliumError(f"There is no contestant {name!r}. There are {known}.")
        if times and not (times.isdecimal() and int(times)):
            raise ConsiliumError(f"{item!r} has to name a whole number of runs, as {name}:3.")
        found[name] = int(times or repetitions)
    return found


def one_run(
    name: str, number: int, dealt: Dealt, place: Path, peers: Path
) -> tuple[Timed, np.ndarray]:
    """Have a contestant do the work once, and measure it; return also what it has learned.

    Raises:
        FailedError: it fails.
    """
    out = place / f"{name}-{number}"
    done = CONTESTANTS[name].start(dealt, place / "work", out, peers)
    timed = Timed(
        name,
        number,
        done.measured.seconds,
        done.startup,
        sum(done.rounds),
        median(done.rounds),
        done.measured.peak_mb,
        dealt.auc(done.weights),
        done.measured.load,
    )
    return timed, update(Work.read(place / "work").initial(), done.weights)


def told_work(dealt: Dealt) -> dict[str, Any]:
    """What the work was, as plain values: ratios of other work are not compared."""
    experiment = dealt.experiment
    return {
        "dataset": dealt.dataset.info.name,
        "data_source": dealt.source,
        "cases": sum(len(site["train"]) for site in dealt.partition.sites.values()),
        "sites": len(dealt.partition.sites),
        "rounds": experiment.rounds,
        "batch_size": experiment.training.batch_size,
        "network": experiment.model.name,
    }


def show(found: dict[str, Any], rows: Sequence[Sequence[str]]) -> None:
    """Print the table and what it is of."""
    console, drawn = Console(width=170), Table(*rows[0])
    for row in rows[1:]:
        drawn.add_row(*row)
    console.print(drawn)
    for key in ("work", "machine", "versions"):
        console.print(f"{key}: {json.dumps(found[key])}", soft_wrap=True, highlight=False)
    if found["work"]["data_source"] == "phantom":
        console.print("data_source: phantom. No number here says anything about patients.")


def page(found: dict[str, Any], rows: Sequence[Sequence[str]]) -> str:
    """The results as a page."""
    loads = [run["load"] for run in found["runs"]]
    told = [f"{key}: `{json.dumps(found[key])}`" for key in ("work", "machine", "versions")]
    return (
        "\n\n".join(
            [
                f"`{found['command']}`, {found['date']}, commit {found['commit']}; load of the "
                f"machine before each run {min(loads):.1f} to {max(loads):.1f}.",
                markdown(rows),
                *told,
            ]
        )
        + "\n"
    )


def compare(found: dict[str, Any], baseline: Path) -> list[str]:
    """What makes the ratios other ones than those of the baseline; nothing where there is none.

    Raises:
        ConsiliumError: the baseline cannot be read.
    """
    if not baseline.is_file():
        print(f"no baseline {baseline}: nothing to compare with")
        return []
    try:
        before = json.loads(baseline.read_text())
        said = other_work(found["work"], before["work"])
        if said:
            print(f"not compared with {baseline}, which is of other work: {'; '.join(said)}")
            return []
        if found["machine"] != before["machine"]:
            print(f"note: {baseline} is of another machine: {json.dumps(before['machine'])}")
        return changes(found["ratios"], before["ratios"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConsiliumError(
            f"The baseline {baseline} cannot be read ({error!r}). Put back the committed one, or "
            "write a new one with --write."
        ) from error


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--peers", type=Path, required=True, help="folder for environments")
    parser.add_argument("--contestants", default=DEFAULT, help="names, with :N for own repetitions")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--data", type=Path, default=Path("data"), help="the folder of data sets")
    parser.add_argument("--phantom", action="store_true", help="generated images, labelled so")
    parser.add_argument("--set", dest="sets", action="append", default=[])
    parser.add_argument("--quick", action="store_true", help="a few cases once: does it work?")
    parser.add_argument("--baseline", type=Path, default=BASELINE)
    parser.add_argument("--write", action="store_true", help="write the baseline")
    return parser.parse_args(words)


def measure(given: argparse.Namespace) -> tuple[dict[str, Any], list[list[str]]]:
    """Run all contestants; return what was found and the rows of the table.

    Raises:
        ConsiliumError: the input cannot be used.
        FailedError: a contestant fails, or has learned something else than the others.
    """
    peers = given.peers.resolve()
    repetitions = read_contestants(given.contestants, 1 if given.quick else given.repetitions)
    for name in repetitions:
        make_environment(CONTESTANTS[name], peers)
    place = peers / "runs" / time.strftime("%Y%m%d-%H%M%S")
    rounds, sites = given.rounds, given.sites
    source = "phantom" if given.phantom else "medmnist"
    sets: tuple[str, ...] = (f"data.root={given.data.resolve()}", f"data.source={source}")
    if given.quick:
        rounds, sites = QUICK_ROUNDS, QUICK_SITES
        sets = (*cut_data(given.data.resolve(), place / "data", QUICK_CASES), "sites.min_cases=3")
    sets = (*sets, f"rounds={rounds}", f"sites.count={sites}", *given.sets)
    dealt = deal(sets, ROOT / "params.yaml")
    write_work(dealt, place / "work")
    versions = {name: CONTESTANTS[name].versions(peers) for name in repetitions}
    runs: list[Timed] = []
    updates: dict[str, np.ndarray] = {}
    for name, number in turns(repetitions):
        timed, updates[name] = one_run(name, number, dealt, place, peers)
        runs.append(timed)
        print(
            f"{name} {number}: total {timed.total:.1f} s, rounds {timed.rounds:.1f} s, "
            f"AUC {timed.auc:.4f}, load before {timed.load:.1f}",
            flush=True,
        )
    middle = medians(runs)
    if strange := other_models(updates):
        raise FailedError("; ".join(strange))
    found = {
        "command": "python -m benchmarks.rounds",
        "date": time.strftime("%-d %B %Y"),
        "commit": git_commit(ROOT)[:7],
        "work": told_work(dealt),
        "machine": machine(),
        "versions": versions,
        "medians": middle,
        "ratios": ratios(middle),
        "runs": as_json(runs),
    }
    titles = {name: CONTESTANTS[name].title for name in repetitions}
    return found, table(middle, titles, Counter(run.contestant for run in runs))


def main(words: Sequence[str]) -> int:
    """Measure, print, write and compare; return the exit status."""
    given = parse(words)
    try:
        found, rows = measure(given)
        show(found, rows)
        if given.write:
            write_json(given.baseline, found)
            write_text(given.baseline.with_suffix(".md"), page(found, rows))
            print(f"written: {given.baseline} and {given.baseline.with_suffix('.md')}")
            return 0
        worse = compare(found, given.baseline) if OURS in found["medians"] else []
    except (ConsiliumError, FailedError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for line in worse:
        print(f"error: {line}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
