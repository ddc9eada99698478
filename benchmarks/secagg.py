"""SecAgg+ around one round's updates, all parties in one process, beside Flower's workflow.

    python benchmarks/secagg.py --sites 20 --values 1000000
    python benchmarks/secagg.py --sites 20 --values 1000000 --flower FLOWERS_ENVIRONMENT/bin/python
    python benchmarks/secagg.py --sites 10 --values 200000 --repeats 9 --signed worker

Overhead is the time of SecAgg+ less that of a plain float32 mean of the same updates, in seconds of
processor time for all sites and the coordinator together. Ours counts quantisation, sealing,
masking, adding and unmasking; Flower's its server workflow with its client mod
(`flower_secagg.py`, in an environment of its own). Each number is the median of --repeats rounds.
With --signed ours counts besides all messages of the round as they travel, signed and checked; what
sites have signed for each other `each` site checks, as in a consortium, or one `worker` for all, as
in a simulation. Files are not among it.
"""

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from secrets import token_bytes
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from federated.compression.quantize import largest_quantised, quantize
from federated.exchange import kinds
from federated.exchange.bundle import open_bundle, pack_bundle
from federated.exchange.enrolment import Enrolment
from federated.exchange.folder import EVERYONE
from federated.exchange.identity import COORDINATOR, Identity
from federated.exchange.message import Message, Topic, _is_signed, sign
from federated.protection import Plain, SecAggPlus
from federated.protection.secagg import protocol
from federated.protection.secagg.consistency import Said, check_consistent
from federated.protection.secagg.masks import WORDS
from federated.protection.secagg.recovery import Evidence
from federated.protection.secagg.view import view
from federated.protection.secagg_plus import Masking
from federated.stages.secagg_messages import pack, pack_answer
from federated.update import CompressedUpdate


def updates_of(sites: int, length: int) -> dict[str, Any]:
    """The updates that every row protects."""
    rng = np.random.default_rng(0)
    return {f"site-{n:03d}": rng.normal(0, 0.01, length).astype(np.float32) for n in range(sites)}


def plain(updates: dict[str, Any]) -> float:
    """Seconds of protecting, adding and revealing the updates in the clear."""
    started, protection = time.process_time(), Plain()
    length = len(next(iter(updates.values())))
    running = protection.open_sum(length, 1)
    for site, update in updates.items():
        payload = protection.protect(CompressedUpdate(site, 1, 1, 1.0, length, update))
        protection.add(running, payload)
    protection.reveal(protection.close(running))
    return time.process_time() - started


