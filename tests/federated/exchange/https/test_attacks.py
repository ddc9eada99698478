"""Attacks over the wire: each is refused and written down, and harms nobody else."""

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from federated.exchange.folder import EVERYONE
from federated.exchange.https.authentication import PREFIX
from federated.exchange.https.certificates import client_context
from federated.exchange.https.listening import ConnectionLimits
from federated.exchange.https.office import Limits, Office
from federated.exchange.https.uploads import FOLDER
from federated.exchange.identity import COORDINATOR
from federated.exchange.journal import JOURNAL, Entry, JournalledExchange
from federated.exchange.message import Message, sign
from tests.federated.exchange.https.world import (
    LIMITS,
    Attacker,
    World,
    make_world,
    serving,
    wait_for,
)
from tests.federated.exchange.parties import SITES

SITE, BAD, THIRD = SITES
FAST = ConnectionLimits(handshake=0.5, header=0.5, each=8)


@pytest.fixture
def attacker(world: World) -> Attacker:
    return Attacker(world, BAD)


def honest_site_goes_on(world: World) -> None:
    """An honest site sends and gets what it is to."""
    number = str(time.monotonic_ns()).encode()
    up, down = world.message(SITE, number, COORDINATOR), world.message(COORDINATOR, number, SITE)
    world.mirror(SITE).post(up)
    world.exchange.post(down)
    with world.link() as link:
        assert link.push() == 1
        assert link.pull() >= 1
    assert world.exchange.path(up.signed).read_bytes() == up.to_bytes()
    assert world.mirror(SITE).path(down.signed).read_bytes() == down.to_bytes()


def stored(world: World) -> list[Path]:
    """All files in the exchange but the journal."""
    return [
        path for path in world.exchange.root.rglob("*") if path.is_file() and path.name != JOURNAL
    ]


def send(attacker: Attacker, message: Message, **query: Any) -> Any:
    kind = query.pop("kind", message.header.kind)
    return attacker.upload(message.to_bytes(), message.signed.digest, kind, **query)


def signed_by(world: World, signer: str, **changed: Any) -> Message:
    topic = replace(world.topic, **{k: v for k, v in changed.items() if k in ("run", "consortium")})
    return sign(
        world.parties[signer], topic, changed.get("kind", "payload"),
        changed.get("to", COORDINATOR), b"x",
    )  # fmt: skip


def renamed(message: Message, sender: str) -> Message:
    """A message that says that it is of somebody else than who has signed it."""
    header = replace(message.header, sender=sender)
    return replace(message, signed=replace(message.signed, header=header))


def with_body(message: Message, body: bytes) -> Message:
    return replace(message, body=body)


FORGED: dict[str, tuple[Callable[[World], Message], str]] = {
    "another's name": (lambda w: renamed(signed_by(w, BAD), SITE), "other sender"),
    "another's message": (lambda w: signed_by(w, SITE), "other sender"),
    "the coordinator's name": (lambda w: renamed(signed_by(w, BAD), COORDINATOR), "other sender"),
    "another's signature": (lambda w: renamed(signed_by(w, SITE), BAD), "bad signature"),
    "another consortium": (lambda w: signed_by(w, BAD, consortium="c0ffee"), "other consortium"),
    "nobody": (lambda w: signed_by(w, BAD, to="site-09"), "no recipient"),
    "a path": (lambda w: signed_by(w, BAD, to="../../x"), "no recipient"),
    "a run that is a path": (lambda w: signed_by(w, BAD, run="../../../x"), "no place"),
    "a run that is the journal": (lambda w: signed_by(w, BAD, run=JOURNAL), "no place"),
    "a hidden run": (lambda w: signed_by(w, BAD, run=FOLDER), "no place"),
    "a kind that is a path": (lambda w: signed_by(w, BAD, kind="../x"), "no kind"),
    "a kind that is none": (lambda w: signed_by(w, BAD, kind="junk1"), "no kind"),
    "the coordinator's kind": (lambda w: signed_by(w, BAD, kind="run-plan"), "no kind"),
    "a sum that is none": (lambda w: signed_by(w, BAD, kind="other.payload"), "no kind"),
    "another body": (lambda w: with_body(signed_by(w, BAD), b"y"), "other body"),
    "a longer body": (lambda w: with_body(signed_by(w, BAD), b"xy"), "too long"),
    "a shorter body": (lambda w: with_body(signed_by(w, BAD), b""), "cut short"),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGED)
