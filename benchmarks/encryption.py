"""Bytes a value and speed of every encoding, beside TenSEAL's bulk CKKS, in one process.

    python benchmarks/encryption.py --values 1000000 --sites 10
    python benchmarks/encryption.py --values 33000000 --only packed_bfv

Each row is the median over five sites of encrypting an update that is compressed already and of
adding it to the sum, and of decrypting the sum, in seconds of one core; for CKKS with the noise of
an opening, made for --rounds of --sites. `worst error` is that of the sum: of values within ±1/5
for CKKS, of quantised values where it must be 0.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from federated.compression.quantize import largest_quantised
from federated.protection import CKKS, Cohort, PackedBFV
from federated.protection.keys import new_run_key
from federated.run.memory import peak_rss_mb
from federated.update import CompressedUpdate

REPEATS = 5


@dataclass(frozen=True)
class Row:
    """What was measured of one encoding; times in seconds for the whole vector."""

    name: str
    up: float
    down: float
    encrypt: float
    add: float
    decrypt: float
    error: float


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    """The result of an action and the seconds of one core that it took."""
    started = time.process_time()
    result = action()
    return result, time.process_time() - started


def measure(protection: Any, vectors: list[Any], cohort: Cohort) -> Row:
    """Encrypt, add and decrypt the vectors with one of our protections."""
    length, bits = len(vectors[0]), cohort.bits
    key = new_run_key(protection.parameters(length, cohort)).opened()
    running = protection.open_sum(length, 1, key.public)
    encrypts, adds, payload = [], [], None
    for number, vector in enumerate(vectors):
        update = CompressedUpdate(f"site-{number}", 1, 1, 1 / len(vectors), length, vector)
        payload, seconds = timed(lambda update=update: protection.protect(update, key))
        encrypts.append(seconds)
        adds.append(timed(lambda payload=payload: protection.add(running, payload))[1])
    total = protection.close(running)
    opened = [timed(lambda: protection.reveal(total, key)) for _ in range(REPEATS)]
    error = float(np.abs(opened[-1][0] - np.sum(vectors, axis=0, dtype=np.float64)).max())
    return Row(
        f"{protection.name} {key.public.parameters.describe()}"
        + (f", {bits}-bit values" if bits else "")
        + f", {cohort.selected} sites",
        payload.body.nbytes / length,
        total.body.nbytes / length,
        statistics.median(encrypts),
        statistics.median(adds),
        statistics.median(seconds for _, seconds in opened),
        error,
    )


def tenseal_bulk(values: list[Any]) -> Row:
    """TenSEAL's vectors with the parameters most often seen, as a library's user would do it."""
    import tenseal

    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS,
        poly_modulus_degree=8192,
        coeff_mod_bit_sizes=[60, 40, 40, 60],
        n_threads=1,
    )
    context.global_scale = 2**40
    slots = 4096

    def encrypt(vector: Any) -> list[bytes]:
        parts = range(0, len(vector), slots)
        return [
            tenseal.ckks_vector(context, vector[start : start + slots].tolist()).serialize()
            for start in parts
        ]

    def load(parts: list[bytes]) -> list[Any]:
        return [tenseal.ckks_vector_from(context, part) for part in parts]

    length = len(values[0])
    encrypts, adds, total, parts = [], [], None, []
    for vector in values:
        parts, seconds = timed(lambda vector=vector: encrypt(vector))
        encrypts.append(seconds)
        started = time.process_time()
        loaded = load(parts)
        total = loaded if total is None else [a + b for a, b in zip(total, loaded, strict=True)]
        adds.append(time.process_time() - started)
    sums, seconds = timed(lambda: np.concatenate([part.decrypt() for part in total])[:length])
    error = float(np.abs(sums - np.sum(values, axis=0, dtype=np.float64)).max())
    size = sum(map(len, parts)) / length
    down = sum(len(part.serialize()) for part in total) / length
    encrypt_time, add_time = statistics.median(encrypts), statistics.median(adds)
    name = "TenSEAL ckks_vector degree 8192, 60+40+40+60 bits, scale 40"
    return Row(name, size, down, encrypt_time, add_time, seconds, error)


def main() -> None:
    """Measure all encodings and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=int, default=1_000_000)
    parser.add_argument("--sites", type=int, default=10, help="Sites there must be room for.")
    parser.add_argument("--rounds", type=int, default=60, help="That CKKS' noise is made for.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="One protection's name, without the others' rows.")
    chosen = parser.parse_args()
    rng = np.random.default_rng(chosen.seed)
    shape = (REPEATS, chosen.values)
    weighted = list((rng.uniform(-1, 1, shape) / REPEATS).astype(np.float32))
    protections = [each for each in (CKKS(), PackedBFV()) if chosen.only in (None, each.name)]
    if not protections:
        parser.error("--only is ckks or packed_bfv")
    rows = [] if chosen.only else [tenseal_bulk(weighted)]
    if isinstance(protections[0], CKKS):
        values = Cohort(chosen.sites, chosen.sites, chosen.rounds, None)
        rows.append(measure(protections[0], weighted, values))
    for room, bits in ((chosen.sites, 8), (128, 8), (chosen.sites, 4), (chosen.sites, 16)):
        most, cohort = largest_quantised(bits), Cohort(room, room, chosen.rounds, bits)
        quantised = list(rng.integers(-most, most + 1, shape).astype(np.int32))
        rows += [measure(protection, quantised, cohort) for protection in protections]
    table = Table(
        title=f"{chosen.values} values, seed {chosen.seed}, one core; speeds in M values/s"
    )
    table.add_column("encoding")
    for name in ("bytes up", "bytes down", "encrypt", "add", "decrypt", "worst error"):
        table.add_column(name, justify="right")
    for row in rows:
        speeds = [f"{chosen.values / s / 1e6:.2f}" for s in (row.encrypt, row.add, row.decrypt)]
        sizes = f"{row.up:.2f}", f"{row.down:.2f}"
        table.add_row(row.name, *sizes, *speeds, f"{row.error:.1e}")
    console = Console(width=160)
    console.print(table)
    console.print(f"peak memory of the process, {REPEATS} updates with it: {peak_rss_mb():.0f} MiB")


if __name__ == "__main__":
    main()
