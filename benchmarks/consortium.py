"""A consortium's rounds beside those of the same run on one machine, and its bytes on the wire.

    python -m benchmarks.consortium --rounds 5
    python -m benchmarks.consortium --rounds 5 --experiment organ --set sites.count=3

A coordinator and three sites are processes of their own, as `consilium consortium up` starts them,
and a relay in front of the coordinator's TLS port counts what passes, of the sites alone. Then the
same experiment with as many simulated sites runs in worker processes. Round 1 is not counted: it
waits for the sites' programs to be read. With the messages' bytes, as they lie in the exchange,
each kind of message is named that makes up most of them.
"""

import argparse
import asyncio
import statistics
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from federated.configuration.load import load_experiment
from federated.errors import ConsiliumError
from federated.exchange.audit import AuditLog
from federated.exchange.kit import Kit
from federated.files import make_folders, write_text
from federated.run.folder import RunFolder
from federated.secrets.home import private_folder
from federated.site.home import SiteHome
from flows.consortium_up import (
    HOST,
    POLICY,
    Party,
    at_work,
    begin_run,
    command,
    deal_files,
    of_files,
    silent,
)
from flows.ports import listen, port_of

SITES = ("site-00", "site-01", "site-02")
CARRIED = ("uploaded", "downloaded")


class Counting:
    """A relay on the loopback that passes bytes on to a port and counts them, both ways."""

    def __init__(self, target: int) -> None:
        self.target, self.bytes, self.port = target, 0, 0
        self._ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        self._ready.wait()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            there, to_there = await asyncio.open_connection(HOST, self.target)
            await asyncio.gather(self._pass(reader, to_there), self._pass(there, writer))

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while content := await source.read(2**18):
                self.bytes += len(content)
                sink.write(content)
                await sink.drain()
        sink.close()


def of_parties(
    folder: Path, name: str, sets: Sequence[str], params: Path
) -> tuple[RunFolder, int, list[SiteHome]]:
    """Run an experiment by a consortium; return its folder, the bytes on the wire, and the homes.

    Raises:
        ConsiliumError: a party does not come up, or the run fails.
    """
    private_folder(folder, folder)
    coordinator = Party("coordinator", folder / "coordinator")
    sites = [Party(site, folder / site) for site in SITES]
    for party in (coordinator, *sites):
        make_folders(party.home, private=True)
    experiment = load_experiment(name, [*sets, f"sites.count={len(SITES)}"], params)
    data = deal_files(experiment, {site.name: site.home / "data" for site in sites})
    with listen() as free:
        port = port_of(free)
    relay = Counting(port)
    kit, policy = folder / "kit.json", folder / "site-policy.yaml"
    write_text(policy, POLICY)
    at = ["--name", HOST, "--host", HOST, "--port", str(port), "--kit", str(kit)]
    command(coordinator, silent, "coordinator", "init", *at)
    # Sites alone go through the relay, and not who begins the run.
    replace(Kit.read(kit), url=f"https://{HOST}:{relay.port}").write(kit)
    for site in sites:
        given = ["--kit", str(kit), "--data", str(site.home / "data"), "--policy", str(policy)]
        command(site, silent, "site", "init", site.name, *given, "--out", str(folder))
        request = folder / f"{site.name}.enrolment.json"
        command(coordinator, silent, "sites", "enrol", str(request))
    places = ["--params", str(params.resolve()), "--runs", str(folder / "runs")]
    with at_work(coordinator, sites, places, silent):
        before = relay.bytes
        said: list[str] = []
        if begin_run(coordinator, name, [*of_files(data), *sets], places, said.append):
            raise ConsiliumError(f"The run of the consortium failed: {'; '.join(said[-5:])}")
        carried = relay.bytes - before
    homes = [SiteHome(site.home / "consilium" / "site" / site.name) for site in sites]
    return RunFolder(folder / "runs" / name / "latest"), carried, homes


def simulated(folder: Path, name: str, sets: Sequence[str], params: Path) -> RunFolder:
    """Run an experiment with simulated sites; return its folder.

    Raises:
        ConsiliumError: the run fails.
    """
    alone = Party("embedded", folder)
    make_folders(folder)
    data = load_experiment(name, sets, params).data.root.resolve()
    given = [*sets, f"sites.count={len(SITES)}", f"data.root={data}"]
    words = [word for item in given for word in ("--set", item)]
    places = ["--params", str(params.resolve()), "--runs", str(folder / "runs")]
    command(alone, silent, "run", name, *words, *places)
    return RunFolder(folder / "runs" / name / "latest")


def carried_messages(homes: Sequence[SiteHome]) -> Counter[str]:
    """The bytes of messages that sites have sent and fetched, by kind."""
    found: Counter[str] = Counter()
    for home in homes:
        for line in AuditLog(home.audit.path).lines():
            if line["event"] in CARRIED:
                found[line["kind"].rstrip("0123456789")] += line["bytes"]
    return found


def seconds(folder: RunFolder) -> list[float]:
    """The seconds of the rounds of a run but the first."""
    records: list[dict[str, Any]] = folder.records()
    return [float(record["seconds"]["total"]) for record in records[1:]]


def main() -> None:
    """Run both, and print the medians, their difference, and what is on the wire."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--experiment", default="adrenal")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--set", dest="sets", action="append", default=[])
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    given = parser.parse_args()
    sets = [*given.sets, f"rounds={given.rounds + 1}"]
    with tempfile.TemporaryDirectory(prefix="consilium-benchmark-") as place:
        root = Path(place)
        alone = simulated(root / "embedded", given.experiment, sets, given.params)
        run, wire, homes = of_parties(root / "parties", given.experiment, sets, given.params)
        ours, theirs = seconds(run), seconds(alone)
        messages = carried_messages(homes)
    table = Table("", "embedded", "consortium", "difference")
    one, other = statistics.median(theirs), statistics.median(ours)
    table.add_row(
        f"seconds a round, median of {given.rounds}",
        f"{one:.2f}",
        f"{other:.2f}",
        f"{other - one:+.2f}",
    )
    table.add_row("least", f"{min(theirs):.2f}", f"{min(ours):.2f}", "")
    table.add_row("most", f"{max(theirs):.2f}", f"{max(ours):.2f}", "")
    console, total = Console(), sum(messages.values())
    console.print(table)
    ratio = f"ratio {wire / total:.4f}"
    console.print(f"messages {total:,} bytes; on the wire {wire:,} bytes; {ratio}")
    for kind, size in messages.most_common(6):
        console.print(f"  {kind:20} {size:>14,}")


if __name__ == "__main__":
    main()
