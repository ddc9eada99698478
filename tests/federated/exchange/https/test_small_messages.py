"""Small messages travel together: with the news of them, and several in one request.

A round has dozens of messages of some hundred bytes for each payload, so that a request for each
would be most of what is on the wire beside the payloads.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from federated.errors import ConsiliumError
from federated.exchange.https import server
from federated.exchange.https.link_errors import LinkError
from federated.exchange.https.outgoing import CHUNK, SMALL
from federated.exchange.identity import COORDINATOR
from federated.exchange.message import Message, messages_in, sign
from tests.federated.exchange.https.bad_link import TcpRelay
from tests.federated.exchange.https.test_attacks import FORGED, signed_by, stored
from tests.federated.exchange.https.world import (
    LIMITS,
    Attacker,
    World,
    make_world,
    running,
    serving,
    wait_for,
)
from tests.federated.exchange.parties import SITES

SITE, BAD, THIRD = SITES


def requests_of(link: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a link asks for, from now on."""
    asked: list[str] = []
    answer = link._caller.answer

    def noted(method: str, target: str, *rest: Any, **more: Any) -> Any:
        asked.append(f"{method} {target.partition('?')[0]}")
        return answer(method, target, *rest, **more)

    monkeypatch.setattr(link._caller, "answer", noted)
    return asked


def of_round(world: World, number: int, body: bytes, sender: str = SITE) -> Message:
    return sign(
        world.parties[sender], replace(world.topic, round=number), "payload", COORDINATOR, body
    )


def test_small_messages_come_with_the_news_of_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = [world.message(COORDINATOR, bytes([n]) * 100, SITE) for n in range(20)]
    large = world.message(COORDINATOR, bytes(SMALL))
    for message in (*small[:10], large, *small[10:]):
        world.exchange.post(message)
    with world.link() as link:
        asked = requests_of(link, monkeypatch)
        assert link.pull() == 21
    assert asked == ["GET messages", f"GET messages/{large.signed.digest}"]
    # In the order in which they were posted: a cue comes after what it is about.
    digests = [message.signed.digest for message in (*small[:10], large, *small[10:])]
    assert world.arrived(SITE) == digests
    assert all(
        world.mirror(SITE).path(m.signed).read_bytes() == m.to_bytes() for m in (*small, large)
    )


def test_what_a_site_has_posted_goes_in_one_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [world.message(SITE, bytes([n]) * 100, COORDINATOR) for n in range(20)]
    for message in messages:
        world.mirror(SITE).post(message)
    with world.link() as link:
        link.pull()
        asked = requests_of(link, monkeypatch)
        assert link.push() == 20
    assert asked == ["POST outbox"]
    assert all(world.exchange.path(m.signed).read_bytes() == m.to_bytes() for m in messages)
    arrived = [line["digest"] for line in world.office.audit.lines() if line["event"] == "arrived"]
    assert arrived == [message.signed.digest for message in messages]


def test_a_cue_and_the_word_on_it_cost_eleven_hundred_bytes_at_most_beside_themselves(
    world: World,
) -> None:
    cues = [world.message(COORDINATOR, bytes([n]) * 60, SITE) for n in range(10)]
    words = [world.message(SITE, bytes([n]) * 60, COORDINATOR) for n in range(10)]
    with TcpRelay(world.port) as relay, world.link(port=relay.port) as link:
        # The connection is there, and the server's instance is known.
        link.pull()
        before = relay.up + relay.down
        for cue, word in zip(cues, words, strict=True):
            world.exchange.post(cue)
            assert link.pull() == 1
            world.mirror(SITE).post(word)
            assert link.push() == 1
        carried = relay.up + relay.down - before
    beside = carried - sum(message.size for message in (*cues, *words))
    print(f"{beside / 10:.0f} bytes beside a cue and a word")
    assert beside / 10 < 1100


def test_anothers_small_message_does_not_come_with_the_news(world: World) -> None:
    secret = world.message(COORDINATOR, b"secret", SITE)
    mine = world.message(COORDINATOR, b"mine", BAD)
    for message in (secret, mine, world.message(SITE, b"secret", COORDINATOR)):
        world.exchange.post(message)
    content = Attacker(world, BAD).ask("GET", "messages?most=999999999").content
    line, _, rest = content.partition(b"\n")
    assert rest == mine.to_bytes()
    assert b"secret" not in content
    assert b'"messages":[' in line