class Parties:
    """The parties of a round, which sign all that they send and check all that they are sent.

    ``processes`` is in how many of them the sites are, each of which checks once what sites have
    signed for each other.
    """

    def __init__(self, sites: list[str], processes: int) -> None:
        self._processes = processes
        own = {name: Identity(name, token_bytes(32)) for name in (COORDINATOR, *sites)}
        self._own, self._sites = own, sites
        self._members = Enrolment().enrol(*(each.public for each in own.values()))
        consortium = own[COORDINATOR].public.consortium
        self._topic = Topic(consortium, "benchmark", 1, 1, "0" * 64, "0" * 64)

    def collected(self, kind: str, bodies: Mapping[str, bytes]) -> list[Message]:
        """What each site sends the coordinator, as it has arrived there."""
        return [self._sent(site, kind, COORDINATOR, body) for site, body in bodies.items()]

    def told(self, kind: str, body: bytes, stages: int = 1) -> None:
        """What the coordinator sends to all, which each site checks in so many stages."""
        message = sign(self._own[COORDINATOR], self._topic, kind, EVERYONE, body)
        for _ in range(self._processes):
            _new_process()
            for _ in range(stages * len(self._sites) // self._processes):
                self._check(message)

    def each_told(self, kind: str, bodies: Mapping[str, bytes]) -> None:
        """What the coordinator sends to each site."""
        for site, body in bodies.items():
            self._sent(COORDINATOR, kind, site, body)

    def passed_on(self, kind: str, messages: list[Message], bundle: str, stages: int) -> None:
        """What sites have signed for each other, which each reads in so many stages."""
        body = pack_bundle(messages)
        self.told(bundle, body, stages)
        for _ in range(self._processes):
            _new_process()
            found = open_bundle(body, self._topic, kind, COORDINATOR, self._members)
            if len(found) != len(self._sites):
                raise SystemExit("a message is missing")

    def _sent(self, sender: str, kind: str, recipient: str, body: bytes) -> Message:
        message = sign(self._own[sender], self._topic, kind, recipient, body)
        self._check(message)
        return message

    def _check(self, message: Message) -> None:
        sender = self._members.members[message.signed.header.sender].identity
        if not message.signed.is_from(sender) or not message.signed.is_of(message.body):
            raise SystemExit("a message is not what was signed")


def _new_process() -> None:
    """What was checked in another process is checked anew."""
    _is_signed.cache_clear()


def secure(
    updates: dict[str, Any], neighbours: int, bits: int, signed: str | None = None
) -> tuple[float, float]:
    """Seconds of SecAgg+ around the updates, and by how much the server's memory grew in MiB.

    With ``signed`` the messages are counted too, checked by ``each`` site or one ``worker``.
    """
    # Nobody drops out here, so that so few neighbours are enough for the graph to be taken.
    protection = SecAggPlus(neighbours=neighbours, dropout=0, corrupted=0)
    sites, length = list(updates), len(next(iter(updates.values())))
    steps = np.full(length, 0.08 / largest_quantised(bits))
    rng = np.random.default_rng(1)
    server_memory = []
    process = psutil.Process()
    parties = Parties(sites, 1 if signed == "worker" else len(sites))
    started = time.process_time()
    parts = {site: protocol.advertise(site, "benchmark", 1) for site in sites}
    secrets = {site: own for site, (own, _) in parts.items()}
    advertised = {site: public for site, (_, public) in parts.items()}
    if signed:
        keys = {site: pack(asdict(public)) for site, public in advertised.items()}
        told = parties.collected(kinds.ADVERTISED, keys)
        # As a site shares, masks, signs what it was told and answers.
        parties.passed_on(kinds.ADVERTISED, told, kinds.ROSTER, 4)
    now = protection.begin("benchmark", 1, sites, len(sites), 0, bits)
    dealt = {site: protocol.share(secrets[site], advertised, now) for site in sites}
    inbox = {s: {peer: dealt[peer][s] for peer in now.holders(s)} for s in sites}
    if signed:
        parties.collected(kinds.SHARES, {site: pack(own) for site, own in dealt.items()})
        parties.each_told(kinds.INBOX, {site: pack(own) for site, own in inbox.items()})
        parties.told(kinds.SHARING, json.dumps(sites).encode())
    running = protection.open_sum(length, 1, now)
    expected = np.zeros(length, np.int64)
    checking = 0.0
    for site, update in updates.items():
        quantised = quantize(update.astype(np.float64), steps, bits, rng)
        masking = Masking(secrets[site], advertised, sites, now)
        payload = protection.protect(CompressedUpdate(site, 1, 1, 1.0, length, quantised), masking)
        if signed:
            parties.collected(kinds.PAYLOAD, {site: payload.body.tobytes()})
        protection.add(running, payload)
        begun = time.process_time()
        expected += quantised
        server_memory.append(process.memory_info().rss / 2**20)
        checking += time.process_time() - begun
    views = {site: view(site, advertised, sites, [], now) for site in sites}
    said = {site: Said(seen.digest, True) for site, seen in views.items()}
    if signed:
        parties.told(kinds.RESPONDED, json.dumps(sites).encode())
        signatures = {site: seen.to_bytes() for site, seen in views.items()}
        told = parties.collected(kinds.CONSISTENCY, signatures)
        parties.passed_on(kinds.CONSISTENCY, told, kinds.AGREED, 1)
    answers = {}
    for site in sites:
        agreed = check_consistent(site, views[site], said, now)
        answers[site] = protocol.answer(secrets[site], inbox[site], advertised, agreed, now)
    if signed:
        shares = {site: pack_answer(own) for site, own in answers.items()}
        parties.collected(kinds.ANSWER, shares)
    words = protection.close(running).body.view(WORDS[now.bits])
    sums = protocol.unmask(words, sites, [], Evidence(answers, dealt, advertised, now)).sums
    seconds = time.process_time() - started - checking
    if not np.array_equal(sums, expected):
        raise SystemExit("the unmasked sum is wrong")
    return seconds, max(server_memory) - server_memory[0]


def flower(python: Path, sites: int, length: int, shares: int) -> dict[str, float]:
    """The same by Flower, in its own environment."""
    script = Path(__file__).with_name("flower_secagg.py")
    threshold = max(2, 2 * shares // 3)
    command = [python, script, *map(str, (sites, length, shares, threshold))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, default=20)
    parser.add_argument("--values", type=int, default=1_000_000)
    parser.add_argument("--neighbours", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--signed", choices=("each", "worker"), help="with all messages")
    parser.add_argument("--flower", type=Path, help="a Python with flwr installed")
    given = parser.parse_args()
    updates = updates_of(given.sites, given.values)
    table = Table(title=f"{given.sites} sites, {given.values} values; seconds of a round")
    for column in ("", "plain", "SecAgg+", "overhead", "memory growth, MiB"):
        table.add_column(column, justify="right" if column else "left")
    repeats = range(given.repeats)
    base = statistics.median(plain(updates) for _ in repeats)
    most = SecAggPlus().holders(given.sites) - 1
    for neighbours in dict.fromkeys((most, min(most, given.neighbours))):
        name = "all neighbours" if neighbours == given.sites - 1 else f"{neighbours} neighbours"
        for bits in (8, 16):
            rounds = [secure(updates, neighbours, bits, given.signed) for _ in repeats]
            seconds = statistics.median(seconds for seconds, _ in rounds)
            memory = statistics.median(growth for _, growth in rounds)
            cells = (f"{base:.3f}", f"{seconds:.3f}", f"{seconds - base:.3f}", f"{memory:.1f}")
            table.add_row(f"Consilium, {name}, {bits}-bit values", *cells)
        if given.flower:
            # Flower counts the site itself among the holders of its shares.
            shares = neighbours + 1
            found = [flower(given.flower, given.sites, given.values, shares) for _ in repeats]
            base_theirs = statistics.median(f["plain"] for f in found)
            theirs = statistics.median(f["secure"] for f in found)
            cells = (f"{base_theirs:.3f}", f"{theirs:.3f}", f"{theirs - base_theirs:.3f}", "")
            table.add_row(f"Flower, {name}", *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
