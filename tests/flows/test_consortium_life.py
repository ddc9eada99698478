"""How sites and a coordinator come to know each other, and what each checks of the other."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version

import psutil
import pytest

from federated.errors import ConsiliumError
from federated.exchange.https.listening import tls_server
from federated.exchange.https.office import MembersFile, Office
from federated.exchange.https.server import exchange_app
from federated.exchange.identity import PublicIdentity
from federated.exchange.journal import JournalledExchange
from federated.exchange.kit import Kit, read_request
from federated.exchange.message import Topic, sign
from federated.files import read_json
from federated.provenance import own_program
from federated.run.coordinator_home import CoordinatorHome
from federated.site.home import SiteHome
from flows import consortium_up
from flows.consortium_up import Party, at_work, process, wait_for_line
from flows.coordinator_life import (
    Address,
    address_of,
    certificates_of,
    enrol,
    make_coordinator,
    office_of,
    refused_connections,
    remove,
    suspend,
)
from flows.coordinator_life import status_lines as coordinator_lines
from flows.members import members_lines
from flows.site import open_home
from flows.site_life import (
    check_site,
    data_of,
    make_site,
    request_file,
    set_paused,
    site_home,
    status_lines,
)
from tests.described_sets import CLASSES, describe, picture_set

HERE = Address(("127.0.0.1",), "127.0.0.1", 8443, "https://127.0.0.1:8443")


@pytest.fixture
def kit(tmp_path):
    path = tmp_path / "kit.json"
    make_coordinator(CoordinatorHome.default(), HERE).write(path)
    return path


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def test_a_site_makes_its_key_and_asks_to_be_enrolled(kit, data, tmp_path):
    site = make_site("clinic-a", kit, data, None)
    request = request_file(site, tmp_path)
    assert read_request(request) == site.identity().public
    assert "private" not in request.read_text()
    secret = (site.root / "identity.key").read_bytes()
    assert secret.hex() not in request.read_text()
    found = enrol(CoordinatorHome.default(), request, site.identity().public.fingerprint)
    assert found == site.identity().public
    assert data_of(site) == data
    (line,) = members_lines(CoordinatorHome.default())
    assert line.startswith(f"clinic-a  enrolled  {found.fingerprint}")
    assert "has never said hello" in line


def test_what_is_made_once_stays(kit, data):
    first = make_site("clinic-a", kit, data, None).identity().public
    assert make_site("clinic-a", kit, data, None).identity().public == first
    coordinator = Kit.read(kit).coordinator
    assert make_coordinator(CoordinatorHome.default(), HERE).coordinator == coordinator
    assert address_of(CoordinatorHome.default()) == HERE


def test_another_fingerprint_than_that_of_the_telephone_enrols_nobody(kit, data, tmp_path):
    request = request_file(make_site("clinic-a", kit, data, None), tmp_path)
    with pytest.raises(ConsiliumError, match="not the one that the site has written"):
        enrol(CoordinatorHome.default(), request, "0000 " * 8)
    assert "no site is enrolled" in next(members_lines(CoordinatorHome.default()))


def test_another_key_takes_nobodys_name(kit, data, tmp_path):
    home = CoordinatorHome.default()
    request = request_file(make_site("clinic-a", kit, data, None), tmp_path)
    enrol(home, request, None)
    value = json.loads(request.read_text())
    value["site"]["key"] = "11" * 32
    request.write_text(json.dumps(value))
    with pytest.raises(ConsiliumError, match="enrolled with another key"):
        enrol(home, request, None)
    remove(home, "clinic-a")
    assert enrol(home, request, None) == PublicIdentity("clinic-a", b"\x11" * 32)


def test_a_suspended_site_is_told_so(kit, data, tmp_path):
    home = CoordinatorHome.default()
    enrol(home, request_file(make_site("clinic-a", kit, data, None), tmp_path), None)
    suspend(home, "clinic-a")
    assert home.members().standing("clinic-a") == "suspended"
    assert "suspended" in next(members_lines(home))
    with pytest.raises(ConsiliumError, match="not enrolled"):
        suspend(home, "clinic-b")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "something"}, "not a coordinator's kit"),
        ({"url": "http://127.0.0.1"}, "has to begin with https"),
        ({"url": 5}, "not a coordinator's kit"),
        ({"coordinator": {"name": "coordinator", "key": "zz"}}, "no public identity"),
        ({"coordinator": {"name": "clinic-b", "key": "11" * 32}}, "not a coordinator's kit"),
        ({"more": 1}, "not a coordinator's kit"),
    ],
)
def test_a_kit_that_is_none_makes_no_site(kit, data, change, said):
    kit.write_text(json.dumps(json.loads(kit.read_text()) | change))
    with pytest.raises(ConsiliumError, match=said):
        make_site("clinic-a", kit, data, None)
    assert not (CoordinatorHome.default().root.parent / "site").exists()


def test_a_home_is_of_one_consortium(kit, data, tmp_path, monkeypatch):
    make_site("clinic-a", kit, data, None)
    home = CoordinatorHome.default().root.parent
    monkeypatch.setenv("CONSILIUM_HOME", str(tmp_path / "other"))
    other = make_coordinator(CoordinatorHome.default(), HERE)
    other.write(kit)
    monkeypatch.setenv("CONSILIUM_HOME", str(home))
    with pytest.raises(ConsiliumError, match="a site of another consortium"):
        make_site("clinic-a", kit, data, None)


@pytest.mark.parametrize("name", ["coordinator", "all", "a/b", "..", "a.b", ""])
def test_names_that_no_site_can_have(kit, data, name):
    with pytest.raises(ConsiliumError, match="cannot be a site's name"):
        make_site(name, kit, data, None)


def test_a_site_without_data_is_not_made(kit, tmp_path):
    with pytest.raises(ConsiliumError, match="There is no folder"):
        make_site("clinic-a", kit, tmp_path / "nowhere", None)


def test_a_policy_that_is_none_makes_no_site(kit, data, tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text("datasets: any\nmax_rounds: many\n")
    with pytest.raises(ConsiliumError, match="max_rounds"):
        make_site("clinic-a", kit, data, policy)


def test_the_one_home_is_found_and_several_are_named(kit, data):
    with pytest.raises(ConsiliumError, match="there is none"):
        site_home(None)
    site = make_site("clinic-a", kit, data, None)
    assert site_home(None) == site
    assert open_home(None) == site
    make_site("clinic-b", kit, data, None)
    with pytest.raises(ConsiliumError, match="clinic-a, clinic-b"):
        site_home(None)
    assert site_home(site.root) == site


def test_a_check_says_what_is_missing_and_takes_part_in_nothing(kit, data):
    site = make_site("clinic-a", kit, data, None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = read_json(site.kit_path) | {"url": f"https://127.0.0.1:{port}"}
    site.kit_path.write_text(json.dumps(told))
    found = {finding.text: finding.good for finding in check_site(site)}
    wrong = " | ".join(text for text, good in found.items() if not good)
    assert f"Nobody listens at 127.0.0.1:{port}" in wrong
    assert "it refuses every run" in wrong
    assert "there are no data sets" in wrong
    assert any(text.startswith("127.0.0.1 is ") for text, good in found.items() if good)
    assert not (site.root / "runs").exists()


@contextmanager
def answering(home: CoordinatorHome, office: Office) -> Iterator[str]:
    """A coordinator's exchange that answers in a thread; its address."""
    server = tls_server(
        exchange_app(office), "127.0.0.1", 0, certificates_of(home, HERE), lambda *_: None, None
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.port}"
    finally:
        server.should_exit = True
        thread.join(20)


