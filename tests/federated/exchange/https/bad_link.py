"""Links as they are between hospitals: relays that break off, lose, delay, cut, double and swap.

Each is started in a ``with`` statement, has a ``port`` on the loopback, and runs in a thread.

* :class:`TcpRelay` passes bytes on, counts them, and can break off after so many.
* :class:`ConnectProxy` is an HTTP proxy that tunnels TLS (``HTTPS_PROXY``).
* :class:`HttpRelay` ends TLS, as a reverse proxy does, and can take a prefix off the path.
* :class:`BadLink` is one that does to requests what bad links do, drawn from a seed.
"""

import asyncio
import random
import ssl
import threading
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Self

from federated.exchange.https.certificates import Certificates, client_context

HOST = "127.0.0.1"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
# Deeds of a bad link; each is drawn as often as the others.
DEEDS = ("drop", "drop answer", "delay", "cut request", "cut answer", "double", "swap")


class Relay:
    """A server on the loopback in a thread of its own."""

    tls: ssl.SSLContext | None = None

    def __init__(self) -> None:
        self.port = 0
        self._ready = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, HOST, 0, ssl=self.tls)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            await self.handle(reader, writer)
        except (OSError, EOFError, ssl.SSLError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError


async def _both(one: Coroutine[Any, Any, None], two: Coroutine[Any, Any, None]) -> None:
    """Run two until the first has ended."""
    tasks = [asyncio.ensure_future(one), asyncio.ensure_future(two)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class TcpRelay(Relay):
    """Passes bytes on to a port; ``break_every`` bytes, both ways together, it breaks off."""

    def __init__(self, target: int, break_every: int = 0) -> None:
        super().__init__()
        self.target, self.break_every = target, break_every
        self.up = self.down = self.breaks = 0
        self._left = break_every

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection(HOST, self.target)
        try:
            await _both(
                self._pass(reader, to_there, is_up=True), self._pass(there, writer, is_up=False)
            )
        finally:
            to_there.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_up: bool):
        while content := await source.read(2**16):
            if self.break_every:
                self._left -= len(content)
                if self._left <= 0:
                    self._left, self.breaks = self.break_every, self.breaks + 1
                    return
            if is_up:
                self.up += len(content)
            else:
                self.down += len(content)
            sink.write(content)
            await sink.drain()


class ConnectProxy(TcpRelay):
    """A proxy that tunnels to the loopback by ``CONNECT``, or says that it does not."""

    def __init__(self, allows: bool = True) -> None:
        super().__init__(0)
        self.allows = allows
        self.asked: list[str] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, place, _ = head.split(" ", 2)
        self.asked.append(f"{method} {place}")
        if not self.allows:
            writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
            return
        there, to_there = await asyncio.open_connection(HOST, int(place.rpartition(":")[2]))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await _both(
            self._pass(reader, to_there, is_up=True), self._pass(there, writer, is_up=False)
        )
        to_there.transport.abort()


async def _message(reader: asyncio.StreamReader, bodiless: bool = False) -> bytes:
    """A request or an answer, whole."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return head + (b"" if bodiless else await reader.readexactly(length))


class HttpRelay(Relay):
    """Ends TLS and passes requests on, without the first part of their paths if asked to.

    Args:
        target: the port of the server.
        certificates: what this one shows.
        authority: what it trusts.
        prefix: taken off the paths of requests, as ``/fl``.
    """

    def __init__(
        self, target: int, certificates: Certificates, authority: str, prefix: str = ""
    ) -> None:
        super().__init__()
        self.target, self.prefix = target, prefix.encode()
        self.requests = 0
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificates.load_into(self.tls)
        self._trusted = client_context(authority)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await _message(reader)
            self.requests += 1
            method, path, rest = request.split(b" ", 2)
            assert path.startswith(self.prefix)
            path = path.removeprefix(self.prefix)
            await self.pass_on(b" ".join((method, path, rest)), method == b"HEAD", writer)

    async def pass_on(self, request: bytes, bodiless: bool, writer: asyncio.StreamWriter) -> None:
        writer.write(await self.ask(request, bodiless))
        await writer.drain()

    async def ask(self, request: bytes, bodiless: bool) -> bytes:
        """The server's answer to a request."""
        reader, writer = await asyncio.open_connection(HOST, self.target, ssl=self._trusted)
        try:
            writer.write(request)
            await writer.drain()
            return await _message(reader, bodiless)
        finally:
            writer.transport.abort()


class BadLink(HttpRelay):
    """A reverse proxy that does one of :data:`DEEDS` to a part of the requests.

    Args:
        target: the port of the server.
        certificates: what this one shows.
        authority: what it trusts.
        seed: of the draws.
        rate: the share of requests to which something is done.
    """

    def __init__(
        self, target: int, certificates: Certificates, authority: str, seed: int, rate: float = 0.3
    ) -> None:
        super().__init__(target, certificates, authority)
        self.rate, self.done = rate, Counter[str]()
        self._draws = random.Random(seed)
        self._deck: list[str] = []
        self._passed = asyncio.Condition()

    async def pass_on(self, request: bytes, bodiless: bool, writer: asyncio.StreamWriter) -> None:
        deed = self._drawn() if self._draws.random() < self.rate else ""
        self.done[deed] += 1
        if deed == "drop":
            raise ConnectionResetError
        if deed == "cut request":
            await self._send_part(request)
            raise ConnectionResetError
        if deed == "delay":
            await asyncio.sleep(0.02 + self._draws.random() / 10)
        if deed == "swap":
            await self._let_another_pass()
        if deed == "double":
            await self.ask(request, bodiless)
        answer = await self.ask(request, bodiless)
        async with self._passed:
            self._passed.notify_all()
        if deed == "drop answer":
            raise ConnectionResetError
        if deed == "cut answer":
            writer.write(answer[: self._draws.randrange(len(answer))])
            await writer.drain()
            raise ConnectionResetError
        writer.write(answer)
        await writer.drain()

    def _drawn(self) -> str:
        """The next deed; of seven in a row no two are the same."""
        if not self._deck:
            self._deck = self._draws.sample(DEEDS, len(DEEDS))
        return self._deck.pop()

    async def _send_part(self, request: bytes) -> None:
        _, writer = await asyncio.open_connection(HOST, self.target, ssl=self._trusted)
        writer.write(request[: self._draws.randrange(len(request))])
        await writer.drain()
        writer.close()

    async def _let_another_pass(self) -> None:
        """Hold a request back until one that came later was answered, or none comes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(0.3), self._passed:
                await self._passed.wait()
