"""How a run grows with the number of its sites, on generated pictures.

    python -m benchmarks.scale --folder FOLDER
    python -m benchmarks.scale --folder FOLDER --sites 10,500 --participation 1.0
    python -m benchmarks.scale --folder FOLDER --sites 1000 --participation 0.01

Each is a run of `consilium run` with phantoms of BloodMNIST, the small network and one local epoch:
little to compute at each site, so that what is left is what the sites cost by being many. Of a
round it prints the seconds, and those in which no site trains or evaluates; of the run, the memory
and the processor time of all its processes together, and the files that it leaves. Models are
evaluated after every round on all sites, or after every ``--every``.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.contestants import CALL, ROOT, environment
from benchmarks.machine import machine
from benchmarks.process_tree import FailedError, run
from federated.files import write_json

LIMIT = 3600.0
SETTINGS = (
    "data.source=phantom",
    "model.name=small_cnn",
    "sites.partition=iid",
    "sites.min_cases=1",
    "training.local_epochs=1",
    "training.device=cpu",
    "selection.keep=last",
)


@dataclass(frozen=True)
class Grown:
    """What was measured of a run.

    Args:
        sites: how many there were.
        participation: the share of them that trained in a round.
        startup: seconds before the first round.
        a_round: the median of the seconds of a round but the first.
        orchestration: of these, the median of those in which no site trains or evaluates.
        after: seconds after the last round.
        total: seconds of the run.
        processor: seconds of processor time of all its processes together.
        peak_mb: of all its processes together.
        files: that lie in its folder at its end.
    """

    sites: int
    participation: float
    startup: float
    a_round: float
    orchestration: float
    after: float
    total: float
    processor: float
    peak_mb: float
    files: int


def grow(sites: int, participation: float, given: argparse.Namespace, out: Path) -> Grown:
    """Run an experiment with so many sites.

    Raises:
        FailedError: the run fails.
    """
    out.mkdir(parents=True)
    home = given.folder.resolve() / "home"
    home.mkdir(exist_ok=True)
    place = environment() | {
        "CONSILIUM_HOME": str(out / "home"),
        "PREFECT_HOME": str(home / "prefect"),
    }
    sets = [
        *SETTINGS,
        f"data.root={given.folder.resolve() / 'data'}",
        f"sites.count={sites}",
        f"sites.participation={participation}",
        f"selection.every={given.every}",
        f"rounds={given.rounds}",
        *given.sets,
    ]
    words = [word for item in sets for word in ("--set", item)]
    command = [sys.executable, "-c", CALL, "run", "blood", *words]
    command += ["--params", str(ROOT / "params.yaml"), "--runs", str(out / "runs")]
    before = _processor_of_children()
    measured = run(command, home, place, out / "log.txt", LIMIT)
    processor = _processor_of_children() - before
    folder = (out / "runs" / "blood" / "latest").resolve()
    seconds = json.loads((folder / "summary.json").read_text())["seconds"]
    startup, rounds = sum(seconds["startup"].values()), seconds["rounds"]
    return Grown(
        sites,
        participation,
        startup,
        median(rounds[1:] or rounds),
        median(seconds["overhead_per_round"][1:] or seconds["overhead_per_round"]),
        measured.seconds - startup - sum(rounds),
        measured.seconds,
        processor,
        measured.peak_mb,
        sum(1 for path in folder.rglob("*") if path.is_file()),
    )


def _processor_of_children() -> float:
    """Seconds of processor time of all processes below this one that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def show(found: Sequence[Grown]) -> None:
    """Print the table; memory also over that of the first row."""
    titles = (
        *("sites", "taking part", "start-up, s", "a round, s", "no site at work, s", "after, s"),
        *("total, s", "processor, s", "peak MiB", "over the first", "files"),
    )
    table = Table(*titles)
    for one in found:
        table.add_row(
            str(one.sites),
            f"{one.participation:.0%}",
            f"{one.startup:.1f}",
            f"{one.a_round:.2f}",
            f"{one.orchestration:.2f}",
            f"{one.after:.1f}",
            f"{one.total:.1f}",
            f"{one.processor:.1f}",
            f"{one.peak_mb:.0f}",
            f"{one.peak_mb / found[0].peak_mb:.2f}",
            str(one.files),
        )
    console = Console(width=160)
    console.print(table)
    console.print(f"machine: {json.dumps(machine())}", soft_wrap=True, highlight=False)
    console.print("data_source: phantom. No number here says anything about patients.")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="for data and runs")
    parser.add_argument("--sites", default="10,100,500")
    parser.add_argument("--participation", default="1.0", help="shares, with commas between")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--every", type=int, default=1, help="evaluate after so many rounds")
    parser.add_argument("--set", dest="sets", action="append", default=[])
    parser.add_argument("--out", type=Path, help="also write the numbers here, as JSON")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    """Run all, print, and return the exit status."""
    given = parse(words)
    given.folder.mkdir(parents=True, exist_ok=True)
    found = []
    place = given.folder.resolve() / "runs" / time.strftime("%Y%m%d-%H%M%S")
    for sites in map(int, given.sites.split(",")):
        for share in map(float, given.participation.split(",")):
            try:
                found.append(grow(sites, share, given, place / f"{sites}-{share}"))
            except FailedError as error:
                print(f"error: {sites} sites, {share:.0%}: {error}", file=sys.stderr)
                return 1
            print(found[-1], flush=True)
    show(found)
    if given.out:
        write_json(given.out, {"machine": machine(), "runs": [asdict(one) for one in found]})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
