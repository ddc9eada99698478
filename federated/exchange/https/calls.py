"""Signed requests of a site, and what their answers mean.

A request that the coordinator refuses for its time, or for a server that was started anew since, is
signed again by what the answer says: TLS shows that it is the coordinator's.
"""

import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakSet

import httpx

from federated.errors import printable
from federated.exchange.audit import AuditLog
from federated.exchange.https.authentication import PREFIX, TOLD, stamp
from federated.exchange.https.certificates import client_context
from federated.exchange.https.link_errors import (
    LinkError,
    clock_text,
    explained,
    not_enrolled,
    other_server,
    suspended,
    wrong_clock,
)
from federated.exchange.identity import Identity

# Seconds to connect, and without a byte of an answer beyond what was asked to wait.
CONNECT, SILENCE = 15.0, 60.0
# How often a request is signed anew before it is given up.
TRIES = 4
# How long closing waits for requests that other threads make, in seconds.
LEAVE = 5.0
# In bytes, of an answer that is no message.
MOST_ANSWER = 4 * 2**20


class BodyRefusedError(Exception):
    """The coordinator does not take what a site has sent, and never will; it says why."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(printable(sentence, 400))
        self.reason = printable(reason, 40)


@dataclass(frozen=True)
class Answer:
    """The answer to a request: its headers, the value of its JSON, and what stands behind that."""

    headers: Mapping[str, str]
    value: Any
    rest: bytes = b""


class Caller:
    """Requests of one site to one coordinator; several threads may make them.

    Args:
        identity: the site, with its key.
        consortium: the consortium's id.
        url: the coordinator's address, which may have a path.
        authority: the certificate (PEM) that is trusted alone; those of the machine if empty.
        audit: the site's log.
        say: is told what a person should see at once.
    """

    def __init__(
        self,
        identity: Identity,
        consortium: str,
        url: str,
        authority: str,
        audit: AuditLog,
        say: Callable[[str], None],
    ) -> None:
        self.url = url.rstrip("/")
        self._identity, self._consortium, self._audit, self._say = identity, consortium, audit, say
        self._instance, self._ahead = "", 0.0
        # Held for a moment; told when a request ends.
        self._guard = threading.Condition()
        self._sockets: WeakSet[socket.socket] = WeakSet()
        # How many requests there are, and how many of them have no connection yet.
        self._requests, self._dialling, self._is_closed = 0, 0, False
        self._client = httpx.Client(
            verify=client_context(authority),
            timeout=httpx.Timeout(SILENCE, connect=CONNECT),
            limits=httpx.Limits(keepalive_expiry=60),
            headers={"accept-encoding": "identity"},
        )
        # They say nothing, and a round has many requests.
        for name in ("accept", "connection", "user-agent"):
            del self._client.headers[name]

    def close(self) -> None:
        """End the connections, also those on which other threads wait for an answer or for TLS.

        A thread that has not left its request after :data:`LEAVE` seconds keeps its connection,
        which is ended but not closed: the system gives the number of a closed one to the next file
        that is opened, and TLS would write its farewell into that. A thread that is still dialling
        has none and is not waited for; what is left is closed by whoever leaves last.
        """
        with self._guard:
            self._is_closed = True
            for connected in list(self._sockets):
                _end(connected)
            self._guard.wait_for(lambda: self._requests == self._dialling, LEAVE)
            self._close_if_left()

    def _close_if_left(self) -> None:
        """Close the connections where nobody uses any; whoever calls holds the guard."""
        if self._is_closed and not self._requests:
            self._client.close()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a request for as long as it uses a connection.

        Raises:
            LinkError: the connections are closed.
        """
        with self._guard:
            if self._is_closed:
                raise LinkError("connection", f"The connections to {self.url} are closed.")
            self._requests += 1
        try:
            yield
        finally:
            with self._guard:
                self._requests -= 1
                self._close_if_left()
                self._guard.notify_all()

    def _trace(self, handshake: ExitStack, event: str, told: Mapping[str, Any]) -> None:
        """Keep the socket of a connection that is made, to be able to end it.

        TLS takes the socket over as its handshake begins, and shows its own once that has ended.
        For as long as it lasts there is a second handle on the connection, in ``handshake``.
        """
        if event.endswith("connect_tcp.started"):
            self._count_dialling(1)
        elif event.endswith("connect_tcp.failed"):
            self._count_dialling(-1)
        elif event.endswith("connect_tcp.complete"):
            dialled = told["return_value"].get_extra_info("socket")
            self._keep(handshake.enter_context(dialled.dup()))
            self._count_dialling(-1)
        elif event.endswith("start_tls.complete"):
            self._keep(told["return_value"].get_extra_info("socket"))
            handshake.close()

    def _count_dialling(self, more: int) -> None:
        with self._guard:
            self._dialling += more
            self._guard.notify_all()

    def _keep(self, connected: socket.socket) -> None:
        with self._guard:
            self._sockets.add(connected)
            if self._is_closed:
                _end(connected)

    def ask(self, method: str, target: str, content: bytes = b"", wait: float = 0) -> Answer:
        """Make a request, and return its answer.

        Args:
            method: ``GET`` and so on.
            target: the path with the query, below :data:`PREFIX`.
            content: the body.
            wait: how many seconds the coordinator may wait before it answers.

        Raises:
            LinkError: the coordinator was not reached, or does not let the site in.
            BodyRefusedError: it does not take what was sent.
        """
        with self.answer(method, target, content, wait=wait) as response:
            body = bytearray()
            for part in self.parts(response):
                body += part
                if len(body) > MOST_ANSWER:
                    raise other_server(self.url, response.status_code)
        line, _, rest = bytes(body).partition(b"\n")
        value = None if method == "HEAD" else _json(response, line, self.url)
        return Answer(response.headers, value, rest)

    @contextmanager
    def answer(
        self,
        method: str,
        target: str,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        wait: float = 0,
    ) -> Iterator[httpx.Response]:
        """Make a request, and yield its answer as it begins to arrive.

        Args:
            method: ``GET`` and so on.
            target: the path with the query, below :data:`PREFIX`.
            content: the body.
            headers: beside those that say who asks.
            wait: how many seconds the coordinator may wait before it answers.

        Raises:
            LinkError: the coordinator was not reached, or does not let the site in.
            BodyRefusedError: it does not take what was sent.
        """
        reason = ""
        for _ in range(TRIES):
            with self._sent(method, target, content, headers or {}, wait) as response:
                if response.status_code < 300:
                    yield response
                    return
                reason = self._learn(response)
        if reason == "clock":
            raise wrong_clock(self._ahead, self.url)
        raise LinkError(
            "broken",
            f"Each request to {self.url} was refused ({reason}), though it was signed anew each "
            "time. Something in between sends requests twice, or several servers answer there.",
        )

    def parts(self, response: httpx.Response) -> Iterator[bytes]:
        """The body of an answer as it arrives.

        Raises:
            LinkError: the connection breaks off.
        """
        try:
            yield from response.iter_raw()
        except httpx.HTTPError as error:
            raise explained(error, self.url) from error

    @contextmanager
    def _sent(
        self, method: str, target: str, content: bytes, headers: Mapping[str, str], wait: float
    ) -> Iterator[httpx.Response]:
        at = time.time() + self._ahead
        signed = stamp(
            self._identity, self._consortium, method, target, content, at, self._instance
        )
        handshake = ExitStack()
        request = self._client.build_request(
            method,
            f"{self.url}{PREFIX}{target}",
            content=content or None,
            headers={**headers, **signed.to_headers()},
            timeout=httpx.Timeout(SILENCE + wait, connect=CONNECT),
            extensions={"trace": partial(self._trace, handshake)},
        )
        with self._counted(), handshake:
            try:
                response = self._client.send(request, stream=True)
            except httpx.HTTPError as error:
                raise explained(error, self.url) from error
            try:
                yield response
            finally:
                response.close()

    def _learn(self, response: httpx.Response) -> str:
        """Make of a refusal what the next request needs, and say what that was.

        Raises:
            LinkError: it helps nothing to ask again now.
            BodyRefusedError: the coordinator does not take what was sent.
        """
        told, status, site = self._refusal(response), response.status_code, self._identity.name
        reason = told.get("reason")
        if status == 401 and "instance" in told:
            if reason not in ("clock", "instance", "replayed"):
                raise not_enrolled(site, self._identity.public.fingerprint, self.url)
            self._correct(told, reason == "clock")
            return str(reason)
        if status == 403 and reason == "suspended":
            raise suspended(site, self.url)
        if status in (413, 422) and "refused" in told:
            raise BodyRefusedError(str(reason), str(told["refused"]))
        if status in (408, 429, 500, 502, 503, 504, 507):
            said = printable(str(told.get("refused", f"HTTP {status}")), 400)
            raise LinkError("busy", f"The coordinator at {self.url} does not answer now: {said}")
        if status in (404, 416) and reason:
            raise LinkError("refused", f"{self.url} does not have what was asked for ({reason}).")
        raise other_server(self.url, status)

    def _refusal(self, response: httpx.Response) -> dict[str, Any]:
        body = bytearray()
        for part in self.parts(response):
            body += part
            if len(body) > MOST_ANSWER:
                break
        content = response.headers.get(TOLD, "").encode() or bytes(body)
        with suppress(LinkError):
            told = _json(response, content, self.url)
            if isinstance(told, dict):
                return told
        # Of a proxy, or of a server that is something else.
        return {}

    def _correct(self, told: dict[str, Any], is_clock: bool) -> None:
        """Take over the time and the instance that the coordinator tells."""
        now, instance = told.get("time"), told.get("instance")
        if isinstance(instance, str):
            self._instance = instance
        if is_clock and isinstance(now, int | float):
            self._ahead = float(now) - time.time()
            self._tell_clock()

    def _tell_clock(self) -> None:
        text = (
            f"{clock_text(self._ahead, self.url)} Requests are dated by that one; set this "
            "machine's clock (NTP), because what else it dates is wrong."
        )
        self._audit.add("clock off", seconds=round(self._ahead), said=text)
        self._say(text)


def _end(connected: socket.socket) -> None:
    with suppress(OSError):
        # Not by TLS, which would forget its keys under the thread that reads or writes.
        socket.socket.shutdown(connected, socket.SHUT_RDWR)


def _json(response: httpx.Response, body: bytes, url: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise other_server(url, response.status_code) from error


class Backoff:
    """How long to wait before the next try: twice as long each time, with jitter, up to a cap."""

    def __init__(self, first: float = 0.05, cap: float = 60.0) -> None:
        self._first, self._cap = first, cap
        self._next = first

    def reset(self) -> None:
        """Something has gone well."""
        self._next = self._first

    def seconds(self) -> float:
        """The time until the next try."""
        # Sites that have lost one coordinator do not all come back at once.
        jitter = 0.5 + secrets.randbelow(1000) / 1000
        wait, self._next = self._next * jitter, min(2 * self._next, self._cap)
        return wait
