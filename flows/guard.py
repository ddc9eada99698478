"""Who may speak to a server: whoever has its login, from its own pages or a program.

A server on a loopback address can be reached by more than its owner. Every other user of the
machine can connect to it. So can every web page that is open in the owner's browser: by requests to
the loopback address from the page's own origin, and, after DNS rebinding, by requests of an "own"
origin whose host name has been made to point here. Prefect 3.8.8 checks none of these; MLflow 3.17
asks for no login, and trusts pages of every loopback port.
"""

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from flows.login import Login

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
# Given a request's type (http or websocket), method and path: is it answered without the secret?
OpenToAll = Callable[[str, str, str], bool]

# Any port, for whoever forwards one from another machine: a page cannot choose it.
LOOPBACK = re.compile(rb"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
# Pages of other origins may neither frame these, nor load from them.
HEADERS = {
    b"x-frame-options": b"SAMEORIGIN",
    b"x-content-type-options": b"nosniff",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"same-origin",
    # Prefect's pages tell a company of each visit, and no setting of the server stops them.
    b"content-security-policy": (
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self'"
    ),
}
# In bytes and seconds: how much of the body of a request is read that is refused.
MOST_UNREAD, LONGEST_UNREAD = 2**18, 5
Refusal = tuple[int, str]


@dataclass(frozen=True)
class Address:
    """How a server is called by those whom it answers.

    Attributes:
        scheme: ``http`` or ``https``; pages of the other one are of another origin.
        is_own: whether a value of the header ``Host`` is the server's. A host name that somebody
            else has made to point here is not.
        told: how it is called, for whoever called it by something else.
        login_told_by: the command that tells its owner the login.
    """

    scheme: str
    is_own: Callable[[bytes], bool]
    told: str
    login_told_by: str


def _is_loopback(host: bytes) -> bool:
    return LOOPBACK.fullmatch(host) is not None


ON_THIS_MACHINE = Address("http", _is_loopback, "http://127.0.0.1", "consilium serve --env")


class Guard:
    """An ASGI application in front of another one, which refuses whoever should not be answered.

    It refuses in this order: a host that is not the server's own (400), another origin (403), no
    secret (401). The secret of ``login`` is asked for as HTTP Basic, for every request that is not
    ``open_to_all``.

    Args:
        app: what is guarded.
        login: who is let in.
        open_to_all: what is answered without the secret.
        prompts: whether a browser is told to ask its user for the secret; otherwise the pages
            behind the guard ask for it themselves.
        address: how the server is called; at a loopback address if left out.
    """

    def __init__(
        self,
        app: App,
        login: Login,
        open_to_all: OpenToAll,
        *,
        prompts: bool,
        address: Address = ON_THIS_MACHINE,
    ) -> None:
        self._app = app
        self._login = login
        self._open_to_all = open_to_all
        self._prompts = prompts
        self._address = address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif refusal := self._refusal(scope):
            await _refuse(scope, receive, send, *refusal, prompts=self._prompts)
        else:
            await self._app(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> Refusal | None:
        headers, address = headers_of(scope), self._address
        method = scope.get("method", "GET")
        hosts = headers.get(b"host", [])
        if len(hosts) != 1 or not address.is_own(hosts[0]):
            return 400, f"Invalid host: this server answers at {address.told} only."
        origins = headers.get(b"origin", [])
        own = f"{address.scheme}://".encode() + hosts[0].lower()
        if any(origin.lower() != own for origin in origins) or _fetched_elsewhere(headers, method):
            return 403, "Pages of other origins are not answered."
        if self._open_to_all(scope["type"], method, scope["path"]):
            return None
        given = headers.get(b"authorization", [])
        if len(given) != 1 or not hmac.compare_digest(given[0], self._login.header):
            return 401, f"Unauthorized: `{address.login_told_by}` prints the login to its owner."
        return None


def headers_of(scope: Scope) -> Mapping[bytes, list[bytes]]:
    """All values of each header, by its name in lower case, as ASGI has it."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        values.setdefault(name, []).append(value)
    return values


def _fetched_elsewhere(headers: Mapping[bytes, list[bytes]], method: str) -> bool:
    """Whether a browser says that a page of another origin asks for this, other than by a link.

    Requests for images, scripts and frames have no ``Origin``, and a browser that was given the
    login sends it along with them. Another port of this machine is ``same-site``.
    """
    sites = headers.get(b"sec-fetch-site", [])
    if all(site in (b"none", b"same-origin") for site in sites):
        return False
    modes, destinations = headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest")
    return method != "GET" or modes != [b"navigate"] or destinations != [b"document"]


async def _refuse(
    scope: Scope, receive: Receive, send: Send, status: int, said: str, *, prompts: bool
) -> None:
    """Answer with a line of text, or refuse a WebSocket before it is one."""
    kind = "http.response"
    if scope["type"] == "websocket":
        await receive()  # the request to connect
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008})
            return
        kind = "websocket.http.response"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *HEADERS.items()]
    if scope["type"] == "http" and not await _is_read(scope, receive):
        headers.append((b"connection", b"close"))
    if status == 401 and prompts:
        headers.append((b"www-authenticate", b'Basic realm="consilium"'))
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": said.encode()})


async def _is_read(scope: Scope, receive: Receive) -> bool:
    """Read a short body of a request that is refused; whether there is nothing left of it.

    A connection that is closed before it is read may be reset before the answer is.
    """
    if {b"content-length", b"transfer-encoding"}.isdisjoint(headers_of(scope)):
        return True
    left = MOST_UNREAD
    with suppress(TimeoutError):
        async with asyncio.timeout(LONGEST_UNREAD):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body"):
                    return True
    return False


def _with_headers(send: Send) -> Send:
    """A ``send`` that adds what browsers have to know, where the application has not said it."""

    async def add(message: Message) -> None:
        if message["type"] == "http.response.start":
            said = {name.lower() for name, _ in message.get("headers", [])}
            missing = [item for item in HEADERS.items() if item[0] not in said]
            message["headers"] = [*message.get("headers", []), *missing]
        await send(message)

    return add
