"""What a receiver takes for a message, and every way in which something else is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from federated.exchange.folder import FolderExchange, Place
from federated.exchange.identity import COORDINATOR, PublicIdentity
from federated.exchange.mailbox import Mailbox, MissingMessageError
from federated.exchange.message import (
    MAGIC,
    MOST_HEADER,
    Message,
    MessageRefusedError,
    Signed,
    Topic,
    Unread,
    open_message,
    sign,
)
from tests.federated.exchange.parties import SITES, TOPIC, Parties, identity, parties

SITE = SITES[0]
PLACE = Place(TOPIC.run, TOPIC.round, TOPIC.attempt, COORDINATOR, "payload", SITE)


@pytest.fixture
def all_parties(tmp_path: Path) -> Parties:
    return parties(tmp_path)


def message(
    box: Mailbox, topic: Topic = TOPIC, kind: str = "payload", body: bytes = b"update"
) -> Message:
    return sign(box.me, topic, kind, COORDINATOR, body)


def put(parties: Parties, content: bytes, place: Place = PLACE, name: str = "x") -> Path:
    """Write bytes where the coordinator looks for a message, as whoever can write there does."""
    folder = parties.exchange.folder(place)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.message"
    path.write_bytes(content)
    return path


def receive(parties: Parties, sender: str = SITE, most: int = 100) -> Message:
    return parties.coordinator.receive(TOPIC, "payload", sender, most)


def test_a_message_arrives_as_it_was_sent_and_is_in_the_senders_audit_log(
    all_parties: Parties,
) -> None:
    box = all_parties.boxes[SITE]
    size = box.send(TOPIC, "payload", b"update", COORDINATOR).size
    received = receive(all_parties)
    assert received.body == b"update"
    assert received.header.sender == SITE
    assert size == len(received.to_bytes())
    (line,) = box.audit.lines()
    assert (line["event"], line["kind"], line["to"], line["bytes"]) == (
        "sent", "payload", COORDINATOR, size,
    )  # fmt: skip
    assert all_parties.refused() == []


def test_a_message_that_is_sent_twice_is_one_message(all_parties: Parties) -> None:
    for _ in range(2):
        all_parties.boxes[SITE].send(TOPIC, "payload", b"update", COORDINATOR)
    assert receive(all_parties).body == b"update"


def test_nothing_sent_is_nothing_received(all_parties: Parties) -> None:
    with pytest.raises(MissingMessageError, match="no message payload from site-00 in round 3"):
        receive(all_parties)
    assert all_parties.refused() == []


OTHER = "site-01"
REFUSED: dict[str, tuple[Callable[[Parties], bytes], str]] = {
    "noise": (lambda p: b"noise" * 100, "no message"),
    "an empty file": (lambda p: b"", "no message"),
    "a magic number alone": (lambda p: MAGIC, "no message"),
    "a header of four gigabytes": (lambda p: MAGIC + b"\xff" * 4 + b"{}", "header too large"),
    "a header just too long": (
        lambda p: MAGIC + (MOST_HEADER + 1).to_bytes(4, "big") + b" " * 9999, "header too large",
    ),
    "a header that is no JSON": (
        lambda p: MAGIC + (2).to_bytes(4, "big") + b"[}" + bytes(64), "bad header",
    ),
    "a header nested a thousand deep": (
        lambda p: MAGIC + (4000).to_bytes(4, "big") + b"[" * 4000 + bytes(64), "bad header",
    ),
    "a header with a key more": (lambda p: rewritten(p, lambda h: h | {"weight": 3}), "bad header"),
    "a header with a key less": (
        lambda p: rewritten(p, lambda h: {k: v for k, v in h.items() if k != "plan"}), "bad header",
    ),
    "a round that is text": (lambda p: rewritten(p, lambda h: h | {"round": "3"}), "bad header"),
    "a round that is true": (lambda p: rewritten(p, lambda h: h | {"round": True}), "bad header"),
    "a negative length": (lambda p: rewritten(p, lambda h: h | {"length": -1}), "bad header"),
    "a header with spaces": (
        lambda p: raw(json.dumps(header(p), sort_keys=True).encode(), b"update"), "bad header",
    ),
    "a length of ten gigabytes": (
        lambda p: rewritten(p, lambda h: h | {"length": 10**10}), "cut short",
    ),
    "a message cut short": (lambda p: message(p.boxes[SITE]).to_bytes()[:-1], "cut short"),
    "a message cut in its signature": (
        lambda p: message(p.boxes[SITE]).to_bytes()[:-20], "cut short",
    ),
    "a byte more": (lambda p: message(p.boxes[SITE]).to_bytes() + b"x", "too long"),
    "another body": (lambda p: message(p.boxes[SITE]).to_bytes()[:-6] + b"UPDATE", "other body"),
    "a body larger than its kind may be": (
        lambda p: message(p.boxes[SITE], body=bytes(101)).to_bytes(), "too large",
    ),
    "a header that was changed after signing": (
        lambda p: rewritten(p, lambda h: h | {"sha256": "0" * 64}), "bad signature",
    ),
    "no signature": (
        lambda p: Message(Signed(message(p.boxes[SITE]).header, bytes(64)), b"update").to_bytes(),
        "bad signature",
    ),
    "the signature of another site": (
        lambda p: Message(
            Signed(message(p.boxes[SITE]).header, message(p.boxes[OTHER]).signed.signature),
            b"update",
        ).to_bytes(),
        "bad signature",
    ),
    "another key under the site's name": (
        lambda p: sign(identity(SITE), TOPIC, "payload", COORDINATOR, b"update").to_bytes(),
        "bad signature",
    ),
    "a message of another site": (lambda p: message(p.boxes[OTHER]).to_bytes(), "other sender"),
    "a message of another consortium": (
        lambda p: message(p.boxes[SITE], replace(TOPIC, consortium="beef")).to_bytes(),
        "other consortium",
    ),
    "a replay from another run": (
        lambda p: message(p.boxes[SITE], replace(TOPIC, run="run-0")).to_bytes(), "other run",
    ),
    "a replay from the round before": (
        lambda p: message(p.boxes[SITE], replace(TOPIC, round=2)).to_bytes(), "other round",
    ),
    "a replay from the attempt before": (
        lambda p: message(p.boxes[SITE], replace(TOPIC, attempt=1)).to_bytes(), "other attempt",
    ),
    "a message of another kind": (
        lambda p: message(p.boxes[SITE], kind="answer").to_bytes(), "other kind",
    ),
    "a message for another party": (
        lambda p: sign(p.boxes[SITE].me, TOPIC, "payload", OTHER, b"update").to_bytes(),
        "other recipient",
    ),
    "an update from another state": (
        lambda p: message(p.boxes[SITE], replace(TOPIC, state="6" * 64)).to_bytes(), "other state",
    ),
    "an answer to another plan": (
        lambda p: message(p.boxes[SITE], replace(TOPIC, plan="b" * 64)).to_bytes(), "other plan",
    ),
}  # fmt: skip


def header(parties: Parties) -> dict[str, object]:
    value: dict[str, object] = json.loads(message(parties.boxes[SITE]).header.to_bytes())
    return value


def raw(header: bytes, body: bytes, signature: bytes = bytes(64)) -> bytes:
    return MAGIC + len(header).to_bytes(4, "big") + header + signature + body


def rewritten(parties: Parties, change: Callable[[dict[str, object]], object]) -> bytes:
    """A message of the site's, with its own signature and a header that was changed afterwards."""
    whole = message(parties.boxes[SITE])
    changed = json.dumps(change(header(parties)), sort_keys=True, separators=(",", ":")).encode()
    return raw(changed, whole.body, whole.signed.signature)


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_count_is_refused_and_named_in_the_audit_log(
    all_parties: Parties, what: str
) -> None:
    make, reason = REFUSED[what]
    put(all_parties, make(all_parties))
    with pytest.raises(MissingMessageError, match="What arrived was refused"):
        receive(all_parties)
    assert all_parties.refused() == [reason]


