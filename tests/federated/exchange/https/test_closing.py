"""A link that is closed while threads wait on it writes into no file that is opened next."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from federated.exchange.https.client import Greeting, Link
from federated.exchange.https.link_errors import LinkError
from tests.federated.exchange.https.world import World

CONTENT = b"a line of another file\n" * 40


def waiting(link: Link) -> list[threading.Thread]:
    """Threads that wait for news; they have had time to connect."""

    def wait() -> None:
        with suppress(LinkError):
            link.pull(20)

    threads = [threading.Thread(target=wait, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    return threads


def test_what_is_opened_after_a_link_was_closed_gets_no_byte_of_it(
    world: World, tmp_path: Path
) -> None:
    # The system gives numbers of closed connections to the next files: TLS's farewell went there.
    for number in range(12):
        with world.link() as link:
            threads = waiting(link)
        paths = [tmp_path / f"{number}-{each}" for each in range(8)]
        opened = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND) for path in paths]
        for one in opened:
            os.write(one, CONTENT)
            os.lseek(one, 0, os.SEEK_SET)
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        for one in opened:
            os.close(one)
        assert all(path.read_bytes() == CONTENT for path in paths)


def test_who_waits_on_a_link_that_is_closed_waits_no_longer(world: World) -> None:
    started = time.monotonic()
    with world.link() as link:
        threads = waiting(link)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert time.monotonic() - started < 4


@contextmanager
def silent_server() -> Iterator[tuple[int, threading.Event]]:
    """A port where connections are made and nobody says anything, and whether one was made."""
    met = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening, ExitStack() as taken:

        def take() -> None:
            with suppress(OSError):
                taken.enter_context(listening.accept()[0])
                met.set()

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield listening.getsockname()[1], met
    thread.join(10)


def test_nobody_waits_for_a_handshake_that_hangs(world: World) -> None:
    """Neither who closes the link, nor the thread in the handshake, which would for 15 seconds."""
    with silent_server() as (port, met):
        with world.link(port=port) as link:
            (thread, *_) = waiting(link)
            assert met.wait(10)
            started = time.monotonic()
        assert time.monotonic() - started < 2
        thread.join(2)
        assert not thread.is_alive()


def test_who_closes_a_link_does_not_wait_for_one_that_is_being_dialled(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialling, may_go_on, connect = threading.Event(), threading.Event(), socket.create_connection

    def slowly(*given: Any, **named: Any) -> socket.socket:
        dialling.set()
        assert may_go_on.wait(20)
        return connect(*given, **named)

    monkeypatch.setattr(socket, "create_connection", slowly)
    said: list[str] = []

    def ask() -> None:
        try:
            link.hello(Greeting())
        except LinkError as error:
            said.append(error.cause)

    with world.link() as link:
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        assert dialling.wait(10)
        started = time.monotonic()
    assert time.monotonic() - started < 2
    # Whoever has answered there then, nothing is said to it, and nothing stays open.
    may_go_on.set()
    thread.join(5)
    assert not thread.is_alive()
    assert len(said) == 1
    assert link._caller._client.is_closed


def test_a_closed_link_says_so(world: World) -> None:
    with world.link() as link:
        link.hello(Greeting())
    with pytest.raises(LinkError, match="are closed"):
        link.hello(Greeting())
