"""What a page in the owner's browser, or another user of the machine, may send to a server here."""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

EVIL = "https://evil.example"
# What a browser says of a request that a page of that origin makes.
FROM_EVIL = {"Origin": EVIL, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
# Another port of this machine, as another user may have one.
FROM_ANOTHER_PORT = {"Origin": "http://127.0.0.1:9", "Sec-Fetch-Site": "same-site"}
FOREIGN_HOSTS = (
    "evil.example",
    "evil.example:4200",
    "127.0.0.1.evil.example",
    "localhost.evil.example:4200",
    "evil.example@127.0.0.1",
    "192.168.1.1",
    "0.0.0.0",
    "127.0.0.1:4200:80",
    "127.0.0.1/",
    "",
)


@dataclass(frozen=True)
class Target:
    """A server, a call that changes or reads what is private, and its owner's credentials."""

    url: str
    call: str
    credentials: tuple[str, str]


def statuses(target: Target) -> dict[str, int]:
    """The status that each attack is answered with."""
    with httpx.Client(base_url=target.url, timeout=60, trust_env=False) as client:
        return {name: attack(client, target) for name, attack in ATTACKS.items()}


def post(
    headers: Mapping[str, str], *, logged_in: bool, kind: str = "application/json"
) -> Callable[[httpx.Client, Target], int]:
    """A POST of JSON, under whatever content type."""

    def send(client: httpx.Client, target: Target) -> int:
        auth = target.credentials if logged_in else None
        said = {"Content-Type": kind, **headers}
        return client.post(target.call, content="{}", headers=said, auth=auth).status_code

    return send


def preflight(origin: str) -> Callable[[httpx.Client, Target], int]:
    def send(client: httpx.Client, target: Target) -> int:
        asked = {"Access-Control-Request-Method": "POST", "Origin": origin}
        asked["Access-Control-Request-Headers"] = "content-type"
        answer = client.options(target.call, headers=asked)
        assert "access-control-allow-origin" not in answer.headers or answer.status_code == 200
        return answer.status_code

    return send


def image(client: httpx.Client, target: Target) -> int:
    """An <img> in a page of another port; the browser sends the login that it was given."""
    said = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    return client.get("/", headers=said, auth=target.credentials).status_code


def frame(client: httpx.Client, target: Target) -> int:
    said = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    said["Sec-Fetch-Dest"] = "iframe"
    return client.get("/", headers=said, auth=target.credentials).status_code


def page_of(host: str, *, logged_in: bool) -> Callable[[httpx.Client, Target], int]:
    """The first page after DNS rebinding: the browser takes it for the attacker's own."""

    def send(client: httpx.Client, target: Target) -> int:
        auth = target.credentials if logged_in else None
        return client.get("/", headers={"Host": host}, auth=auth).status_code

    return send


def rebound(host: str, *, logged_in: bool) -> Callable[[httpx.Client, Target], int]:
    return post({"Host": host, "Origin": f"http://{host}"}, logged_in=logged_in)


def raw(request: str) -> Callable[[httpx.Client, Target], int]:
    """Bytes that no well-kept client sends."""

    def send(client: httpx.Client, target: Target) -> int:
        at = urlsplit(target.url)
        with socket.create_connection((at.hostname, at.port), timeout=60) as connection:
            connection.sendall(request.replace("HERE", at.netloc).encode())
            return int(connection.makefile("rb").readline().split()[1])

    return send


ATTACKS: dict[str, Callable[[httpx.Client, Target], int]] = {
    "preflight of another site": preflight(EVIL),
    "preflight of another port": preflight("http://127.0.0.1:9"),
    "preflight without an origin": preflight("null"),
    "POST of another site": post(FROM_EVIL, logged_in=False),
    "POST of another site, login sent along": post(FROM_EVIL, logged_in=True),
    "POST of another port, login sent along": post(FROM_ANOTHER_PORT, logged_in=True),
    "POST of a page without an origin": post({"Origin": "null"}, logged_in=True),
    "simple POST of another site": post(FROM_EVIL, logged_in=True, kind="text/plain"),
    "form of another site": post(
        FROM_EVIL, logged_in=True, kind="application/x-www-form-urlencoded"
    ),
    "image in a page of another port": image,
    "frame in a page of another site": frame,
    "POST of another user": post({}, logged_in=False),
    "simple POST of another user": post({}, logged_in=False, kind="text/plain"),
    "form of another user": post({}, logged_in=False, kind="application/x-www-form-urlencoded"),
    "wrong secret": post({"Authorization": "Basic Y29uc2lsaXVtOg=="}, logged_in=False),
    "other scheme": post({"Authorization": "Bearer x"}, logged_in=False),
    "two hosts": raw("GET / HTTP/1.1\r\nHost: HERE\r\nHost: evil.example\r\n\r\n"),
    "no host": raw("GET / HTTP/1.0\r\n\r\n"),
    **{f"page of host {host!r}": page_of(host, logged_in=False) for host in FOREIGN_HOSTS},
    **{
        f"page of host {host!r}, logged in": page_of(host, logged_in=True) for host in FOREIGN_HOSTS
    },
    **{f"POST to host {host!r}": rebound(host, logged_in=False) for host in FOREIGN_HOSTS},
    **{
        f"POST to host {host!r}, logged in": rebound(host, logged_in=True) for host in FOREIGN_HOSTS
    },
}


def expected(name: str) -> int:
    """400 for a host, 403 for a page of another origin, 401 for who has no secret."""
    if "host" in name:
        return 400
    if "user" in name or name in ("wrong secret", "other scheme"):
        return 401
    return 403