def checked(site: SiteHome, home: CoordinatorHome, office: Office) -> dict[str, bool]:
    """What a site's check says of a coordinator that answers."""
    with answering(home, office) as url:
        site.kit_path.write_text(json.dumps(read_json(site.kit_path) | {"url": url}))
        return {finding.text: finding.good for finding in check_site(site)}


def test_a_check_says_that_all_is_well_and_whose_clock_and_programs_differ(kit, data, tmp_path):
    site, home = make_site("clinic-a", kit, data, None), CoordinatorHome.default()
    enrol(home, request_file(site, tmp_path), None)
    office = office_of(home)
    well = checked(site, home, office)
    assert well["the coordinator answers over TLS, and this site is enrolled"]
    assert well[f"the same program: {own_program()}"]
    assert well[f"consilium {version('consilium')}"]
    assert well[f"torch {version('torch')}"]
    (clock,) = (text for text in well if "this clock" in text)
    assert well[clock]
    (disk,) = (text for text in well if text.endswith(f" free for {site.root}"))
    assert well[disk] == (int(disk.split()[0]) >= 5)
    assert any("GPU" in text for text in well)
    other = replace(
        office,
        clock=lambda: time.time() + 300,
        versions={**office.versions, "torch": "1.0", "code": "0" * 64},
    )
    wrong = {text for text, good in checked(site, home, other).items() if not good}
    assert any("is 300.0 s behind the coordinator's: set it (NTP)" in text for text in wrong)
    assert f"torch {version('torch')}, and 1.0 at the coordinator" in wrong
    (program,) = (text for text in wrong if "another program" in text)
    assert own_program() in program
    assert "consilium coordinator status" in program
    assert f"program {own_program()}" in list(coordinator_lines(home, tmp_path))
    # It takes no part: nobody waits for whoever has only looked.
    assert not list(home.seen_path.iterdir())


