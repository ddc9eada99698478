"""What it takes a worker to have a round's weights by a signed message, and by shared memory.

    python -m benchmarks.state_to_workers --values 181000 1000000 33000000

A worker reads the state of a round once, whatever number of sites it then trains: it looks for the
message, checks who has signed which digest, that the weights have it, and that they are what they
should be. `shared memory` is what any way of passing weights takes at least: the same numbers are
copied out of memory that another process has filled. Median of --repeats states, in milliseconds
of the clock; the file is in the system's cache, as one that was just written is.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from federated.exchange import kinds
from federated.exchange.audit import AuditLog
from federated.exchange.enrolment import Enrolment
from federated.exchange.folder import FolderExchange
from federated.exchange.identity import COORDINATOR, own_identity
from federated.exchange.mailbox import Mailbox
from federated.exchange.message import Topic
from federated.run.update_files import Content, read_state, write_state
from federated.update import Layout, RoundState, Vector

SITE = "site-00"
TOPIC = Topic("c0ffee", "run-1", attempt=1, round=1)


def in_a_message(weights: Vector, round_number: int, folder: Path) -> float:
    """The seconds in which a site has the weights of a state that the coordinator has sent."""
    parties = {
        name: own_identity(name, folder / name / "identity.key", folder / name)
        for name in (COORDINATOR, SITE)
    }
    members = Enrolment().enrol(*(party.public for party in parties.values()))
    boxes = {
        name: Mailbox(
            party, members, FolderExchange(folder / "exchange"), AuditLog(folder / f"{name}.jsonl")
        )
        for name, party in parties.items()
    }
    state = RoundState(round_number, weights, Layout((("weights", weights.shape),)))
    path, topic = folder / "state.safetensors", replace(TOPIC, round=round_number)
    write_state(path, state)
    content = path.read_bytes()
    boxes[COORDINATOR].send(topic, kinds.STATE, content)
    started = time.perf_counter()
    message = boxes[SITE].receive(topic, kinds.STATE, COORDINATOR, len(content))
    read_state(Content(message.body, "of the state"), round_number)
    return time.perf_counter() - started


def in_shared_memory(weights: Vector) -> float:
    """The seconds in which the weights are copied out of shared memory."""
    shared = SharedMemory(create=True, size=weights.nbytes)
    try:
        held: Vector = np.ndarray(weights.shape, weights.dtype, shared.buf)
        held[:] = weights
        started = time.perf_counter()
        held.copy()
        seconds = time.perf_counter() - started
        del held
    finally:
        shared.close()
        shared.unlink()
    return seconds


def main() -> None:
    """Print a row for each number of values."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--values", type=int, nargs="+", default=[181_000])
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    table = Table("values", "in a message, ms", "shared memory, ms")
    rng = np.random.default_rng(0)
    for values in given.values:
        found = []
        with tempfile.TemporaryDirectory() as folder:
            for number in range(1, given.repeats + 1):
                weights = rng.standard_normal(values, np.float32)
                signed = in_a_message(weights, number, Path(folder))
                found.append((signed, in_shared_memory(weights)))
        medians = [1000 * statistics.median(column) for column in zip(*found, strict=True)]
        table.add_row(f"{values:,}", *(f"{median:.2f}" for median in medians))
    Console().print(table)


if __name__ == "__main__":
    main()