@pytest.mark.parametrize("what", REFUSED)
def test_what_somebody_else_puts_there_does_not_stop_a_sites_own_message(
    all_parties: Parties, what: str
) -> None:
    make, reason = REFUSED[what]
    put(all_parties, make(all_parties))
    all_parties.boxes[SITE].send(TOPIC, "payload", b"update", COORDINATOR)
    assert receive(all_parties).body == b"update"
    # Of what has the very header of the site's message the body is not read any more.
    assert all_parties.refused() == ["copy" if reason == "other body" else reason]


def test_two_different_messages_of_one_site_in_one_place_are_both_refused(
    all_parties: Parties,
) -> None:
    for body in (b"update", b"other"):
        all_parties.boxes[SITE].send(TOPIC, "payload", body, COORDINATOR)
    with pytest.raises(MissingMessageError, match="2 different messages"):
        receive(all_parties)
    assert all_parties.refused() == ["duplicate"]


def test_a_site_that_nobody_enrolled_is_refused(all_parties: Parties) -> None:
    stranger = identity("site-99")
    content = sign(stranger, TOPIC, "payload", COORDINATOR, b"update").to_bytes()
    put(all_parties, content, replace(PLACE, sender="site-99"))
    with pytest.raises(MissingMessageError):
        receive(all_parties, "site-99")
    assert all_parties.refused() == ["not enrolled"]