def test_a_check_validates_the_data_sets_that_the_policy_allows(kit, data, tmp_path):
    picture_set(data / "mine")
    describe(data / "mine", CLASSES)
    policy = tmp_path / "policy.yaml"
    policy.write_text("datasets: [mine, theirs]\n")
    site = make_site("north", kit, data, policy)
    assert "the policy names no experiments, so that it refuses every run" in {
        finding.text for finding in check_site(site) if not finding.good
    }
    site.write_policy("datasets: [mine, theirs]\nexperiments: any\n")
    found = {finding.text: finding.good for finding in check_site(site)}
    (mine,) = (text for text in found if text.startswith("mine"))
    assert any(text == f"theirs is not in {data}" for text, good in found.items() if not good)
    assert ("valid" in mine) == found[mine], mine


def test_a_paused_site_says_so(kit, data):
    site = make_site("clinic-a", kit, data, None)
    assert "never been started" in list(status_lines(site))[1]
    set_paused(site, paused=True)
    assert "paused by a person: consilium site resume" in list(status_lines(site))
    set_paused(site, paused=False)
    assert not SiteHome(site.root).paused_path.exists()


def test_what_no_coordinator_has_is_said(data):
    with pytest.raises(ConsiliumError, match="consilium coordinator init"):
        list(members_lines(CoordinatorHome.default()))


def test_a_coordinator_takes_nothing_of_a_run_that_it_has_not_begun(kit, data):
    site, home = make_site("clinic-a", kit, data, None), CoordinatorHome.default()
    topic = Topic(home.identity().public.consortium, "run-1", 1)
    header = sign(site.identity(), topic, "tag", "all", b"x").header
    assert "begun no attempt 1 at a run run-1" in office_of(home).accepts(header)


def test_strangers_who_are_refused_do_not_fill_the_audit_log(kit, tmp_path):
    home, now = CoordinatorHome.default(), [0.0]
    office = Office(
        "c", MembersFile(home.members_path), JournalledExchange(tmp_path / "exchange"), home.audit,
        home.seen_path, clock=lambda: now[0],
    )  # fmt: skip
    refused = refused_connections(home, office)
    for number in range(1500):
        refused(f"192.0.2.{number % 250}", "too many connections")
    assert len(home.audit.lines()) == office.limits.audit_lines
    now[0] = 60.0
    refused("192.0.2.1", "slow header")
    summary, last = home.audit.lines()[-2:]
    assert (summary["event"], summary["count"]) == ("connections refused", 1470)
    assert (last["event"], last["reason"]) == ("connection refused", "slow header")
    assert last["address"] == "192.0.2.1"