def test_what_a_site_may_not_send_is_refused_with_a_reason_and_nothing_is_left_of_it(
    world: World, attacker: Attacker, what: str
) -> None:
    made, reason = FORGED[what]
    answer = send(attacker, made(world))
    assert (answer.status_code, answer.json()["reason"]) == (422, reason)
    assert str(world.root) not in answer.text
    assert stored(world) == []
    assert world.refused(BAD) == [reason]
    honest_site_goes_on(world)


def test_what_is_no_message_is_refused(world: World, attacker: Attacker) -> None:
    answer = attacker.upload(os.urandom(1000), "a" * 64)
    assert (answer.status_code, answer.json()["reason"]) == (422, "no message")
    answer = attacker.upload(signed_by(world, BAD).to_bytes(), "a" * 64)
    assert (answer.status_code, answer.json()["reason"]) == (422, "other message")
    assert stored(world) == []


def test_a_message_of_another_kind_than_was_announced_is_refused(
    world: World, attacker: Attacker
) -> None:
    assert send(attacker, signed_by(world, BAD), kind="style").json()["reason"] == "other message"


def test_what_the_coordinator_does_not_want_is_refused_in_its_own_words(tmp_path: Path) -> None:
    made = make_world(tmp_path)
    made.office = replace(made.office, accepts=lambda header: f"There is no run {header.run}.")
    with serving(made):
        answer = send(Attacker(made), signed_by(made, BAD))
    assert answer.json()["refused"] == "There is no run run-1."


def test_a_forged_signature_is_nobodys(world: World, attacker: Attacker) -> None:
    headers = attacker.headers("GET", "messages", site=SITE)
    assert attacker.ask("GET", "messages", headers=headers).status_code == 401
    assert "bad signature" in world.refused("unknown")
    honest_site_goes_on(world)


def test_a_request_that_is_replayed_is_refused(world: World, attacker: Attacker) -> None:
    headers = attacker.headers("GET", "messages")
    answers = [attacker.ask("GET", "messages", headers=headers).status_code for _ in range(2)]
    assert answers == [200, 401]
    assert world.refused(BAD) == ["replayed"]


def test_an_upload_goes_to_its_own_sites_outbox(world: World, attacker: Attacker) -> None:
    """What one site has begun, another one can neither add to nor finish nor see."""
    message = world.message(SITE, b"x" * 1000, COORDINATOR)
    victim = Attacker(world, SITE)
    content, digest = message.to_bytes(), message.signed.digest
    target = f"outbox/{digest}?offset=0&total={len(content)}&kind=payload"
    assert victim.ask("PATCH", target, content[:500]).json() == {"have": 500, "complete": False}
    assert attacker.ask("HEAD", f"outbox/{digest}").headers["upload-offset"] == "0"
    target = f"outbox/{digest}?offset=500&total={len(content)}&kind=payload"
    assert attacker.ask("PATCH", target, b"y" * 500).json() == {"have": 0, "complete": False}
    assert victim.ask("PATCH", target, content[500:]).json()["complete"]
    assert world.exchange.path(message.signed).read_bytes() == content
    # Nor does it learn that it has arrived.
    assert attacker.ask("HEAD", f"outbox/{digest}").headers["upload-complete"] == "0"


def test_anothers_message_is_not_told_of_and_not_given(world: World, attacker: Attacker) -> None:
    message = world.message(COORDINATOR, b"secret", SITE)
    world.exchange.post(message)
    assert attacker.ask("GET", "messages").json()["messages"] == []
    answer = attacker.ask("GET", f"messages/{message.signed.digest}")
    missing = attacker.ask("GET", f"messages/{'a' * 64}")
    assert (answer.status_code, answer.content) == (missing.status_code, missing.content)
    assert answer.status_code == 404
    assert world.refused(BAD) == ["another's message", "no message"]


