"""Server and client are killed in the middle: they go on, nothing is doubled, no part is seen."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from federated.exchange.https import link_state, uploads
from federated.exchange.https.listening import tls_server
from federated.exchange.https.server import exchange_app
from federated.exchange.identity import COORDINATOR
from federated.exchange.journal import JournalledExchange
from federated.exchange.message import Message
from tests.federated.exchange.https.bad_link import TcpRelay
from tests.federated.exchange.https.world import (
    World,
    make_world,
    reserved_port,
    running,
    serving,
    wait_for,
)
from tests.federated.exchange.parties import SITES

SITE = SITES[0]
MB = 10**6
SIZE = 20 * MB
# When so many bytes have passed, somebody is killed.
WHEN = (2 * MB, 9 * MB, 25 * MB)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


@pytest.fixture
def messages(world: World) -> tuple[Message, Message]:
    """One that the site sends, and one that it gets; both are posted."""
    up, down = (
        world.message(SITE, b"u" * SIZE, COORDINATOR),
        world.message(COORDINATOR, b"d" * SIZE),
    )
    world.mirror(SITE).post(up)
    world.exchange.post(down)
    return up, down


class Children:
    """Processes that wait for their turn; they are made before there are threads."""

    def __init__(self, step: Callable[[int], None]) -> None:
        context = multiprocessing.get_context("fork")
        self._waiting: list[tuple[BaseProcess, Any]] = []
        for _ in range(len(WHEN) + 1):
            turn = context.SimpleQueue()
            child = context.Process(target=lambda turn=turn: step(turn.get()), daemon=True)
            child.start()
            self._waiting.append((child, turn))

    def begin(self, port: int) -> BaseProcess:
        """Let the next one do its work, with a port."""
        child, turn = self._waiting.pop()
        turn.put(port)
        return child


def killed(child: BaseProcess) -> None:
    assert child.pid
    os.kill(child.pid, signal.SIGKILL)
    child.join()


def is_whole_or_not_there(exchange: JournalledExchange, message: Message) -> bool:
    path = exchange.path(message.signed)
    return not path.exists() or path.read_bytes() == message.to_bytes()


def both_are_there_once(world: World, messages: tuple[Message, Message]) -> None:
    for exchange in (world.exchange, world.mirror(SITE)):
        found = [path for path in exchange.root.rglob("*.message") if path.is_file()]
        assert sorted(path.read_bytes() for path in found) == sorted(m.to_bytes() for m in messages)
    assert list((world.exchange.root / uploads.FOLDER).rglob("*.part")) == []
    assert list((world.mirror(SITE).root / link_state.FOLDER / "incoming").iterdir()) == []
    arrived = [line for line in world.office.audit.lines() if line["event"] == "arrived"]
    assert len(arrived) == 1


def test_a_server_that_is_killed_goes_on_where_it_was(
    world: World, messages: tuple[Message, Message]
) -> None:
    def serve(port: int) -> None:
        app = exchange_app(world.office)
        tls_server(app, "127.0.0.1", port, world.certificates, lambda *_: None).run()

    servers = Children(serve)
    with reserved_port() as port:
        server = servers.begin(port)
        with TcpRelay(port) as relay, running(world.link(port=relay.port)):
            for moved in WHEN:
                wait_for(lambda moved=moved: relay.up + relay.down > moved)
                killed(server)
                assert is_whole_or_not_there(world.exchange, messages[0])
                server = servers.begin(port)
            wait_for(world.exchange.path(messages[0].signed).exists)
            wait_for(world.mirror(SITE).path(messages[1].signed).exists)
            wait_for(lambda: len(world.audit(SITE).lines()) >= 2)
        killed(server)
    both_are_there_once(world, messages)
    # A piece that was on the way is sent again, and what was there before is not.
    assert relay.up < SIZE + (len(WHEN) + 1) * 2 * MB


def test_a_client_that_is_killed_goes_on_where_it_was(
    world: World, messages: tuple[Message, Message]
) -> None:
    def carry(port: int) -> None:
        with world.link(port=port) as link:
            link.run(threading.Event())

    part = world.mirror(SITE).root / link_state.FOLDER / "incoming" / messages[1].signed.digest
    clients = Children(carry)
    with serving(world), TcpRelay(world.port) as relay:
        client = clients.begin(relay.port)
        for moved in WHEN:
            wait_for(lambda moved=moved: relay.up + relay.down > moved)
            killed(client)
            assert is_whole_or_not_there(world.mirror(SITE), messages[1])
            have = part.stat().st_size if part.exists() else 0
            before = relay.down
            client = clients.begin(relay.port)
        wait_for(world.exchange.path(messages[0].signed).exists)
        wait_for(world.mirror(SITE).path(messages[1].signed).exists)
        wait_for(lambda: len(world.audit(SITE).lines()) >= 2)
        killed(client)
    both_are_there_once(world, messages)
    # Nothing that it had is asked for again; what was in the buffers of the killed one is.
    assert relay.down - before < SIZE - have + 2 * MB
    assert relay.up < SIZE + (len(WHEN) + 1) * 2 * MB


def test_an_upload_that_is_whole_and_was_not_put_into_place_yet_is_finished(
    world: World, messages: tuple[Message, Message]
) -> None:
    up, content = messages[0], messages[0].to_bytes()
    place = world.exchange.root / uploads.FOLDER / SITE
    place.mkdir(parents=True)
    (place / f"{up.signed.digest}.{len(content)}.part").write_bytes(content)
    with serving(world), TcpRelay(world.port) as relay, world.link(port=relay.port) as link:
        assert link.push() == 1
        assert relay.up < MB
    assert world.exchange.path(up.signed).read_bytes() == content


def test_a_part_that_was_damaged_while_the_machine_was_down_is_fetched_and_sent_anew(
    world: World, messages: tuple[Message, Message]
) -> None:
    up, down = messages
    place = world.exchange.root / uploads.FOLDER / SITE
    place.mkdir(parents=True)
    (place / f"{up.signed.digest}.{up.size}.part").write_bytes(bytes(5 * MB))
    with serving(world), world.link() as link:
        incoming = world.mirror(SITE).root / link_state.FOLDER / "incoming"
        (incoming / down.signed.digest).write_bytes(bytes(5 * MB))
        assert link.push() == 1
        assert link.pull() == 1
    both_are_there_once(world, messages)