def test_a_suspended_site_is_refused(all_parties: Parties) -> None:
    all_parties.boxes[SITE].send(TOPIC, "payload", b"update", COORDINATOR)
    coordinator = all_parties.coordinator
    suspended = replace(coordinator, members=coordinator.members.suspend(SITE))
    with pytest.raises(MissingMessageError):
        suspended.receive(TOPIC, "payload", SITE, 100)
    assert all_parties.refused() == ["suspended"]


def test_a_body_is_not_read_before_its_length_and_signature_are_checked(
    all_parties: Parties, tmp_path: Path
) -> None:
    """A file with a hole of ten gigabytes is refused at once."""
    whole = message(all_parties.boxes[SITE])
    large = replace(whole.header, length=10 * 2**30)
    path = put(all_parties, raw(large.to_bytes(), b""))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + large.length)
    with pytest.raises(MissingMessageError):
        receive(all_parties)
    assert all_parties.refused() == ["bad signature"]


def test_a_link_in_place_of_a_message_is_not_followed_into_a_folder(all_parties: Parties) -> None:
    folder = all_parties.exchange.folder(PLACE)
    folder.mkdir(parents=True)
    (folder / "x.message").mkdir()
    with pytest.raises(MissingMessageError):
        receive(all_parties)


def test_a_flood_of_messages_in_one_place_is_not_read(all_parties: Parties) -> None:
    for number in range(100):
        put(all_parties, b"noise", name=f"x{number:03d}")
    with pytest.raises(MissingMessageError):
        receive(all_parties)
    assert len(all_parties.refused()) <= 16


def test_a_flood_of_somebody_else_does_not_hide_a_sites_own_message(all_parties: Parties) -> None:
    for number in range(100):
        put(all_parties, b"noise", name=f"0{number:03d}")
    all_parties.boxes[SITE].send(TOPIC, "payload", b"update", COORDINATOR)
    assert receive(all_parties).body == b"update"


def test_no_number_of_files_hides_a_sites_own_message(all_parties: Parties) -> None:
    place = put(all_parties, b"noise", name="0").parent
    for number in range(1500):
        (place / f"0{number:04d}.message").hardlink_to(place / "0.message")
    all_parties.boxes[SITE].send(TOPIC, "payload", b"update", COORDINATOR)
    assert receive(all_parties).body == b"update"
    assert len(all_parties.refused()) <= 16


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of which messages' files the bodies are read."""
    read, whole = list[str](), Unread.whole
    monkeypatch.setattr(
        Unread, "whole", lambda unread, most: read.append(unread.where) or whole(unread, most)
    )
    return read


def test_of_a_site_that_signs_many_messages_one_is_read(
    all_parties: Parties, bodies: list[str]
) -> None:
    for number in range(20):
        all_parties.boxes[SITE].send(TOPIC, "payload", b"%d" % number, COORDINATOR)
    with pytest.raises(MissingMessageError, match="different messages"):
        receive(all_parties)
    assert len(bodies) == 1
    assert all_parties.refused() == ["duplicate"]


def test_of_a_site_that_signs_many_messages_with_other_bodies_one_is_read(
    all_parties: Parties, bodies: list[str]
) -> None:
    """Each as long as it says, so that all of it would have to be read to see that."""
    for number in range(20):
        signed = message(all_parties.boxes[SITE], body=b"%06d" % number)
        put(all_parties, replace(signed, body=b"others").to_bytes(), name=f"x{number:02d}")
    with pytest.raises(MissingMessageError, match="different messages"):
        receive(all_parties)
    assert len(bodies) == 1
    assert all_parties.refused() == ["other body", "duplicate"]


@pytest.mark.parametrize("body", [b"update", b"others"], ids=["whole", "with other bodies"])
def test_of_many_copies_of_a_message_two_are_read_at_most(
    all_parties: Parties, bodies: list[str], body: bytes
) -> None:
    all_parties.boxes[SITE].send(TOPIC, "payload", b"update", COORDINATOR)
    copy = replace(message(all_parties.boxes[SITE]), body=body).to_bytes()
    for number in range(20):
        put(all_parties, copy, name=f"0{number:02d}")
        put(all_parties, copy, name=f"x{number:02d}")
    assert receive(all_parties).body == b"update"
    assert len(bodies) <= 2