@pytest.mark.parametrize(
    "path",
    [
        "messages/../../../etc/passwd", "messages/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "messages//etc/passwd", "messages/..%2fjournal.jsonl", f"messages/{JOURNAL}",
        "outbox/..", "outbox/%2e%2e%2fx", "messages/%00", "../members.json", "seen/site-00.json",
    ],
)  # fmt: skip
def test_a_path_leads_nowhere_else(world: World, attacker: Attacker, path: str) -> None:
    honest_site_goes_on(world)
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        with socket.create_connection(("127.0.0.1", world.port)) as plain:
            wrapped = client_context(world.authority).wrap_socket(
                plain, server_hostname="127.0.0.1"
            )
            # As the server reads it, so that it is not for its signature that it is refused.
            target = unquote(path)
            headers = attacker.headers(method, target) | {"host": "x", "connection": "close"}
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            wrapped.sendall(f"{method} {PREFIX}{path} HTTP/1.1\r\n{lines}\r\n".encode())
            answer = b"".join(iter(lambda w=wrapped: w.recv(2**16), b""))
        assert answer.split(b" ")[1] in (b"404", b"405"), answer
        assert b"root:" not in answer
        assert b"digest" not in answer.partition(b"\r\n\r\n")[2].replace(b"no digest", b"")


def test_a_link_in_the_exchange_is_not_followed(world: World, attacker: Attacker) -> None:
    message = world.message(COORDINATOR, b"x", BAD)
    world.exchange.post(message)
    path = world.exchange.path(message.signed)
    secret = world.root / "secret"
    secret.write_bytes(b"s" * path.stat().st_size)
    path.unlink()
    path.symlink_to(secret)
    assert attacker.ask("GET", f"messages/{message.signed.digest}").status_code == 404
    path.unlink()
    moved = path.parent.with_name("elsewhere")
    path.parent.rename(moved)
    moved.rename(world.root / "elsewhere")
    (world.root / "elsewhere" / path.name).write_bytes(secret.read_bytes())
    path.parent.symlink_to(world.root / "elsewhere")
    assert attacker.ask("GET", f"messages/{message.signed.digest}").status_code == 404


@pytest.mark.parametrize(
    "text", ["bytes=5-2", "bytes=-5", "bytes=9999999-", "bytes=0-1,3-4", "x=0-1", "bytes=٣-"]
)
def test_a_range_that_is_none_is_refused(world: World, attacker: Attacker, text: str) -> None:
    message = world.message(COORDINATOR, b"x", BAD)
    world.exchange.post(message)
    target = f"messages/{message.signed.digest}"
    headers = attacker.headers("GET", target) | {"range": text.encode()}
    assert attacker.ask("GET", target, headers=headers).status_code == 416


TOO_LARGE: dict[str, tuple[str, dict[str, int], int]] = {
    "ten gigabytes of a kind": ("style", {"total": 10**10}, 413),
    "ten gigabytes": ("payload", {"total": 10**10}, 413),
    "beyond its total": ("payload", {"offset": 5, "total": 100}, 413),
    "a number that is none": ("payload", {"total": -1}, 422),
    "a huge number": ("payload", {"offset": 10**30}, 422),
}  # fmt: skip


@pytest.mark.parametrize("what", TOO_LARGE)
def test_what_is_too_large_is_refused_before_a_byte_is_kept(
    world: World, attacker: Attacker, what: str
) -> None:
    kind, query, status = TOO_LARGE[what]
    assert attacker.upload(b"x" * 100, "a" * 64, kind, **query).status_code == status
    assert stored(world) == []
    assert len(world.refused(BAD)) == 1


def test_a_piece_that_was_changed_on_the_way_is_not_kept(world: World, attacker: Attacker) -> None:
    target = f"outbox/{'a' * 64}?offset=0&total=1000&kind=payload"
    answer = attacker.ask(
        "PATCH", target, b"x" * 100, attacker.headers("PATCH", target, b"y" * 100)
    )
    assert (answer.status_code, answer.json()["reason"]) == (422, "other body")
    assert stored(world) == []


