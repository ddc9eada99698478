"""The guard before a toy application; tests/system attacks the real servers."""

import asyncio
from typing import Any

import pytest

from flows.certified import certified_address
from flows.guard import MOST_UNREAD, Guard
from flows.login import Login, new_login
from flows.ports import listen, port_of

LOGIN = Login("right")
OWN = "127.0.0.1:4200"


async def toy(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    headers = [(b"X-Frame-Options", b"DENY")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"private"})


def ask(
    headers: list[tuple[str, str]],
    kind: str = "http",
    path: str = "/x",
    method: str = "POST",
    extensions: tuple[str, ...] = (),
) -> list[dict[str, Any]]:
    """What a guard whose path /open is open to all sends in answer."""
    guard = Guard(toy, LOGIN, lambda kind, method, path: path == "/open", prompts=True)
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers],
        "extensions": {name: {} for name in extensions},
    }
    asyncio.run(guard(scope, receive, send))
    return sent


def status(*headers: tuple[str, str], **request: Any) -> int:
    return int(ask(list(headers), **request)[0]["status"])


RIGHT = ("authorization", LOGIN.header.decode())
HOST = ("host", OWN)


def test_the_owner_is_answered():
    for host in (OWN, "127.0.0.1", "localhost:8080", "LOCALHOST", "[::1]:4200"):
        own = ("origin", f"http://{host}")
        assert status(("host", host), RIGHT) == 200
        assert status(("host", host), own, ("sec-fetch-site", "same-origin"), RIGHT) == 200


@pytest.mark.parametrize("given", ["Basic Og==", "Basic", "Bearer right", "", "Basic ÿ"])
def test_without_the_secret_nothing_private_is_answered(given):
    for headers in ([HOST], [HOST, ("authorization", given)], [HOST, RIGHT, RIGHT]):
        start, body = ask(headers)
        assert start["status"] == 401
        assert (b"www-authenticate", b'Basic realm="consilium"') in start["headers"]
        assert b"private" not in body["body"]
    assert status(HOST, path="/open") == 200


def test_what_is_open_to_all_is_closed_to_other_hosts_and_origins():
    assert status(("host", "evil.example"), path="/open") == 400
    assert status(HOST, ("origin", "http://evil.example"), path="/open") == 403
    assert status(HOST, ("origin", "https://127.0.0.1:4200"), path="/open") == 403
    two = (("origin", f"http://{OWN}"), ("origin", "http://evil.example"))
    assert status(HOST, *two, path="/open") == 403


def test_one_host_is_named():
    assert status(RIGHT) == 400
    assert status(HOST, ("host", "evil.example"), RIGHT) == 400
    assert status(HOST, HOST, RIGHT) == 400


def test_a_link_from_another_page_is_followed_and_nothing_else_of_it():
    def fetched(method: str, mode: str, destination: str) -> int:
        said = (("sec-fetch-mode", mode), ("sec-fetch-dest", destination))
        return status(HOST, ("sec-fetch-site", "cross-site"), *said, RIGHT, method=method)

    assert fetched("GET", "navigate", "document") == 200
    assert fetched("POST", "navigate", "document") == 403
    assert fetched("GET", "navigate", "iframe") == 403
    assert fetched("GET", "no-cors", "script") == 403
    assert status(HOST, ("sec-fetch-site", "same-site"), RIGHT, method="GET") == 403


def test_a_web_socket_is_refused_before_it_opens():
    assert ask([HOST, RIGHT], kind="websocket") == [{"type": "websocket.accept"}]
    evil = [HOST, RIGHT, ("origin", "https://evil.example")]
    assert [message["type"] for message in ask(evil, kind="websocket")] == ["websocket.close"]
    answered = ask([HOST], kind="websocket", extensions=("websocket.http.response",))
    assert answered[0]["type"] == "websocket.http.response.start"
    assert answered[0]["status"] == 401


def test_an_application_may_be_stricter_about_frames():
    (start, _) = ask([HOST, RIGHT])
    named = [value for name, value in start["headers"] if name.lower() == b"x-frame-options"]
    assert named == [b"DENY"]
    assert (b"cross-origin-resource-policy", b"same-origin") in start["headers"]


def test_every_login_has_a_secret_of_its_own_which_is_not_shown():
    first, second = new_login(), new_login()
    assert first != second
    assert len(first.secret) >= 43  # 256 bits
    assert first.secret not in repr(first)


def test_a_port_that_is_listened_at_is_nobody_elses():
    with listen() as mine, pytest.raises(OSError, match="in use"):
        listen(port_of(mine))


def refusal_of(content: list[bytes]) -> tuple[dict[str, Any], int]:
    """How a guard refuses a request whose body is in these pieces, and how many are left unread."""
    sent: list[dict[str, Any]] = []
    pieces = list(content)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    headers = [(b"host", OWN.encode()), (b"transfer-encoding", b"chunked")]
    scope = {"type": "http", "method": "POST", "path": "/x", "headers": headers}
    asyncio.run(Guard(toy, LOGIN, lambda *_: False, prompts=True)(scope, receive, send))
    return sent[0], len(pieces)


def test_a_short_body_is_read_before_its_request_is_refused_and_a_long_one_ends_the_connection():
    """Or whoever sends it would see a connection that is reset, and not why."""
    start, left = refusal_of([b"x"] * 3)
    assert (start["status"], left) == (401, 0)
    assert b"connection" not in dict(start["headers"])
    start, left = refusal_of([b"x" * 2**16] * 40)
    assert left == 40 - MOST_UNREAD // 2**16
    assert dict(start["headers"])[b"connection"] == b"close"


CERTIFIED = certified_address(
    ["fl.example.org", "*.hospital.example", "10.0.0.7", "fd00::7"], "https://fl.example.org"
)


@pytest.mark.parametrize(
    "host",
    [
        "fl.example.org",
        "FL.example.org:8443",
        "a.hospital.example",
        "10.0.0.7:1",
        "[fd00:0::7]:8443",
    ],
)
def test_a_server_is_called_by_the_names_of_its_certificate(host):
    assert CERTIFIED.is_own(host.encode())


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "example.org", "x.fl.example.org", "fl.example.org.evil.example"),
        *("hospital.example", "a.b.hospital.example", ".hospital.example", "127.0.0.1"),
        *("localhost", "fl.example.org.", "fl.example.org:", "a@fl.example.org", "", "[::1]"),
        *("fl.example.org:8443:1", "fl.example.org\n", "*.hospital.example", "10.0.0.70"),
    ],
)
def test_and_by_no_others(host):
    assert not CERTIFIED.is_own(host.encode())


def test_pages_of_http_are_of_another_origin_than_those_of_https():
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    guard = Guard(toy, LOGIN, lambda *_: True, prompts=True, address=CERTIFIED)
    for scheme, status in (("http", 403), ("https", 200)):
        origin = (b"origin", f"{scheme}://fl.example.org:8443".encode())
        headers = [(b"host", b"fl.example.org:8443"), origin]
        scope = {"type": "http", "method": "POST", "path": "/x", "headers": headers}
        asyncio.run(guard(scope, None, send))
        assert sent[0]["status"] == status
        sent.clear()