def test_no_more_comes_with_the_news_than_is_asked_for_and_than_there_is_a_bound(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [world.message(COORDINATOR, bytes([n]) * 5000, BAD) for n in range(10)]
    for message in messages:
        world.exchange.post(message)
    attacker = Attacker(world, BAD)

    def along(most: int) -> int:
        rest = attacker.ask("GET", f"messages?most={most}").content.partition(b"\n")[2]
        return len(list(messages_in(rest, "")))

    assert [along(0), along(6000), along(10**9)] == [0, 1, 10]
    monkeypatch.setattr(server, "MOST_WITH_NEWS", 12_000)
    assert along(10**9) == 2


def test_a_link_in_the_place_of_a_small_message_is_not_followed(world: World) -> None:
    message = world.message(COORDINATOR, b"x" * 50, BAD)
    world.exchange.post(message)
    path = world.exchange.path(message.signed)
    secret = world.root / "secret"
    secret.write_bytes(message.to_bytes())
    path.unlink()
    path.symlink_to(secret)
    assert b"x" * 50 not in Attacker(world, BAD).ask("GET", "messages?most=9999").content


def test_another_file_in_the_place_of_a_small_message_is_not_sent_along(world: World) -> None:
    message = world.message(COORDINATOR, b"x", BAD)
    world.exchange.post(message)
    path = world.exchange.path(message.signed)
    path.write_bytes(b"s" * path.stat().st_size)
    assert b"ssss" not in Attacker(world, BAD).ask("GET", "messages?most=9999").content


def test_news_that_break_off_bring_fewer_messages_and_then_come_through(world: World) -> None:
    messages = [world.message(COORDINATOR, bytes([n]) * 12_000) for n in range(20)]
    for message in messages:
        world.exchange.post(message)
    with TcpRelay(world.port, 30_000) as relay, running(world.link(port=relay.port)):
        wait_for(lambda: len(world.arrived(SITE)) == 20)
    assert relay.breaks


@pytest.mark.parametrize("what", [name for name in FORGED if "er body" not in name])
def test_of_several_messages_each_is_judged_alone(world: World, what: str) -> None:
    """Whatever is refused alone is refused between others, with its line in the audit log."""
    made, reason = FORGED[what]
    good = [signed_by(world, BAD, kind=kind) for kind in ("answer", "advertised")]
    content = b"".join(m.to_bytes() for m in (good[0], made(world), good[1]))
    answer = Attacker(world, BAD).ask("POST", "outbox", content)
    assert answer.status_code == 200
    first, second, third = answer.json()
    assert (first, third) == ({}, {})
    assert (second["status"], second["reason"]) == (422, reason)
    assert str(world.root) not in answer.text
    assert world.refused(BAD) == [reason]
    assert len(stored(world)) == 2


def test_what_is_no_message_spoils_no_more_than_itself(world: World) -> None:
    attacker = Attacker(world, BAD)
    whole = signed_by(world, BAD).to_bytes()
    for content in (b"", b"junk", whole + b"junk", whole + whole[:-1], whole + whole[:30]):
        answer = attacker.ask("POST", "outbox", content)
        assert (answer.status_code, answer.json()) == (200, []) or answer.status_code == 422
        assert stored(world) == []


def test_a_kind_that_no_text_can_hold_is_refused_in_words(world: World) -> None:
    content = signed_by(world, BAD, kind="k\ud800").to_bytes()
    answer = Attacker(world, BAD).ask("POST", "outbox", content)
    assert answer.status_code in (200, 422)
    assert "\\ud800" in answer.json()[0]["refused"]
    assert stored(world) == []


def test_many_messages_are_not_taken_in_one_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_TOGETHER", 3)
    content = b"".join(world.message(BAD, bytes([n]), COORDINATOR).to_bytes() for n in range(5))
    assert Attacker(world, BAD).ask("POST", "outbox", content).json() == [{}] * 3
    assert len(stored(world)) == 3


def test_a_body_that_is_longer_than_a_piece_is_refused_by_its_length(world: World) -> None:
    answer = Attacker(world, BAD).ask("POST", "outbox", bytes(2**20 + 1))
    assert (answer.status_code, answer.json()["reason"]) == (413, "body too large")


def test_what_there_is_no_room_for_is_sent_again_and_what_there_was_room_for_is_not(
    tmp_path: Path,
) -> None:
    made = make_world(tmp_path, replace(LIMITS, site_messages=2))
    messages = [made.message(SITE, bytes([n]), COORDINATOR) for n in range(3)]
    for message in messages:
        made.mirror(SITE).post(message)
    with serving(made), made.link() as link:
        with pytest.raises(LinkError, match=r"[23] messages"):
            link.push()
        assert len(stored(made)) == 2
        made.exchange.forget("run-1", 1)
        assert link.push() == 1
    assert made.exchange.path(messages[2].signed).is_file()


def test_a_message_that_is_refused_between_others_is_said_and_not_sent_again(
    tmp_path: Path,
) -> None:
    made = make_world(tmp_path)
    made.office = replace(
        made.office, accepts=lambda header: "No." if header.kind == "style" else ""
    )
    said: list[str] = []
    for kind in ("payload", "style", "answer"):
        made.mirror(SITE).post(made.message(SITE, b"x", COORDINATOR, kind))
    with serving(made), made.link(say=said.append) as link:
        assert link.push() == 2
        assert link.push() == 0
    assert len(said) == 1
    assert "style" in said[0]
    assert "No." in said[0]
    events = [(line["event"], line.get("kind")) for line in made.audit(SITE).lines()]
    assert ("upload refused", "style") in events


def test_a_damaged_message_of_a_site_holds_up_none_of_its_others(world: World) -> None:
    messages = [world.message(SITE, bytes([n]) * 50, COORDINATOR) for n in range(3)]
    for message in messages:
        world.mirror(SITE).post(message)
    path = world.mirror(SITE).path(messages[1].signed)
    path.write_bytes(bytes(path.stat().st_size))
    with world.link() as link:
        assert link.push() == 2
    assert [world.exchange.path(m.signed).exists() for m in messages] == [True, False, True]


def test_small_messages_of_another_run_pass_a_large_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a word on what was done waits for it: keys of round 0 may be made in a later round."""
    large, word = of_round(world, 0, bytes(4 * CHUNK)), of_round(world, 1, b"word")
    for message in (large, word):
        world.mirror(SITE).post(message)
    topic = replace(world.topic, run=f"{world.topic.run}-2", round=1)
    other = [sign(world.parties[SITE], topic, "payload", COORDINATOR, bytes([n])) for n in range(3)]
    with world.link() as link:
        ask, pieces = link._caller.ask, []

        def posting(method: str, target: str, *rest: Any, **more: Any) -> Any:
            answer = ask(method, target, *rest, **more)
            if method == "PATCH":
                pieces.append(target)
                if len(pieces) == 2:
                    for message in other:
                        world.mirror(SITE).post(message)
            return answer

        monkeypatch.setattr(link._caller, "ask", posting)
        assert link.push() == 5
    arrived = [line["digest"] for line in world.office.audit.lines() if line["event"] == "arrived"]
    expected = [m.signed.digest for m in (*other, large, word)]
    assert arrived == expected


def test_messages_one_behind_the_other_are_read_as_what_they_are(world: World) -> None:
    messages = [world.message(SITE, bytes([n]) * n) for n in range(4)]
    content = b"".join(message.to_bytes() for message in messages)
    found = list(messages_in(content, ""))
    assert [signed for signed, _ in found] == [message.signed for message in messages]
    assert [whole for _, whole in found] == [message.to_bytes() for message in messages]
    assert list(messages_in(b"", "")) == []
    for end in range(1, len(content)):
        whole = [sum(m.size for m in messages[: n + 1]) for n in range(4)]
        if end not in whole:
            with pytest.raises(ConsiliumError):
                list(messages_in(content[:end], ""))
