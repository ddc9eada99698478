"""Messages get to the other side, whole, once, and to nobody else, over good and bad links."""

import statistics
import time
from types import SimpleNamespace

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from federated.exchange.https import client
from federated.exchange.https.client import Greeting, hello
from federated.exchange.https.server import exchange_app
from federated.exchange.identity import COORDINATOR
from federated.exchange.journal import JournalledExchange
from federated.exchange.message import Message
from federated.files import read_json
from tests.federated.exchange.https.bad_link import (
    DEEDS,
    BadLink,
    ConnectProxy,
    HttpRelay,
    TcpRelay,
)
from tests.federated.exchange.https.world import Attacker, World, running, serving, wait_for
from tests.federated.exchange.parties import SITES

SITE, OTHER, THIRD = SITES
MB = 10**6


def noise(size: int) -> bytes:
    return bytes(bytearray(i * 7919 % 251 for i in range(1000))) * (size // 1000)


def is_there(exchange: JournalledExchange, message: Message) -> bool:
    path = exchange.path(message.signed)
    return path.is_file() and path.read_bytes() == message.to_bytes()


def files(exchange: JournalledExchange) -> list[str]:
    """The files of an exchange that anybody can come upon, without the journal."""
    found = (path.relative_to(exchange.root) for path in exchange.root.rglob("*") if path.is_file())
    return sorted(str(p) for p in found if not str(p).startswith((".", "journal")))


def test_a_site_gets_what_is_for_it_and_for_all_and_nothing_else(world: World) -> None:
    for_it, for_all = world.message(COORDINATOR, b"1", SITE), world.message(COORDINATOR, b"2")
    others = [
        world.message(COORDINATOR, b"3", OTHER),
        world.message(OTHER, b"4", COORDINATOR),
        world.message(SITE, b"5"),
    ]
    for message in (for_it, *others, for_all, world.message(OTHER, b"6", kind="tag")):
        world.exchange.post(message)
    with world.link() as link:
        assert link.pull() == 3
        assert link.pull() == 0
    mirror = world.mirror(SITE)
    assert is_there(mirror, for_it)
    assert is_there(mirror, for_all)
    assert len(files(mirror)) == 3
    told = [line["kind"] for line in world.audit(SITE).lines() if line["event"] == "downloaded"]
    assert sorted(told) == ["payload", "payload", "tag"]


def test_what_a_site_posts_arrives_once_and_both_write_it_down(world: World) -> None:
    messages = [world.message(SITE, bytes([n]), COORDINATOR) for n in range(5)]
    with world.link() as link:
        for message in messages:
            world.mirror(SITE).post(message)
            world.mirror(SITE).post(message)
        assert link.push() == 5
        assert link.push() == 0
    assert all(is_there(world.exchange, message) for message in messages)
    events = [line["digest"] for line in world.audit(SITE).lines() if line["event"] == "uploaded"]
    assert events == [message.signed.digest for message in messages]
    arrived = [line for line in world.office.audit.lines() if line["event"] == "arrived"]
    assert [line["digest"] for line in arrived] == events
    assert world.refused(SITE) == ["instance"]


def test_a_link_that_is_started_again_asks_for_nothing_twice(world: World) -> None:
    down, up = world.message(COORDINATOR, b"1"), world.message(SITE, b"2", COORDINATOR)
    world.exchange.post(down)
    world.mirror(SITE).post(up)
    with world.link() as link:
        assert (link.pull(), link.push()) == (1, 1)
    world.mirror(SITE).path(down.signed).unlink()
    world.exchange.path(up.signed).unlink()
    with world.link() as link:
        assert (link.pull(), link.push()) == (0, 0)
    assert files(world.exchange) == [
        str(world.exchange.path(down.signed).relative_to(world.exchange.root))
    ]


def test_two_links_cannot_have_one_mirror(world: World) -> None:
    with world.link(), pytest.raises(Exception, match="carried by process"), world.link():
        pass


def test_a_posted_message_is_at_the_other_side_within_milliseconds(world: World) -> None:
    def seconds(source: JournalledExchange, sink: JournalledExchange, message: Message) -> float:
        started = time.perf_counter()
        source.post(message)
        path = sink.path(message.signed)
        wait_for(path.is_file)
        return time.perf_counter() - started

    with running(world.link()):
        first = world.message(COORDINATOR, b"first")
        world.exchange.post(first)
        wait_for(world.mirror(SITE).path(first.signed).is_file)
        down = [
            seconds(world.exchange, world.mirror(SITE), world.message(COORDINATOR, bytes([n])))
            for n in range(9)
        ]
        up = [
            seconds(world.mirror(SITE), world.exchange, world.message(SITE, bytes([n])))
            for n in range(9)
        ]
    print(f"down {statistics.median(down):.4f} s, up {statistics.median(up):.4f} s")
    # On an idle machine it is 30 ms; tests share two cores.
    assert statistics.median(down) < 0.5
    assert statistics.median(up) < 0.5


@pytest.mark.parametrize("size", [MB, 8 * MB])
def test_the_wire_carries_at_most_a_hundredth_more_than_the_payloads(
    world: World, size: int
) -> None:
    with TcpRelay(world.port) as relay, world.link(port=relay.port) as link:
        link.hello(Greeting())
        before = relay.up + relay.down
        message = world.message(SITE, noise(size), COORDINATOR)
        world.mirror(SITE).post(message)
        assert link.push() == 1
        up = relay.up + relay.down - before
        world.exchange.post(world.message(COORDINATOR, noise(size)))
        assert link.pull() == 1
        down = relay.up + relay.down - before - up
    assert size < up < 1.01 * size
    assert size < down < 1.01 * size


def test_thirty_megabytes_arrive_over_a_link_that_breaks_every_two(world: World) -> None:
    up, down = (
        world.message(SITE, noise(30 * MB), COORDINATOR),
        world.message(COORDINATOR, noise(30 * MB)),
    )
    with TcpRelay(world.port, 2 * MB) as relay, running(world.link(port=relay.port)):
        world.mirror(SITE).post(up)
        wait_for(lambda: world.exchange.path(up.signed).exists())
        assert relay.breaks >= 14
        # Breaks cost some of what was on the way, and no more.
        assert relay.up < 1.5 * 30 * MB
        before = relay.breaks
        world.exchange.post(down)
        wait_for(lambda: world.mirror(SITE).path(down.signed).exists())
        assert relay.breaks - before >= 14
        assert relay.down < 1.5 * 30 * MB
    assert is_there(world.exchange, up)
    assert is_there(world.mirror(SITE), down)
    assert len(files(world.exchange)) == len(files(world.mirror(SITE))) == 2


# Kinds that a site sends, of which none is short.
UP = (
    *("shares", "answer", "opened", "proof", "own-model", "own-shares", "pictures", "payload"),
    *("evaluation.payload", "evaluation.shares", "statistics.payload", "statistics.shares"),
)


@pytest.mark.parametrize("seed", range(2))
def test_a_link_that_loses_delays_cuts_doubles_and_swaps_harms_nothing(
    world: World, seed: int
) -> None:
    up = [
        world.message(SITE, noise(1000 * 40 ** (n // 4)), COORDINATOR, kind)
        for n, kind in enumerate(UP)
    ]
    down = [
        world.message(COORDINATOR, noise(1000 * 40**n), SITE, f"down-{n}-{m}")
        for n in range(3)
        for m in range(4)
    ]
    with (
        BadLink(world.port, world.certificates, world.authority, seed, rate=0.5) as bad,
        running(world.link(port=bad.port)),
    ):
        for one, two in zip(up, down, strict=True):
            world.mirror(SITE).post(one)
            world.exchange.post(two)
        mirror = world.mirror(SITE)
        wait_for(lambda: all(world.exchange.path(m.signed).exists() for m in up))
        wait_for(lambda: all(mirror.path(m.signed).exists() for m in down))
    assert all(bad.done[deed] for deed in DEEDS), bad.done
    for exchange in (world.exchange, mirror):
        assert all(is_there(exchange, message) for message in (*up, *down))
        assert len(files(exchange)) == len(up) + len(down)
    assert [line["event"] for line in world.audit(SITE).lines()].count("downloaded") == len(down)
    arrived = [line["digest"] for line in world.office.audit.lines() if line["event"] == "arrived"]
    assert sorted(arrived) == sorted(message.signed.digest for message in up)


def test_a_proxy_of_the_hospital_is_used_and_sees_no_content(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ConnectProxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        world.exchange.post(world.message(COORDINATOR, b"1"))
        with world.link() as link:
            assert link.pull() == 1
        assert proxy.asked
        assert set(proxy.asked) == {f"CONNECT 127.0.0.1:{world.port}"}
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        before = len(proxy.asked)
        world.exchange.post(world.message(COORDINATOR, b"2"))
        with world.link() as link:
            assert link.pull() == 1
        assert len(proxy.asked) == before


def test_a_reverse_proxy_may_take_a_prefix_off_the_path(world: World) -> None:
    world.exchange.post(world.message(COORDINATOR, b"1"))
    relay = HttpRelay(world.port, world.certificates, world.authority, "/research/fl")
    with relay, world.link(port=relay.port, path="/research/fl/") as link:
        world.mirror(SITE).post(world.message(SITE, b"2", COORDINATOR))
        assert (link.pull(), link.push()) == (1, 1)


def test_the_application_may_be_mounted_below_a_path(tmp_path, monkeypatch) -> None:
    from tests.federated.exchange.https.world import make_world

    made = make_world(tmp_path)
    app = Starlette(routes=[Mount("/fl", exchange_app(made.office))])
    with serving(made, app=app), made.link(path="/fl") as link:
        made.exchange.post(made.message(COORDINATOR, b"1"))
        assert link.pull() == 1


def test_a_greeting_is_kept_and_answered(world: World) -> None:
    with world.link() as link:
        answer = link.hello(Greeting({"consilium": "0.2"}, "c0de", "idle"))
    assert answer["versions"] == {"consilium": "1"}
    assert abs(answer["time"] - time.time()) < 30
    told = read_json(world.office.seen / f"{SITE}.json")
    assert (told["site"], told["code"], told["state"]) == (SITE, "c0de", "idle")


def test_a_check_is_answered_and_leaves_no_hello_for_which_a_run_would_wait(world: World) -> None:
    with world.link() as link:
        answer = hello(link._caller, Greeting({}, "c0de", "checks"), check=True)
    assert answer["versions"] == {"consilium": "1"}
    assert not world.office.seen.exists()


def test_a_clock_that_is_five_minutes_off_is_said_and_made_up_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    now = time.time
    monkeypatch.setattr("federated.exchange.https.calls.time.time", lambda: now() - 300)
    object.__setattr__(world.office, "clock", now)
    world.exchange.post(world.message(COORDINATOR, b"1"))
    with world.link(say=said.append) as link:
        assert link.pull() == 1
    assert len(said) == 1
    assert "300 s behind" in said[0]
    (line,) = [line for line in world.audit(SITE).lines() if line["event"] == "clock off"]
    assert line["seconds"] == 300
    assert any(reason.startswith("clock off by -300 s") for reason in world.refused(SITE))


def test_what_the_coordinator_has_forgotten_is_not_told_of(world: World) -> None:
    old, new = world.message(COORDINATOR, b"1"), world.message(COORDINATOR, b"2", kind="state")
    world.exchange.post(old)
    world.exchange.forget("run-1", 1)
    world.exchange.post(new)
    with world.link() as link:
        assert link.pull() == 1
    assert world.arrived(SITE) == [new.signed.digest]
    assert Attacker(world).ask("GET", f"messages/{old.signed.digest}").status_code == 404


def test_a_message_that_does_not_fit_on_the_disk_holds_up_none_behind_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, said, asked = [client.FREE + 5000], list[str](), []
    monkeypatch.setattr(client.shutil, "disk_usage", lambda _: SimpleNamespace(free=free[0]))
    large, small = world.message(OTHER, bytes(9000), kind="tag"), world.message(COORDINATOR, b"1")
    later = world.message(COORDINATOR, b"2")
    world.exchange.post(large)
    world.exchange.post(small)
    with world.link(say=said.append) as link:
        ask = link._caller.ask
        monkeypatch.setattr(link._caller, "ask", lambda *a, **k: asked.append(a[1]) or ask(*a, **k))
        assert link.pull() == 1
        assert world.arrived(SITE) == [small.signed.digest]
        # It does not tell of it again and again, nor ask for it at every poll.
        world.exchange.post(later)
        assert link.pull() == 1
        assert asked[0] != asked[1]
        (line,) = [x for x in world.audit(SITE).lines() if x["event"] == "download put off"]
        assert (line["sender"], line["digest"]) == (OTHER, large.signed.digest)
        assert len(said) == 1
        # Later it is tried again.
        link._again = 0.0
        assert link.pull() == 0
        free[0] = client.FREE + 20_000
        assert link._again > time.monotonic()
        link._again = 0.0
        assert link.pull() == 1
    assert set(world.arrived(SITE)) == {m.signed.digest for m in (large, small, later)}
    # A link that is started again asks for nothing any more.
    with world.link() as link:
        assert link.pull() == 0


def test_what_did_not_fit_is_asked_for_by_a_link_that_is_started_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [client.FREE]
    monkeypatch.setattr(client.shutil, "disk_usage", lambda _: SimpleNamespace(free=free[0]))
    world.exchange.post(world.message(COORDINATOR, b"1"))
    with world.link() as link:
        assert link.pull() == 0
    free[0] *= 2
    with world.link() as link:
        assert link.pull() == 1
