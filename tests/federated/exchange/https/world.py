"""A coordinator's server on the loopback, and sites that can dial it."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from federated.exchange.audit import AuditLog
from federated.exchange.enrolment import Enrolment
from federated.exchange.folder import EVERYONE
from federated.exchange.https.authentication import PREFIX, stamp
from federated.exchange.https.certificates import Authority, Certificates, client_context
from federated.exchange.https.client import Link
from federated.exchange.https.listening import ConnectionLimits, TlsServer, tls_server
from federated.exchange.https.office import Limits, MembersFile, Office
from federated.exchange.https.server import exchange_app
from federated.exchange.identity import COORDINATOR, Identity
from federated.exchange.journal import JournalledExchange
from federated.exchange.message import Message, Topic, sign
from tests.federated.exchange.parties import SITES, identity

# Whoever waits for something in a test waits no longer; in seconds.
DEADLINE = 60.0
# Free space of the disk is not what is tested, but in one test.
LIMITS = Limits(free=0)


def wait_for(what: Callable[[], object], told: str = "it", longest: float = DEADLINE) -> None:
    """Look every few milliseconds until something is so, for so many seconds at the longest."""
    until = time.monotonic() + longest
    while not what():
        assert time.monotonic() < until, f"{told} has not come"
        time.sleep(0.002)


@dataclass
class World:
    """All parties, their folders below ``root``, and the port that the server listens on."""

    root: Path
    parties: Mapping[str, Identity]
    office: Office
    authority: str
    certificates: Certificates
    port: int = 0
    connections: list[tuple[str, str]] = field(default_factory=list)
    clients: list[httpx.Client] = field(default_factory=list)

    @property
    def consortium(self) -> str:
        return self.parties[COORDINATOR].public.consortium

    @property
    def exchange(self) -> JournalledExchange:
        return self.office.exchange

    @property
    def topic(self) -> Topic:
        return Topic(self.consortium, "run-1", attempt=1, round=1)

    def message(
        self, sender: str, body: bytes, to: str = EVERYONE, kind: str = "payload"
    ) -> Message:
        return sign(self.parties[sender], self.topic, kind, to, body)

    def mirror(self, site: str) -> JournalledExchange:
        return JournalledExchange(self.root / site / "exchange")

    def audit(self, site: str) -> AuditLog:
        return AuditLog(self.root / site / "audit.jsonl")

    def link(self, site: str = SITES[0], port: int = 0, path: str = "", **more: Any) -> Link:
        """A site's link, to the server or to what is in between."""
        return Link(
            more.pop("identity", self.parties[site]), self.consortium,
            f"https://127.0.0.1:{port or self.port}{path}",
            more.pop("authority", self.authority), self.mirror(site), self.audit(site), **more,
        )  # fmt: skip

    def enrol(self, members: Enrolment) -> None:
        members.write(self.root / "members.json")

    def refused(self, party: str = "") -> list[str]:
        """Why requests were refused, by the coordinator's audit log."""
        lines = (line for line in self.office.audit.lines() if line["event"] == "request refused")
        return [line["reason"] for line in lines if not party or line["sender"] == party]

    def arrived(self, site: str) -> list[str]:
        """The digests of messages that have arrived in a site's mirror."""
        entries = self.mirror(site).journal.read_all()[0]
        return [entry.digest for entry in entries if entry.sender != site]


def make_world(root: Path, limits: Limits = LIMITS) -> World:
    """A coordinator with three enrolled sites; its server is not started."""
    parties = {name: identity(name) for name in (COORDINATOR, *SITES)}
    members = Enrolment()
    for name in SITES:
        members = members.enrol(parties[name].public)
    members.write(root / "members.json")
    office = Office(
        parties[COORDINATOR].public.consortium,
        MembersFile(root / "members.json"),
        JournalledExchange(root / "coordinator" / "exchange"),
        AuditLog(root / "coordinator" / "audit.jsonl"),
        root / "coordinator" / "seen",
        limits,
        {"consilium": "1"},
    )
    authority = Authority(root / "tls")
    certificates = authority.certificates(["127.0.0.1"])
    return World(root, parties, office, authority.certificate(), certificates)


@contextmanager
def serving(
    world: World, limits: ConnectionLimits | None = None, app: Any = None, port: int = 0
) -> Iterator[TlsServer]:
    """Run a world's server in a thread."""
    server = tls_server(
        app or exchange_app(world.office), "127.0.0.1", port, world.certificates,
        lambda address, why: world.connections.append((address, why)), limits,
    )  # fmt: skip
    thread = threading.Thread(target=server.run, name="test-server", daemon=True)
    thread.start()
    world.port = server.port
    try:
        yield server
    finally:
        # A server that ends waits a second for each of them to say that it has heard so.
        while world.clients:
            world.clients.pop().close()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@contextmanager
def running(link: Link) -> Iterator[Link]:
    """Keep a link up in a thread."""
    stop = threading.Event()
    thread = threading.Thread(target=link.run, args=(stop,), daemon=True)
    with link:
        thread.start()
        try:
            yield link
        finally:
            stop.set()
            thread.join(20)
    assert not thread.is_alive()


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port that nobody listens on, and that nobody else is given meanwhile."""
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


class Attacker:
    """Makes single requests, right and wrong ones, as a site."""

    def __init__(self, world: World, site: str = SITES[1]) -> None:
        self.world, self.identity = world, world.parties[site]
        self.client = httpx.Client(verify=client_context(world.authority), timeout=30)
        world.clients.append(self.client)
        answer = self.client.get(f"https://127.0.0.1:{world.port}{PREFIX}hello")
        self.instance = answer.json()["instance"]

    def headers(
        self, method: str, target: str, body: bytes = b"", at: float = 0, **changed: Any
    ) -> dict[str, str]:
        """Headers of a request as the site signs it, and then some changed."""
        signed = stamp(
            self.identity, self.world.consortium, method, target, body, at or time.time(),
            self.instance,
        )  # fmt: skip
        return replace(signed, **changed).to_headers()

    def ask(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """A request; signed as it should be if no headers are given."""
        given = self.headers(method, target, body) if headers is None else headers
        url = f"https://127.0.0.1:{self.world.port}{PREFIX}{target}"
        return self.client.request(method, url, content=body or None, headers=given)

    def upload(self, message: bytes, digest: str, kind: str = "payload", **query: Any) -> Any:
        """A message's file in one piece; its query can be another one."""
        query = {"offset": 0, "total": len(message), "kind": kind} | query
        target = f"outbox/{digest}?" + "&".join(f"{k}={v}" for k, v in query.items())
        return self.ask("PATCH", target, message)
