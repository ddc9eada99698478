"""Who is let in: a request that a site has signed, for this server, now, and once."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from federated.exchange.https.authentication import Gate, RequestRefusedError, Stamp, stamp
from federated.exchange.https.office import Limits, MembersFile, RefusalLog
from federated.exchange.identity import COORDINATOR
from tests.federated.exchange.https.world import World, make_world
from tests.federated.exchange.parties import SITES, identity

SITE, OTHER, _ = SITES
NOW = 1_000_000.0
TARGET = "messages?after=0"


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = make_world(tmp_path, Limits(nonces=5))
    made.office = replace(made.office, clock=lambda: NOW)
    return made


@pytest.fixture
def gate(world: World) -> Gate:
    return Gate(world.office)


def stamped(
    world: World, gate: Gate, at: float = NOW, site: str = SITE, body: bytes = b""
) -> Stamp:
    return stamp(world.parties[site], world.consortium, "GET", TARGET, body, at, gate.instance)


def refused(
    gate: Gate, given: Stamp, method: str = "GET", target: str = TARGET
) -> RequestRefusedError:
    with pytest.raises(RequestRefusedError) as error:
        gate.enter(method, target, given.to_headers())
    return error.value


def test_a_request_as_a_site_signs_it_is_let_in(world: World, gate: Gate) -> None:
    given = stamped(world, gate, body=b"x")
    member, found = gate.enter("GET", TARGET, given.to_headers())
    assert (member.identity.name, found) == (SITE, given)
    assert found.body == sha256(b"x").hexdigest()


CHANGED = {
    "site": OTHER, "time": round(NOW * 1000) + 1, "nonce": "0" * 32, "body": "0" * 64,
    "instance": "0" * 32, "signature": "0" * 128,
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGED)
def test_whatever_is_changed_of_a_request_it_is_nobodys(
    world: World, gate: Gate, what: str
) -> None:
    error = refused(gate, replace(stamped(world, gate), **{what: CHANGED[what]}))
    assert (error.status, error.site, error.reason) == (401, "", "bad signature")


def test_another_method_or_path_is_not_what_was_signed(world: World, gate: Gate) -> None:
    assert refused(gate, stamped(world, gate), method="HEAD").reason == "bad signature"
    assert refused(gate, stamped(world, gate), target="messages?after=1").reason == "bad signature"


def test_a_request_for_another_consortium_is_nobodys(world: World, gate: Gate) -> None:
    given = stamp(world.parties[SITE], "c0ffee", "GET", TARGET, b"", NOW, gate.instance)
    assert refused(gate, given).reason == "bad signature"


def test_who_is_not_known_is_told_the_same_whatever_is_wrong(world: World, gate: Gate) -> None:
    stranger = stamp(identity("site-09"), world.consortium, "GET", TARGET, b"", NOW, gate.instance)
    forged = stamp(identity(SITE), world.consortium, "GET", TARGET, b"", NOW, gate.instance)
    errors = [refused(gate, given) for given in (stranger, forged)]
    with pytest.raises(RequestRefusedError) as unsigned:
        gate.enter("GET", TARGET, {})
    answers = [(error.status, error.told) for error in (*errors, unsigned.value)]
    assert answers == [(401, {"time": NOW, "instance": gate.instance})] * 3


def test_nobody_is_let_in_as_the_coordinator(world: World, gate: Gate) -> None:
    world.enrol(world.office.members().enrol(world.parties[COORDINATOR].public))
    given = stamped(world, gate, site=COORDINATOR)
    assert refused(gate, given).reason == "not enrolled"


def test_a_request_counts_once(world: World, gate: Gate) -> None:
    given = stamped(world, gate)
    gate.enter("GET", TARGET, given.to_headers())
    error = refused(gate, given)
    assert (error.reason, error.site, error.told["reason"]) == ("replayed", SITE, "replayed")


def test_a_request_that_is_recorded_is_worth_nothing_at_a_server_that_was_started_anew(
    world: World, gate: Gate
) -> None:
    given = stamped(world, gate)
    gate.enter("GET", TARGET, given.to_headers())
    error = refused(Gate(world.office), given)
    assert error.told["reason"] == "instance"
    assert error.told["instance"] != gate.instance


@pytest.mark.parametrize("off", [-61, 61, -1e6, 1e6])
def test_a_clock_that_is_off_is_told_the_time(world: World, gate: Gate, off: float) -> None:
    error = refused(gate, stamped(world, gate, at=NOW + off))
    assert error.told == {"time": NOW, "instance": gate.instance, "reason": "clock"}


@pytest.mark.parametrize("off", [-59, 59])
def test_a_minute_of_a_wrong_clock_is_allowed(world: World, gate: Gate, off: float) -> None:
    gate.enter("GET", TARGET, stamped(world, gate, at=NOW + off).to_headers())


def test_a_site_that_asks_too_often_waits_and_others_do_not(world: World) -> None:
    now = [NOW]
    gate = Gate(replace(world.office, clock=lambda: now[0]))
    for _ in range(5):
        gate.enter("GET", TARGET, stamped(world, gate).to_headers())
    assert refused(gate, stamped(world, gate)).status == 429
    gate.enter("GET", TARGET, stamped(world, gate, site=OTHER).to_headers())
    now[0] += 121
    gate.enter("GET", TARGET, stamped(world, gate, at=now[0]).to_headers())


def test_a_nonce_is_remembered_as_long_as_its_time_is_good(world: World) -> None:
    now = [NOW]
    gate = Gate(replace(world.office, clock=lambda: now[0]))
    given = stamped(world, gate, at=NOW + 59)
    gate.enter("GET", TARGET, given.to_headers())
    now[0] = NOW + 118
    assert refused(gate, given).reason == "replayed"
    now[0] = NOW + 120
    assert refused(gate, given).told["reason"] == "clock"


def test_who_is_suspended_is_told_so_and_is_let_in_when_the_list_says_so(
    world: World, gate: Gate
) -> None:
    members = world.office.members()
    world.enrol(members.suspend(SITE))
    error = refused(gate, stamped(world, gate))
    assert (error.status, error.told["reason"]) == (403, "suspended")
    world.enrol(members)
    gate.enter("GET", TARGET, stamped(world, gate).to_headers())
    world.enrol(members.remove(SITE))
    assert refused(gate, stamped(world, gate)).reason == "not enrolled"


def test_where_there_is_no_list_of_members_there_is_nobody(tmp_path: Path) -> None:
    assert MembersFile(tmp_path / "members.json")().members == {}


def test_the_log_of_refusals_has_so_many_lines_a_minute_of_a_party(world: World) -> None:
    now = [0.0]
    log = RefusalLog(world.office.audit, 3, lambda: now[0])
    for _ in range(10):
        log.add("", "not enrolled")
    log.add(SITE, "replayed")
    assert len(world.office.audit.lines()) == 4
    now[0] = 60.0
    log.add("", "not enrolled")
    summary, last = world.office.audit.lines()[4:]
    assert (summary["event"], summary["sender"], summary["count"]) == (
        "requests refused", "unknown", 7,
    )  # fmt: skip
    assert last["reason"] == "not enrolled"