def test_another_total_in_the_middle_of_an_upload_ends_it(world: World, attacker: Attacker) -> None:
    digest = "a" * 64
    assert attacker.upload(b"x" * 100, digest, total=1000).json()["have"] == 100
    answer = attacker.upload(b"x" * 100, digest, offset=100, total=2000)
    assert (answer.status_code, answer.json()["reason"]) == (422, "other total")
    assert stored(world) == []


def test_pieces_that_come_twice_or_too_early_change_nothing(
    world: World, attacker: Attacker
) -> None:
    message = world.message(BAD, b"x" * 3000, COORDINATOR)
    content, digest = message.to_bytes(), message.signed.digest

    def piece(start: int, end: int) -> dict[str, Any]:
        target = f"outbox/{digest}?offset={start}&total={len(content)}&kind=payload"
        return attacker.ask("PATCH", target, content[start:end]).json()

    assert piece(2000, 2500) == {"have": 0, "complete": False}
    assert piece(0, 1000) == {"have": 1000, "complete": False}
    assert piece(0, 1000) == {"have": 1000, "complete": False}
    assert piece(500, 2000) == {"have": 2000, "complete": False}
    assert piece(2000, len(content)) == {"have": len(content), "complete": True}
    assert piece(0, 10) == {"have": len(content), "complete": True}
    assert world.exchange.path(message.signed).read_bytes() == content
    assert len(stored(world)) == 1


LIMITED: dict[str, tuple[Limits, str]] = {
    "open uploads": (replace(LIMITS, uploads=2), "too many uploads"),
    "bytes of open uploads": (replace(LIMITS, upload_bytes=2500), "too much"),
    "bytes in the exchange": (replace(LIMITS, site_bytes=2500), "too much"),
    "the disk": (replace(LIMITS, free=2**62), "disk full"),
}  # fmt: skip


@pytest.mark.parametrize("what", LIMITED)
def test_a_site_cannot_fill_the_coordinators_disk(tmp_path: Path, what: str) -> None:
    limits, reason = LIMITED[what]
    made = make_world(tmp_path, limits)
    with serving(made):
        attacker = Attacker(made)
        last = [attacker.upload(b"x", f"{n:064x}", total=1000) for n in range(3)][-1]
        assert last.status_code in (429, 507)
        assert last.json()["reason"] == reason
        assert len(stored(made)) <= 2
        if what != "the disk":
            # Others have room of their own.
            assert Attacker(made, THIRD).upload(b"x", "b" * 64, total=1000).status_code == 200


def test_a_site_cannot_have_more_messages_than_so_many(tmp_path: Path) -> None:
    made = make_world(tmp_path, replace(LIMITS, site_messages=2))
    with serving(made):
        attacker = Attacker(made)
        messages = [made.message(BAD, bytes([n]), COORDINATOR) for n in range(3)]
        assert [send(attacker, m).status_code for m in messages] == [200, 200, 429]
        made.exchange.forget("run-1", 1)
        assert send(attacker, messages[2]).status_code == 200


