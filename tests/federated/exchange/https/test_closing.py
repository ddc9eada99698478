"""A link that is closed while threads wait on it writes into no file that is opened next."""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

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


def test_a_closed_link_says_so(world: World) -> None:
    with world.link() as link:
        link.hello(Greeting())
    with pytest.raises(LinkError, match="are closed"):
        link.hello(Greeting())
