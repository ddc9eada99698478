"""How long it takes to enter a release in a ledger that has many entries.

    python benchmarks/ledger_speed.py --entries 50000

The ledger is of 1188 records, dealt to 10 sites in each of 5 ways. `cold` is the first entry of a
process, which reads the file wholly; `warm` a later one; `with a budget` one for which ε of all
records is composed. Each is a median, with three times that the disk is synced.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

from rich.console import Console
from rich.table import Table

from federated.privacy import hash_chain
from federated.privacy import ledger as ledger_module
from federated.privacy.ledger import Budget, Ledger, Spending
from federated.randomness import numpy_generator

RECORDS, SITES, DEALS = 1188, 10, 5
ONE = Spending("poisson sampled gaussian", "record", 2.0, 0.1, 50, 1.0, 1, "run", "e", "site-00")


def deals() -> list[list[str]]:
    """The records of each site in each way of dealing them."""
    records = [sha256(str(number).encode()).hexdigest() for number in range(RECORDS)]
    found = []
    for deal in range(DEALS):
        order = numpy_generator(deal, purpose="benchmark").permutation(records)
        found += [[str(record) for record in order[site::SITES]] for site in range(SITES)]
    return found


def fill(ledger: Ledger, sets: list[list[str]], entries: int) -> None:
    """Write a ledger as its own code does, without a sync of the disk for each entry."""
    names = [ledger.keep_set(records) for records in sets]
    previous, lines = hash_chain.FIRST, []
    for number in range(entries):
        one = replace(
            ONE,
            noise_multiplier=2 + number % 50 / 100,
            round_number=number % 100,
            run=f"run-{number // 1000}",
            records=names[number % len(names)],
        )
        line, previous = hash_chain.chained({"kind": "spending", **asdict(one)}, previous)
        lines.append(line)
    ledger.path.write_bytes(b"".join(lines))
    hash_chain.write_json(ledger.head_path, {"count": entries, "hash": previous}, 0o600)


def milliseconds(action: Callable[[int], object], times: int) -> tuple[float, float]:
    """Medians of wall-clock and of processor time."""
    wall, processor = [], []
    for number in range(times):
        began, used = time.perf_counter(), time.process_time()
        action(number)
        wall.append(1000 * (time.perf_counter() - began))
        processor.append(1000 * (time.process_time() - used))
    return statistics.median(wall), statistics.median(processor)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=50_000)
    entries = parser.parse_args().entries
    with tempfile.TemporaryDirectory() as home:
        os.environ["CONSILIUM_HOME"] = home
        ledger, sets = Ledger(Path(home) / "ledger" / "holder.jsonl"), deals()
        fill(ledger, sets, entries)

        def cold(number: int) -> None:
            ledger_module._READ.clear()
            ledger.spend(ONE, sets[number])

        def warm(number: int) -> None:
            ledger.spend(ONE, sets[number % len(sets)])

        table = Table(title=f"entering a release, {entries} entries before")
        for column in ("", "milliseconds", "of the processor"):
            table.add_column(column, justify="right")
        rows = {"cold": milliseconds(cold, 5), "warm": milliseconds(warm, 50)}
        ledger.set_budget(Budget("record", 1e4, 1e-5))
        milliseconds(warm, len(sets))
        rows["with a budget"] = milliseconds(warm, 50)
        for name, values in rows.items():
            table.add_row(name, *(f"{value:.1f}" for value in values))
        Console().print(table)


if __name__ == "__main__":
    main()