class _Watched(JournalledExchange):
    """An exchange that remembers which threads have looked for a message's file."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.looked: list[str] = []

    def is_there(self, entry: Entry) -> bool:
        self.looked.append(threading.current_thread().name)
        return super().is_there(entry)


def test_a_site_with_many_messages_holds_nobody_up(tmp_path: Path) -> None:
    """What takes longer with each message that somebody has sent is not done where all wait."""
    made = make_world(tmp_path)
    exchange = _Watched(made.exchange.root)
    made.office = replace(made.office, exchange=exchange)
    mine = [made.message(BAD, bytes([n]), COORDINATOR) for n in range(20)]
    for message in (*mine, *(made.message(BAD, bytes([n]), SITE) for n in range(20))):
        exchange.post(message)
    with serving(made) as server:
        attacker = Attacker(made)
        exchange.looked.clear()
        assert send(attacker, made.message(BAD, b"another", COORDINATOR)).status_code == 200
        # Of all that the site has sent none is looked for, but at most the one itself.
        assert len(exchange.looked) <= 1
        exchange.looked.clear()
        assert attacker.ask("GET", "messages?after=0").json()["messages"] == []
        assert exchange.looked == []
        assert len(Attacker(made, SITE).ask("GET", "messages?after=0").json()["messages"]) == 20
        # Each is looked for, in a thread that has nothing else to do.
        assert len(exchange.looked) == 20
        assert not any("test-server" in name for name in exchange.looked)
        assert server.started


def test_an_upload_that_nobody_goes_on_with_makes_room_for_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_world(tmp_path, replace(LIMITS, uploads=1))
    with serving(made):
        attacker = Attacker(made)
        assert attacker.upload(b"x", "a" * 64, total=1000).status_code == 200
        assert attacker.upload(b"x", "b" * 64, total=1000).status_code == 429
        monkeypatch.setattr("federated.exchange.https.uploads.IDLE", 0)
        assert attacker.upload(b"x", "b" * 64, total=1000).status_code == 200
        assert len(stored(made)) == 1


def test_a_greeting_is_small_and_has_one_form(world: World, attacker: Attacker) -> None:
    for body in (b"{}", b"[", b'{"versions": {}, "code": "", "state": 5}', b"[" * 3000):
        assert attacker.ask("POST", "hello", body).status_code == 422
    long = b'{"versions": {}, "code": "", "state": "' + b"x" * 1025 + b'"}'
    assert attacker.ask("POST", "hello", long).status_code == 422
    assert attacker.ask("POST", "hello", b"x" * 5000).status_code == 413
    assert not world.office.seen.exists()


def wire(world: World) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", world.port), timeout=20)
    return client_context(world.authority).wrap_socket(plain, server_hostname="127.0.0.1")


def until_closed(connection: socket.socket) -> bytes:
    """What still comes before the other side closes."""
    content = b""
    try:
        while part := connection.recv(2**16):
            content += part
    except (ConnectionError, ssl.SSLError):
        pass
    return content


def test_a_body_of_ten_gigabytes_is_not_waited_for(world: World, attacker: Attacker) -> None:
    connection = wire(world)
    headers = attacker.headers("PATCH", "outbox/" + "a" * 64) | {
        "host": "x",
        "content-length": str(10**10),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    connection.sendall(f"PATCH {PREFIX}outbox/{'a' * 64} HTTP/1.1\r\n{lines}\r\n".encode())
    assert until_closed(connection).startswith(b"HTTP/1.1 413")
    assert world.refused(BAD) == ["body too large"]


def test_a_body_without_an_end_is_not_waited_for(world: World, attacker: Attacker) -> None:
    connection = wire(world)
    headers = attacker.headers("POST", "hello") | {"host": "x", "transfer-encoding": "chunked"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    connection.sendall(f"POST {PREFIX}hello HTTP/1.1\r\n{lines}\r\n".encode())
    assert until_closed(connection).startswith(b"HTTP/1.1 413")


def test_a_header_of_any_length_is_cut_off(world: World) -> None:
    connection = wire(world)
    connection.sendall(b"GET / HTTP/1.1\r\nx: ")
    with pytest.raises((ConnectionError, ssl.SSLError)):
        connection.sendall(bytes(2**27))
    wait_for(lambda: ("127.0.0.1", "bad header") in world.connections)
    honest_site_goes_on(world)


def test_slow_headers_slow_handshakes_and_many_connections_shut_nobody_out(
    tmp_path: Path,
) -> None:
    made = make_world(tmp_path)
    stop = threading.Event()
    with serving(made, replace(FAST, proxies=frozenset())):
        slow = [wire(made) for _ in range(3)]
        silent = [socket.create_connection(("127.0.0.1", made.port)) for _ in range(2)]

        def drip() -> None:
            while not stop.wait(0.05):
                for connection in slow:
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        for connection in slow:
            connection.sendall(b"GET / HTTP/1.1\r\nx: ")
        thread.start()
        honest_site_goes_on(made)
        for connection in (*slow, *silent):
            until_closed(connection)
        stop.set()
        thread.join()
        assert made.connections.count(("127.0.0.1", "slow header")) == 3
        # From one address so many connections and no more; they are counted before TLS begins.
        many = [socket.create_connection(("127.0.0.1", made.port)) for _ in range(20)]
        for connection in many:
            connection.settimeout(20)
        wait_for(lambda: ("127.0.0.1", "too many connections") in made.connections)
        for connection in many:
            until_closed(connection)
        honest_site_goes_on(made)
    assert 12 <= made.connections.count(("127.0.0.1", "too many connections")) <= 20


def test_who_does_not_read_an_answer_is_cut_off(tmp_path: Path) -> None:
    made = make_world(tmp_path)
    with serving(made, ConnectionLimits(stalled=0.3)):
        message = made.message(COORDINATOR, b"x" * 30_000_000, BAD)
        made.exchange.post(message)
        attacker = Attacker(made)
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.connect(("127.0.0.1", made.port))
        connection = client_context(made.authority).wrap_socket(plain, server_hostname="127.0.0.1")
        target = f"messages/{message.signed.digest}"
        lines = "".join(f"{k}: {v}\r\n" for k, v in attacker.headers("GET", target).items())
        connection.sendall(f"GET {PREFIX}{target} HTTP/1.1\r\nhost: x\r\n{lines}\r\n".encode())
        wait_for(lambda: ("127.0.0.1", "slow reader") in made.connections)
        connection.close()
        honest_site_goes_on(made)


def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    made = make_world(tmp_path, replace(LIMITS, body=0.3))
    with serving(made):
        attacker, connection = Attacker(made), wire(made)
        target = f"outbox/{'a' * 64}?offset=0&total=1000&kind=payload"
        headers = attacker.headers("PATCH", target, b"x" * 1000) | {"content-length": "1000"}
        lines = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
        connection.sendall(f"PATCH {PREFIX}{target} HTTP/1.1\r\nhost: x\r\n{lines}\r\nx".encode())
        assert until_closed(connection).startswith(b"HTTP/1.1 408")
        assert stored(made) == []


def test_tls_that_is_old_or_cut_short_is_nothing(world: World) -> None:
    context = client_context(world.authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.minimum_version = ssl.TLSVersion.TLSv1
    with (
        pytest.raises((ssl.SSLError, OSError)),
        socket.create_connection(("127.0.0.1", world.port)) as plain,
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")
    for content in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", world.port)) as plain:
            plain.sendall(content)
    honest_site_goes_on(world)


def test_an_upload_that_is_cut_off_in_the_middle_of_a_piece_keeps_nothing_of_it(
    world: World, attacker: Attacker
) -> None:
    target, body = f"outbox/{'a' * 64}?offset=0&total=9000&kind=payload", b"x" * 9000
    headers = attacker.headers("PATCH", target, body) | {"content-length": "9000"}
    lines = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
    connection = wire(world)
    connection.sendall(
        f"PATCH {PREFIX}{target} HTTP/1.1\r\nhost: x\r\n{lines}\r\n".encode() + body[:5000]
    )
    connection.close()
    wait_for(lambda: world.refused(BAD) == ["body missing"])
    assert attacker.ask("HEAD", f"outbox/{'a' * 64}").headers["upload-offset"] == "0"
    honest_site_goes_on(world)


def test_strangers_do_not_fill_the_audit_log(world: World, attacker: Attacker) -> None:
    for _ in range(100):
        attacker.ask("GET", "messages", headers={})
    assert len(world.refused("unknown")) <= 2 * world.office.limits.audit_lines


def test_everything_that_is_refused_is_refused_without_an_account_of_the_server(
    world: World, attacker: Attacker
) -> None:
    answer = attacker.ask("GET", "messages", headers={})
    assert answer.json().keys() == {"time", "instance"}
    assert "server" not in answer.headers
    assert answer.headers.get("content-encoding") is None


def test_all_is_told_only_to_members(world: World) -> None:
    world.exchange.post(world.message(COORDINATOR, b"x", EVERYONE))
    attacker = Attacker(world, BAD)
    world.enrol(world.office.members().remove(BAD))
    assert attacker.ask("GET", "messages").status_code == 401
    assert isinstance(world.office, Office)
