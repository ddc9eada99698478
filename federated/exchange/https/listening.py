"""The server's connections: TLS, and limits, so that nobody shuts others out.

uvicorn bounds neither how long a request's header may take nor how many connections an address has.
Connections are counted where they are accepted, before TLS; a header, an answer that nobody reads
and the rest of a body that nobody wants have an end here.
"""

import asyncio
import logging
import resource
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from federated.errors import ConsiliumError
from federated.exchange.https.certificates import Certificates

# Descriptors of files that connections leave to others.
OTHER_FILES = 128
# In seconds: how long what is being answered may take when the server is asked to end.
SHUTDOWN = 0.5


@dataclass(frozen=True)
class ConnectionLimits:
    """What is too much of a connection, in numbers, seconds and bytes.

    Attributes:
        connections: how many there may be.
        each: how many of them may be from one address; all sites behind one proxy have one.
        proxies: addresses for which ``each`` does not hold: reverse proxies.
        handshake: seconds that TLS may take to begin.
        header: seconds in which the header of a request has to have arrived.
        header_bytes: how long it may be.
        idle: seconds that a connection without a request stays.
        stalled: seconds in which whoever asks has to take some of the answer.
    """

    connections: int = 1024
    each: int = 128
    proxies: frozenset[str] = frozenset()
    handshake: float = 10
    header: float = 10
    header_bytes: int = 16 * 2**10
    idle: int = 90
    stalled: float = 60


class _Counted(socket.socket):
    """A connection that is counted until it is closed."""

    ended: Callable[[], None] | None = None

    def close(self) -> None:
        ended, self.ended = self.ended, None
        super().close()
        if ended:
            ended()


class _Listener(socket.socket):
    """A listening socket that closes connections beyond the limits as it accepts them."""

    limits: ConnectionLimits
    refused: Callable[[str, str], None]
    counted: Counter[str]

    def accept(self) -> tuple[socket.socket, Any]:
        while True:
            accepted, address = super().accept()
            host = str(address[0])
            most = self.limits.connections
            is_proxy = host in self.limits.proxies
            if self.counted.total() < most and (is_proxy or self.counted[host] < self.limits.each):
                break
            accepted.close()
            self.refused(host, "too many connections")
        self.counted[host] += 1
        counted = _Counted(accepted.family, accepted.type, accepted.proto, accepted.detach())
        counted.ended = lambda: self._end(host)
        return counted, address

    def _end(self, host: str) -> None:
        self.counted[host] -= 1
        if not self.counted[host]:
            del self.counted[host]


class _Connection(H11Protocol):
    """A connection on which everything has an end."""

    limits: ConnectionLimits
    refused: Callable[[str, str], None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._header: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self._await_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self._header_is_there()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_idle() and self._header is None:
            self._await_header()
        super().data_received(data)
        if not self._is_idle():
            self._header_is_there()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._header_is_there()
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        self._tell("bad header")
        super().send_400_response(msg)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self.transport.close()  # nobody reads the rest

    def shutdown(self) -> None:
        super().shutdown()
        # Whoever waits for news, or is in the middle of something, comes back and goes on.
        self.loop.call_later(SHUTDOWN, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self.limits.stalled, self._abort, "slow reader")

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled:
            self._stalled.cancel()
            self._stalled = None

    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _await_header(self) -> None:
        self._header = self.loop.call_later(self.limits.header, self._abort, "slow header")

    def _header_is_there(self) -> None:
        if self._header:
            self._header.cancel()
            self._header = None

    def _abort(self, reason: str) -> None:
        self._tell(reason)
        self.transport.abort()

    def _tell(self, reason: str) -> None:
        self.refused(self.client[0] if self.client else "", reason)


class TlsServer(uvicorn.Server):
    """A server on a socket that is bound already, so that its port is known.

    Its ``run`` serves until ``should_exit`` is set or the process is asked to end.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        listener: _Listener,
        certificates: Certificates,
        connection: type[_Connection],
    ) -> None:
        super().__init__(config)
        self._listener, self._certificates, self._connection = listener, certificates, connection
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
        # Sites keep their connections; nobody comes back with a ticket.
        self._context.num_tickets = 0
        certificates.load_into(self._context)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._listener.getsockname()[1])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; uvicorn's own way would leave the handshake of TLS a minute."""
        assert sockets is None
        await self.lifespan.startup()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: self._connection(self.config, self.server_state, self.lifespan.state, loop),
            sock=self._listener,
            ssl=self._context,
            ssl_handshake_timeout=self._connection.limits.handshake,
            ssl_shutdown_timeout=1,
            backlog=self.config.backlog,
        )
        self.servers = [server]
        self.started = True
        if self.lifespan.should_exit:
            self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Every ten minutes look whether the certificate has to be renewed."""
        try:
            if counter % 6000 == 0 and self._certificates.renew():
                self._certificates.load_into(self._context)
        except ConsiliumError as error:
            self._connection.refused("", f"certificate: {error}")  # the old one goes on
        return await super().on_tick(counter)


def tls_server(
    app: ASGIApp,
    host: str,
    port: int,
    certificates: Certificates,
    refused: Callable[[str, str], None],
    limits: ConnectionLimits | None = None,
    websockets: bool = False,
) -> TlsServer:
    """A server that listens already, and serves when its ``run`` is called.

    Args:
        app: what answers.
        host: the address to listen on.
        port: the port; any free one if 0.
        certificates: what it shows.
        refused: is told the address and why, where a connection is refused or broken off.
        limits: what is too much.
        websockets: whether the application has any.

    Raises:
        ConsiliumError: nobody can listen there.
    """
    limits = limits or ConnectionLimits()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OTHER_FILES
    if files < limits.connections:
        limits = ConnectionLimits(**(vars(limits) | {"connections": max(files, 16)}))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = _Listener(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.limits, listener.refused, listener.counted = limits, refused, Counter()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise ConsiliumError(
            f"Nothing can listen on {host}, port {port}: {error.strerror or error}. Name a free "
            "port above 1024, and an address of this machine or 0.0.0.0 for all of them."
        ) from error
    listener.setblocking(False)
    connection = type(
        "Connection", (_Connection,), {"limits": limits, "refused": staticmethod(refused)}
    )
    config = uvicorn.Config(
        app,
        ws="auto" if websockets else "none",
        lifespan="auto",
        log_config=None,
        log_level=logging.ERROR,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=limits.idle,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=limits.header_bytes,
    )
    return TlsServer(config, listener, certificates, connection)
