"""Encryption under short keys that SecAgg+ sums, beside SecAgg+ itself and packed BFV.

    python benchmarks/rlwe_secagg.py --repeats 3
    python benchmarks/rlwe_secagg.py --sizes

All parties of a round in one process, on one core, with random quantised values; the sum is checked
to be exact. For each number of values and sites: the bytes that a site sends and gets in a round,
payload and messages apart; the seconds of one site for what it does with its update (masking or
encrypting, and decrypting under packed BFV) and for the messages (keys, shares, answer); and those
of the coordinator for adding all payloads and opening the sum, where nobody drops out and where the
share --gone does after it has exchanged keys. Each is the median over sites and repeats.

With --sizes nothing is run: for many lengths, sites and bits it says how large payloads of
rlwe_secagg are beside those of packed BFV, by the parameters that both take.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from federated.compression.quantize import largest_quantised
from federated.protection import Cohort, MaskedSums, PackedBFV, RLWESecAgg, SecAggPlus
from federated.protection.keys import new_run_key
from federated.protection.rlwe.parameters import fit_parameters
from federated.protection.secagg import protocol
from federated.protection.secagg.consistency import Agreed
from federated.protection.secagg.recovery import Evidence
from federated.protection.secagg.view import view
from federated.protection.secagg_plus import Masking
from federated.update import CompressedUpdate

# A small 3D network of 181 408 values at 2 % and dense, and ResNet-18 3D at 1 % of 33 140 802.
LENGTHS = (3_628, 181_408, 331_408)
SITES = (10, 100)


@dataclass
class Row:
    """What was measured of a protection; bytes of one site, seconds of one site or all at once."""

    name: str
    up: int = 0
    down: int = 0
    up_messages: int = 0
    down_messages: int = 0
    update: list[float] = field(default_factory=list)
    messages: list[float] = field(default_factory=list)
    coordinator: list[float] = field(default_factory=list)
    with_dropouts: list[float] = field(default_factory=list)


class Clock:
    """Seconds of one core, each kind in a list of its own."""

    def __init__(self) -> None:
        self.lists: dict[str, list[float]] = {}

    def __call__(self, kind: str, action: Callable[[], Any]) -> Any:
        """Do something, and note how long it took."""
        started = time.process_time()
        result = action()
        self.lists.setdefault(kind, []).append(time.process_time() - started)
        return result


def size(message: Any) -> int:
    """The bytes of a message as it travels."""
    return len(json.dumps(message, default=lambda content: content.hex()))


def refuse_wrong(found: Any, expected: Any) -> None:
    """End where a sum is not exact."""
    if not np.array_equal(found, expected):
        raise SystemExit("a sum is wrong")


def compressed(site: str, values: Any) -> CompressedUpdate:
    """An update as it is sent."""
    return CompressedUpdate(site, 1, 1, 0.001, len(values), values)


def masked_round(
    row: Row, protection: MaskedSums, values: dict[str, Any], bits: int, gone: int
) -> None:
    """One round by masks, of which the last ``gone`` sites send nothing."""
    sites, clock = list(values), Clock()
    made = {
        site: clock("advertise", lambda site=site: protocol.advertise(site, "benchmark", 1))
        for site in sites
    }
    secrets = {site: own for site, (own, _) in made.items()}
    told = {site: public for site, (_, public) in made.items()}
    now = protection.begin("benchmark", 1, sites, len(sites), 0, bits)
    inbox: dict[str, dict[str, bytes]] = {site: {} for site in sites}
    sealed = {}
    for site in sites:
        sealed[site] = clock("share", lambda site=site: protocol.share(secrets[site], told, now))
        for holder, message in sealed[site].items():
            inbox[holder][site] = message
    responded, missing = sites[: len(sites) - gone], sites[len(sites) - gone :]
    length = len(values[sites[0]])
    running = clock("add", lambda: protection.open_sum(length, 1, now))
    payload = None
    for site in responded:
        masking = Masking(secrets[site], told, sites, now)
        update = compressed(site, values[site])
        payload = clock("protect", lambda u=update, m=masking: protection.protect(u, m))
        clock("add", lambda payload=payload: protection.add(running, payload))
    answers = {
        site: clock(
            "answer",
            lambda site=site: protocol.answer(
                secrets[site],
                inbox[site],
                told,
                Agreed(view(site, told, responded, missing, now)),
                now,
            ),
        )
        for site in responded
    }
    total = clock("add", lambda: protection.close(running))

    def opened() -> Any:
        words = protection.masked_words(total, now)
        evidence = Evidence(answers, sealed, told, now)
        sums = protocol.unmask(words, responded, missing, evidence).sums
        return protection.unmasked(total, sums, now)

    clear = clock("add", opened)
    refuse_wrong(protection.reveal(clear), sum(values[site].astype(np.int64) for site in responded))
    spent = sum(clock.lists["add"])
    if gone:
        row.with_dropouts.append(spent)
        return
    row.coordinator.append(spent)
    row.update += clock.lists["protect"]
    parts = (clock.lists[kind] for kind in ("advertise", "share", "answer"))
    row.messages.append(sum(statistics.median(each) for each in parts))
    assert payload is not None
    row.up, row.down = payload.body.nbytes, clear.body.nbytes
    first = sites[0]
    public = {site: vars(keys) for site, keys in told.items()}
    shares = {holder: vars(share) for holder, share in answers[first].shares.items()}
    row.up_messages = size(public[first]) + size(sealed[first]) + size(shares)
    # The roster is read in stages 2, 3 and 4.
    roster = size({"advertised": public, "sharing": dict.fromkeys(sites, b"")})
    row.down_messages = 3 * roster + size(inbox[first])


def encrypted_round(row: Row, values: dict[str, Any], cohort: Cohort) -> None:
    """One round under packed BFV, whose sum a site decrypts."""
    sites, clock, protection = list(values), Clock(), PackedBFV()
    length = len(values[sites[0]])
    parameters = protection.parameters(length, cohort)
    key = new_run_key(parameters).opened()
    running, payload = protection.open_sum(length, 1, key.public), None
    for site in sites:
        update = compressed(site, values[site])
        payload = clock("protect", lambda update=update: protection.protect(update, key))
        clock("add", lambda payload=payload: protection.add(running, payload))
    total = clock("add", lambda: protection.close(running))
    found = clock("decrypt", lambda: protection.reveal(total, key))
    refuse_wrong(found, sum(each.astype(np.int64) for each in values.values()))
    row.update += [own + clock.lists["decrypt"][0] for own in clock.lists["protect"]]
    row.coordinator.append(sum(clock.lists["add"]))
    assert payload is not None
    row.up, row.down = payload.body.nbytes, total.body.nbytes


def measure(length: int, count: int, bits: int, gone: float, repeats: int) -> list[Row]:
    """The three protections, one after the other in each repeat."""
    rng, most = np.random.default_rng(0), largest_quantised(bits)
    names = [f"site-{number:03d}" for number in range(count)]
    drawn = rng.integers(-most, most + 1, (count, length)).astype(np.int32)
    values = dict(zip(names, drawn, strict=True))
    rows = [Row("packed_bfv"), Row("secagg_plus"), Row("rlwe_secagg")]
    for _ in range(repeats):
        encrypted_round(rows[0], values, Cohort(count, count, 1, bits))
        for row, protection in zip(rows[1:], (SecAggPlus(), RLWESecAgg()), strict=True):
            for absent in (0, int(gone * count)):
                masked_round(row, protection, values, bits, absent)
    round_ = RLWESecAgg().begin("benchmark", 1, names, count, 0, bits)
    rows[2].name += f": {round_.parameters(length).describe()}"
    return rows


def compare_sizes() -> None:
    """Print how the sizes of payloads compare, and where ours is the larger one by far."""
    found = []
    for bits, count in itertools.product((2, 4, 7, 8, 12, 16), (3, 5, 10, 20, 50, 100, 300, 1000)):
        for length in (10, 100, 300, 1000, 2000, 8000, 20_000, *LENGTHS, 3_314_080):
            cohort = Cohort(count, count, 1, bits)
            theirs = PackedBFV().parameters(length, cohort).bytes_for(length)
            base = 2 * count * largest_quantised(bits) + 1
            parameters = fit_parameters(length, count, base)
            assert parameters is not None
            ratio = sum(parameters.sizes(length)) / theirs
            found.append((ratio, f"{length} values of {bits} bits, {count} sites"))
    ratios = [ratio for ratio, _ in found]
    print(
        f"{len(found)} cases: from {min(ratios):.2f} to {max(ratios):.2f}, median "
        f"{statistics.median(ratios):.2f}, at most 1 in {sum(ratio <= 1 for ratio in ratios)}"
    )
    for ratio, case in sorted(found, reverse=True):
        if ratio > 1.15:
            print(f"{ratio:.2f}: {case}")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--sites", type=int, nargs="+", default=SITES)
    parser.add_argument("--bits", type=int, default=8)
    parser.add_argument("--gone", type=float, default=0.1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", action="store_true", help="Compare sizes alone.")
    given = parser.parse_args()
    if given.sizes:
        compare_sizes()
        return
    table = Table(title=f"{given.bits}-bit values, medians of {given.repeats} rounds, one core")
    columns = ("bytes up", "of BFV", "messages up", "bytes down", "messages down")
    times = ("s update", "s messages", "s coordinator", "s with dropouts")
    for column in ("values", "sites", "protection", *columns, *times):
        table.add_column(column, justify="left" if column == "protection" else "right")
    for length in given.lengths:
        for count in given.sites:
            rows = measure(length, count, given.bits, given.gone, given.repeats)
            for row in rows:
                whole = (row.up + row.up_messages) / rows[0].up
                sizes = (row.up_messages, row.down, row.down_messages)
                lists = (row.update, row.messages, row.coordinator, row.with_dropouts)
                spent = [f"{statistics.median(each):.4f}" if each else "" for each in lists]
                cells = [str(row.up), f"{whole:.2f}", *map(str, sizes), *spent]
                table.add_row(str(length), str(count), row.name, *cells)
    Console(width=220).print(table)


if __name__ == "__main__":
    main()