def test_a_process_that_ends_by_itself_is_named_with_the_command_that_begins_it_again(tmp_path):
    """To try a consortium is also to kill its parties; one that is ended is not told of."""
    said, party = [], Party("site-01", tmp_path / "a site")
    party.home.mkdir()
    with process(party, said.append, "site", "start") as running:
        running.process.wait(60)
        wait_for_line(running, "Error: ")
        until = time.monotonic() + 10
        while len(said) < 2 and time.monotonic() < until:
            time.sleep(0.01)
    assert "A site's home is looked for in" in said[0]
    home = f"'{party.home}"
    assert said[-1] == (
        f"site-01      has ended (1); begin it again with: cd {home}' && "
        f"CONSILIUM_HOME={home}/consilium' PREFECT_HOME={home}/prefect' consilium site start"
    )
    said.clear()
    with process(party, said.append, "site", "--help"):
        pass
    assert not [line for line in said if "has ended" in line]


SLOW = """
import signal, sys, time
from pathlib import Path

def end(number, frame):
    begun = time.time()
    time.sleep(1)
    Path("ended").write_text(f"{begun} {time.time()}")
    sys.exit(0)

signal.signal(signal.SIGTERM, end)
print("coordinator at 127.0.0.1" if sys.argv[1] == "coordinator" else "site is here", flush=True)
time.sleep(60)
"""


def test_all_of_a_consortium_end_at_the_same_time(tmp_path, monkeypatch):
    monkeypatch.setattr(consortium_up, "PROGRAM", ("-c", SLOW))
    parties = [Party(name, tmp_path / name) for name in ("coordinator", "site-0", "site-1")]
    for party in parties:
        party.home.mkdir()
    with at_work(parties[0], parties[1:], [], lambda _: None):
        pass
    texts = [(party.home / "ended").read_text().split() for party in parties]
    told, ended = zip(*[map(float, text) for text in texts], strict=True)
    assert max(told) < min(ended)


# A party that ends at once, and what it has started a while later, or never.
LEAVES_ONE = """
import subprocess, sys, time
command = [sys.executable, "-c", f"import time; time.sleep({sys.argv[1]})"]
null = subprocess.DEVNULL
started = subprocess.Popen(command, start_new_session=True, stdout=null, stderr=null)
print(started.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("lives", "within"), [(1.5, 20), (60, 0.2)])
def test_what_a_party_has_started_is_gone_when_the_party_is(tmp_path, monkeypatch, lives, within):
    """As a server that is still going down, and one that does not go."""
    monkeypatch.setattr(consortium_up, "PROGRAM", ("-c", LEAVES_ONE))
    monkeypatch.setattr(consortium_up, "ENDING", within)
    with consortium_up.process(Party("site-0", tmp_path), lambda _: None, str(lives)) as running:
        while not running.lines:
            time.sleep(0.01)
        below = psutil.Process(int(running.lines[0]))
    if within < lives:
        below.wait(10)
    assert not below.is_running() or below.status() == psutil.STATUS_ZOMBIE


# Starts a party whose program is this machine's own small server, and says its number.
STARTS_A_PARTY = """
import sys, time
from pathlib import Path
from flows import consortium_up

consortium_up.PROGRAM = (*consortium_up.PROGRAM[:-1], "http.server")
party = consortium_up.Party("site-0", Path(sys.argv[1]))
with consortium_up.process(party, print, "0", "--bind", "127.0.0.1") as running:
    print(running.process.pid, flush=True)
    time.sleep(600)
"""


def test_no_party_outlives_the_terminal_that_was_killed(tmp_path):
    """Killed, and so without a moment to tell anybody."""
    assert consortium_up.PROGRAM[-1] == "flows.program"
    command = [sys.executable, "-c", STARTS_A_PARTY, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        party = psutil.Process(int(started.stdout.readline()))
        # It listens, and is all that it will be.
        started.stdout.readline()
        started.kill()
        party.wait(60)
