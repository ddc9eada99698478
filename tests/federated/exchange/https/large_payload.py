"""How long a large message takes each way over a link that breaks off, and how much memory.

    python -m tests.federated.exchange.https.large_payload --megabytes 200 --break-every 10

Client and server are processes of their own; both messages are carried at once.
"""

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from federated.exchange.identity import COORDINATOR
from federated.exchange.journal import JournalledExchange
from tests.federated.exchange.https.bad_link import TcpRelay
from tests.federated.exchange.https.world import World, make_world, running, serving, wait_for
from tests.federated.exchange.parties import SITES

SITE = SITES[0]
# In seconds: a busy machine takes a minute for what a quiet one does in five seconds.
LONGEST = 900.0


def posted(world: World, sender: str, exchange: JournalledExchange, size: int) -> Path:
    """Post a message of so many bytes, and return the path of its file below an exchange."""
    message = world.message(sender, os.urandom(size))
    exchange.post(message)
    return exchange.path(message.signed).relative_to(exchange.root)


def tell(who: str) -> None:
    """What this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (peak,) = [line.split()[1] for line in status if line.startswith("VmHWM")]
    seconds = used.ru_utime + used.ru_stime
    print(f"{who}: {seconds:.2f} s of processor, at most {int(peak) / 1024:.0f} MB")


def serve(world: World, told: Any, end: Any) -> None:
    with serving(world):
        told.put(world.port)
        end.get()
    tell("server")


def carry(world: World, port: int, up: Path, down: Path) -> None:
    with running(world.link(port=port)):
        wait_for((world.exchange.root / up).exists, "what goes up", LONGEST)
        wait_for((world.mirror(SITE).root / down).exists, "what comes down", LONGEST)
    tell("client")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--break-every", type=int, default=10, help="megabytes; 0 for never")
    given = parser.parse_args()
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder))
        size = given.megabytes * 10**6
        up = posted(world, SITE, world.mirror(SITE), size)
        down = posted(world, COORDINATOR, world.exchange, size)
        told, end = context.Queue(), context.Queue()
        server = context.Process(target=serve, args=(world, told, end))
        server.start()
        with TcpRelay(told.get(), given.break_every * 10**6) as relay:
            started = time.perf_counter()
            client = context.Process(target=carry, args=(world, relay.port, up, down))
            client.start()
            client.join()
            seconds = time.perf_counter() - started
            if client.exitcode:
                server.kill()
                raise SystemExit(f"They have not arrived within {seconds:.0f} s.")
        print(
            f"{given.megabytes} MB each way in {seconds:.1f} s with {relay.breaks} breaks; "
            f"{relay.up / size:.4f} of it went up, {relay.down / size:.4f} came down"
        )
        end.put(None)
        server.join()


if __name__ == "__main__":
    main()