def test_a_file_whose_name_commands_a_terminal_does_nothing(all_parties: Parties) -> None:
    put(all_parties, b"noise", name="\x1b[2J")
    with pytest.raises(MissingMessageError) as told:
        receive(all_parties)
    assert str(told.value).isprintable()


@pytest.mark.parametrize("name", ["../../x", "a/b", "", ".", "..", "-rf", "x" * 200])
def test_a_name_that_leads_out_of_the_exchange_is_refused(tmp_path: Path, name: str) -> None:
    from federated.errors import ConsiliumError

    exchange = FolderExchange(tmp_path)
    for place in (replace(PLACE, sender=name), replace(PLACE, recipient=name)):
        with pytest.raises(ConsiliumError, match="cannot be"):
            exchange.find(place)


def test_a_header_and_its_signature_show_what_a_site_has_sent(all_parties: Parties) -> None:
    whole = message(all_parties.boxes[SITE])
    again = Signed.from_json(json.loads(json.dumps(whole.signed.to_json())), "a list")
    assert again == whole.signed
    assert again.is_from(all_parties.boxes[SITE].me.public)
    assert not again.is_from(all_parties.boxes[OTHER].me.public)
    forged = replace(again, header=replace(again.header, length=7))
    assert not forged.is_from(all_parties.boxes[SITE].me.public)


def test_a_signature_is_checked_once_and_nothing_else_passes_for_it(
    all_parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []
    verifies = PublicIdentity.verifies

    def counted(self: PublicIdentity, signature: bytes, content: bytes) -> bool:
        checked.append(self)
        return verifies(self, signature, content)

    monkeypatch.setattr(PublicIdentity, "verifies", counted)
    own, other = (all_parties.boxes[site].me.public for site in (SITE, OTHER))
    signed = message(all_parties.boxes[SITE]).signed
    for _ in range(3):
        read = Signed.from_json(json.loads(json.dumps(signed.to_json())), "a list")
        assert read.is_from(own)
    assert checked == [own]
    # Another key, under the same name too; another signature; another header.
    assert not read.is_from(other)
    assert not read.is_from(PublicIdentity(own.name, other.key))
    for place in (0, 31, 32, 63):
        flipped = bytearray(read.signature)
        flipped[place] ^= 1
        assert not replace(read, signature=bytes(flipped)).is_from(own)
    for changed in ({"round": 4}, {"recipient": OTHER}, {"sha256": "0" * 64}, {"sender": OTHER}):
        assert not replace(read, header=replace(read.header, **changed)).is_from(own)
    assert read.is_from(own)


@pytest.mark.parametrize(
    "changed",
    [
        {"round": "3"}, {"round": True}, {"round": -1}, {"length": 2**54}, {"more": 1},
        {"body": None}, {"attempt": 1.0},
    ],
)  # fmt: skip
def test_a_header_in_a_list_that_is_none_is_refused(
    all_parties: Parties, changed: dict[str, object]
) -> None:
    told = message(all_parties.boxes[SITE]).signed.to_json()
    with pytest.raises(MessageRefusedError, match="its header is none"):
        Signed.from_json(told | {"header": told["header"] | changed}, "a list")


@pytest.mark.parametrize("field", ["sha256", "run", "kind"])
def test_a_header_in_a_list_has_no_more_bytes_than_one_in_a_message(
    all_parties: Parties, field: str
) -> None:
    """What was checked is remembered by its header: a thousand of megabytes would fill the memory.

    Of a list that somebody passes on nothing else says how long a header in it may be.
    """
    whole = message(all_parties.boxes[SITE])
    told, own = whole.signed.to_json(), all_parties.boxes[SITE].me.public
    size = len(whole.header.to_bytes()) - len(told["header"][field])
    longest = "f" * (MOST_HEADER - size)
    read = Signed.from_json(told | {"header": told["header"] | {field: longest}}, "a list")
    assert len(read.header.to_bytes()) == MOST_HEADER
    assert not read.is_from(own)
    with pytest.raises(MessageRefusedError, match=r"its header is none.*at most 4096"):
        Signed.from_json(told | {"header": told["header"] | {field: longest + "f"}}, "a list")


def test_a_message_is_a_file_of_its_own_form(all_parties: Parties) -> None:
    whole = message(all_parties.boxes[SITE])
    path = put(all_parties, whole.to_bytes())
    with open_message(path) as unread:
        assert unread.header == whole.header
        assert unread.read(all_parties.boxes[SITE].me.public, 6) == whole
