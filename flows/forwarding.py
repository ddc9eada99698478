"""Passing requests on to another server of this machine, as they come, and its answers back.

Nothing is held back or gathered: bodies pass piece by piece, both ways, so that a model of any size
takes no memory here. The other server has a guard of its own, which wants to be called by its
loopback address from its own origin; so it is, once the guard in front has refused everybody else.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from flows.guard import Message, Receive, Scope, Send, headers_of
from flows.ports import HOST

# Of one connection alone (RFC 9110, section 7.6.1), or what is said of who is asked.
NOT_PASSED = frozenset(
    name.encode()
    for name in (
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"),
        *("upgrade", "host", "origin", "expect", "forwarded", "via"),
    )
)
# In bytes, of a message of a WebSocket; and in seconds, to connect on this machine.
LARGEST, CONNECT = 16 * 2**20, 30
MOST_CONNECTIONS = 256


class _GoneError(Exception):
    """Whoever has asked is gone."""


class Forwarder:
    """An ASGI application that passes everything on to a loopback port."""

    def __init__(self, port: int) -> None:
        self._server = f"{HOST}:{port}"
        limits = httpx.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=32)
        # A server may take its time; who waits may leave.
        timeout = httpx.Timeout(None, connect=CONNECT)
        self._client = httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
            return
        try:
            answer = await self._client.send(self._request(scope, receive), stream=True)
        except _GoneError:
            return
        except httpx.InvalidURL:
            await say(send, 400, "This is no address of a page.")
            return
        except httpx.HTTPError:
            await say(send, 502, "The server behind this page does not answer. Try again soon.")
            return
        try:
            await self._pass_back(answer, send)
        finally:
            await answer.aclose()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def is_healthy(self, path: str) -> bool:
        """Whether the server answers at a path within two seconds that it is well."""
        try:
            answer = await self._client.get(f"http://{self._server}{path}", timeout=2)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    def _request(self, scope: Scope, receive: Receive) -> httpx.Request:
        headers = self._headers(scope)
        named = {name for name, _ in scope["headers"]}
        has_body = named & {b"content-length", b"transfer-encoding"}
        body = _body(receive) if has_body else None
        return httpx.Request(
            scope["method"], f"http://{self._server}{_target(scope)}", headers=headers, content=body
        )

    def _headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        passed = [
            (name, value)
            for name, value in scope["headers"]
            if name not in NOT_PASSED and not name.startswith(b"x-forwarded-")
        ]
        passed.append((b"host", self._server.encode()))
        if b"origin" in headers_of(scope):
            passed.append((b"origin", f"http://{self._server}".encode()))
        return passed

    async def _pass_back(self, answer: httpx.Response, send: Send) -> None:
        headers = []
        for name, value in answer.headers.raw:
            lower = name.lower()
            if lower == b"location":
                # Below the address that this server was called by.
                headers.append((lower, value.removeprefix(f"http://{self._server}".encode())))
            elif lower not in NOT_PASSED:
                headers.append((lower, value))
        await send(
            {"type": "http.response.start", "status": answer.status_code, "headers": headers}
        )
        # Cut short by the other server, the answer is cut short here too: its length says so.
        with suppress(httpx.HTTPError):
            async for part in answer.aiter_raw():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # the request to connect
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in (b"authorization", b"cookie", b"user-agent")
        }
        try:
            opened = await connect(
                f"ws://{self._server}{_target(scope)}",
                additional_headers=headers,
                user_agent_header=None,
                subprotocols=[Subprotocol(each) for each in scope.get("subprotocols", [])] or None,
                compression=None,
                proxy=None,
                max_size=LARGEST,
                open_timeout=CONNECT,
            )
        except (OSError, InvalidHandshake, TimeoutError):
            await send({"type": "websocket.close", "code": 1011})
            return
        async with opened:
            await send({"type": "websocket.accept", "subprotocol": opened.subprotocol})
            await _exchange(opened, receive, send)


def _target(scope: Scope) -> str:
    """The path with the query as it was asked for."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope.get("query_string", b"")
    return (path.split(b"?")[0] + (b"?" + query if query else b"")).decode("latin-1")


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GoneError
        if part := message.get("body"):
            yield part
        if not message.get("more_body"):
            return


async def _exchange(opened: ClientConnection, receive: Receive, send: Send) -> None:
    """Pass messages both ways until one side ends."""
    up = asyncio.create_task(_up(opened, receive))
    down = asyncio.create_task(_down(opened, send))
    _, waiting = await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    await asyncio.gather(up, down, return_exceptions=True)


async def _up(opened: ClientConnection, receive: Receive) -> None:
    with suppress(ConnectionClosed):
        while True:
            message: Message = await receive()
            if message["type"] == "websocket.disconnect":
                await opened.close(_code(message.get("code")))
                return
            text = message.get("text")
            await opened.send(message["bytes"] if text is None else text)


async def _down(opened: ClientConnection, send: Send) -> None:
    try:
        while True:
            content = await opened.recv()
            kind = "text" if isinstance(content, str) else "bytes"
            await send({"type": "websocket.send", kind: content})
    except ConnectionClosed as end:
        code = _code(end.rcvd.code if end.rcvd else None)
        await send({"type": "websocket.close", "code": code, "reason": ""})


def _code(code: int | None) -> int:
    """A code that may be sent: 1005, 1006 and 1015 only ever say that there was none."""
    return code if code and (1000 <= code < 1004 or 1007 <= code < 1015 or code >= 3000) else 1000


async def say(send: Send, status: int, text: str, **headers: str) -> None:
    """Answer with a line of text."""
    said = {"content-type": "text/plain; charset=utf-8", "cache-control": "no-store", **headers}
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in said.items()]
    await send({"type": "http.response.start", "status": status, "headers": named})
    await send({"type": "http.response.body", "body": text.encode()})
