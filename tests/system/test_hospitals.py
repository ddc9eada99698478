"""A consortium of hospitals under bad conditions: its models are those of one machine, bit by bit.

PostgreSQL, a coordinator and three sites are processes of users that cannot read each other's
files. Whatever happens to them in its runs, the last one included, all of what they sent each other
is searched for images.
"""

import os
import shutil
import socket
import ssl
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from federated.exchange.https.certificates import client_context
from federated.exchange.message import Topic, open_message, sign
from federated.files import read_json
from federated.run.folder import RunFolder
from federated.run.update_files import read_state
from flows.round import fl_round
from tests.federated.exchange.https.world import Attacker
from tests.federated.exchange.parties import identity
from tests.system.hospitals import (
    BAD,
    HOST,
    LATE_CLOCK,
    MOST_S,
    NAMED,
    PROXIED,
    SITES,
    hospitals,
    kill_group,
    wait_for,
)
from tests.system.searching import pieces_of, places_of, texts_in
from tests.without_prefect import without_prefect

pytestmark = pytest.mark.system
COMMON = ("data.source=files",)
SECAGG = ("compression.bits=8", "protection.name=secagg_plus")
BFV = ("compression.bits=8", "protection.name=packed_bfv")


@pytest.fixture(scope="module")
def consortium(empty_prefect):
    root = Path(tempfile.mkdtemp(prefix="consilium-hospitals-"))
    try:
        with hospitals(root, empty_prefect) as made:
            yield made
    finally:
        shutil.rmtree(root, ignore_errors=True)


def weights(folder: RunFolder) -> np.ndarray:
    return read_state(folder.state_path(folder.done_rounds())).weights


def embedded(consortium, *sets: str) -> np.ndarray:
    """The final weights of simulated sites with the same cases, in this process."""
    root = consortium.root
    given = [*COMMON, f"data.root={root / 'whole'}", "runner.workers=1", *sets]
    with without_prefect():
        place = fl_round(
            "adrenal", given, params=str(root / "params.yaml"), register_model=False
        )  # fmt: skip
    return weights(RunFolder(Path(place)))


def run_words(*sets: str) -> list[str]:
    # On a busy machine a site may be heard of late.
    patient = ("runner.joining=900", "runner.silence=900")
    items = ("runner.name=sites", *patient, *COMMON, *sets)
    return ["run", "adrenal", *(word for item in items for word in ("--set", item))]


def begun(consortium, *sets: str):
    """Begin a run, and wait for its folder; return its process and its folder."""
    runs = consortium.coordinator.folder / "runs" / "adrenal"
    before = set(runs.glob("2*"))
    process = consortium.begin(*run_words(*sets))
    log = lambda: consortium.coordinator.log  # noqa: E731
    wait_for(
        lambda: set(runs.glob("2*/config.json")) - {p / "config.json" for p in before}, log, process
    )
    (folder,) = set(runs.glob("2*")) - before
    return process, RunFolder(folder)


def after_round(consortium, process, folder, number):
    wait_for(lambda: folder.done_rounds() >= number, lambda: consortium.coordinator.log, process)


def test_nobody_reads_what_is_anothers(consortium):
    parties = {"coordinator": consortium.coordinator, **consortium.sites}
    for name, party in parties.items():
        for other in parties.values():
            mine = other is party
            key = next(other.folder.rglob("identity.key"))
            assert party.user.can("list", other.folder) is mine
            assert party.user.can("read", key) is mine
            for data in other.folder.glob("data/medmnist/*.npz"):
                assert party.user.can("read", data) is mine, name
        assert party.started[0].poll() is None
        uid, _ = party.user.ids
        assert Path(f"/proc/{party.started[0].pid}").stat().st_uid == uid


def test_secagg_plus_with_a_run_that_is_killed_and_resumed(consortium, project):
    process, folder = begun(consortium, *SECAGG)
    after_round(consortium, process, folder, 2)
    kill_group(process)
    assert folder.done_rounds() == 2
    consortium.end(consortium.begin("resume", "adrenal"))
    assert np.array_equal(weights(folder), embedded(consortium, *SECAGG))
    summary = read_json(folder.summary_path)
    assert (summary["sites"], summary["model_version"]) == (list(SITES), 1)
    named = consortium.cluster.query("SELECT name, version FROM mlflow.model_versions")
    assert named == [("adrenal", 1)]
    assert [record["sites"] for record in folder.records()] == [list(SITES)] * 3


def test_packed_bfv_with_servers_that_are_killed_and_started_again(consortium, project):
    """That the servers are killed takes half a minute, and is asked for by ``CONSILIUM_LONG=1``."""
    process, folder = begun(consortium, *BFV)
    if os.environ.get("CONSILIUM_LONG"):
        after_round(consortium, process, folder, 2)
        kill_group(consortium.serving)
        consortium.start_coordinator()
    if process.wait(MOST_S):
        consortium.end(consortium.begin("resume", "adrenal"))
    assert np.array_equal(weights(folder), embedded(consortium, *BFV))
    assert read_json(folder.summary_path)["model_version"] == 2


def attack(consortium) -> dict[str, object]:
    """What a site that lies, and who is no site at all, get for what they send to the port."""
    known = {site: consortium.home_of(site).identity() for site in SITES}
    coordinator = consortium.home.identity().public
    authority = read_json(consortium.home_of(PROXIED).kit_path)["authority"]
    world = SimpleNamespace(
        parties=known, consortium=coordinator.consortium, authority=authority,
        port=consortium.port, clients=[],
    )  # fmt: skip
    liar, found = Attacker(world, PROXIED), {}
    topic = Topic(coordinator.consortium, "run-1", 1, 1)
    others = sign(known[BAD], topic, "payload", "coordinator", b"x")
    forged = sign(identity(PROXIED), topic, "payload", "coordinator", b"x")
    own = sign(known[PROXIED], topic, "payload", "coordinator", b"x" * 10)
    found["other site's"] = liar.upload(others.to_bytes(), others.signed.digest).status_code
    found["forged"] = liar.upload(forged.to_bytes(), forged.signed.digest).status_code
    content = own.to_bytes()
    found["not wanted"] = liar.upload(content, own.signed.digest).status_code
    target = f"outbox/{own.signed.digest}?offset=0&total={len(content)}&kind=payload"
    headers = liar.headers("PATCH", target, content)
    found["other body"] = liar.ask("PATCH", target, content[:-1] + b"y", headers).status_code
    target = "messages?after=0&epoch=&wait=0"
    headers = liar.headers("GET", target)
    found["first"] = liar.ask("GET", target, headers=headers).status_code
    found["replayed"] = liar.ask("GET", target, headers=headers).status_code
    for path in ("messages/..%2f..%2fidentity.key", "messages/../../../coordinator/identity.key"):
        found[path] = liar.ask("GET", path).status_code
    stranger = Attacker(world, PROXIED)
    stranger.identity = identity(PROXIED)
    found["stranger"] = stranger.ask("GET", target).status_code
    context = client_context(authority)
    slow = []
    for _ in range(30):
        raw = socket.create_connection((HOST, consortium.port), timeout=10)
        slow.append(context.wrap_socket(raw, server_hostname=HOST))
        slow[-1].sendall(b"GET /exchange/v2/hello HTTP/1.1\r\nHost: x\r\nX-A: ")
    found["header without an end"] = _sent_until_cut(slow[0], b"a" * 2**16, 2**8)
    body = b"PATCH /exchange/v2/outbox/x HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\n"
    slow[1].close()
    raw = socket.create_connection((HOST, consortium.port), timeout=10)
    with context.wrap_socket(raw, server_hostname=HOST) as connection:
        connection.sendall(body)
        found["10 GB"] = _sent_until_cut(connection, b"a" * 2**16, 2**8)
    threading.Timer(20, lambda: [each.close() for each in slow]).start()
    return found


def _sent_until_cut(connection: ssl.SSLSocket, content: bytes, most: int) -> bool:
    """Whether the other side ends a connection before so many pieces were sent."""
    try:
        for _ in range(most):
            connection.sendall(content)
        return connection.recv(1) == b""
    except OSError:
        return True


def test_a_site_that_is_killed_is_back_in_the_next_round_and_attacks_harm_nobody(
    consortium, project
):
    process, folder = begun(consortium)
    asked = consortium.home.exchange_path / folder.run_id

    def is_asked(number):
        return any(asked.glob(f"round-{number:03d}/attempt-1/{LATE_CLOCK}/ask-*"))

    wait_for(lambda: is_asked(1), lambda: consortium.coordinator.log, process)
    folder.paused_path.touch()
    answered = attack(consortium)
    after_round(consortium, process, folder, 1)
    folder.paused_path.unlink()
    wait_for(lambda: is_asked(2), lambda: consortium.coordinator.log, process)
    # In the middle of its training; the round after that waits.
    folder.paused_path.touch()
    consortium.sites[LATE_CLOCK].kill()
    seen = consortium.home.seen_path / f"{LATE_CLOCK}.json"
    while folder.done_rounds() < 2:
        # As if it had not said hello for so long: nobody waits that long here.
        os.utime(seen, (time.time() - 10**4, time.time() - 10**4))
        time.sleep(0.1)
        assert process.poll() is None, consortium.coordinator.log
    consortium.start_site(LATE_CLOCK)
    wait_for(lambda: time.time() - seen.stat().st_mtime < 100)
    folder.paused_path.unlink()
    consortium.end(process)
    first, second, third = folder.records()
    assert first["sites"] == third["sites"] == list(SITES)
    assert second["sites"] == [BAD, PROXIED]
    assert "has not said hello for" in second["dropped"][LATE_CLOCK]
    assert answered.pop("first") == 200
    assert answered.pop("header without an end") is True
    assert answered.pop("10 GB") is True
    assert all(400 <= status < 500 for status in answered.values()), answered
    lines = consortium.home.audit.lines()
    refused = {line["reason"] for line in lines if line["event"] == "request refused"}
    assert {"other sender", "bad signature", "not wanted", "other body", "replayed"} <= refused


def test_a_bad_link_a_wrong_clock_and_a_proxy_are_said_and_harmed_nothing(consortium):
    deeds = consortium.bad.done
    assert sum(count for deed, count in deeds.items() if deed) > 20, deeds
    lines = consortium.home_of(LATE_CLOCK).audit.lines()
    clock = [line for line in lines if line["event"] == "clock off"]
    assert clock
    assert all(abs(line["seconds"] - 300) <= 5 for line in clock)
    assert set(consortium.proxy.asked) == {f"CONNECT {NAMED}:{consortium.port}"}


def test_nothing_but_messages_of_their_size_has_left_a_site_and_no_image(consortium):
    """All that lies in the exchanges, the wire with TLS, and the wire of one site without it."""
    pieces = pieces_of(consortium.arrays, cases=10)
    image = consortium.arrays["train_images"][3]
    # It finds an image in each form, or this shows nothing.
    assert places_of(b"x" * 5 + image.tobytes(), pieces)
    for kind in (np.float32, np.float64):
        assert places_of(b"x" + (image / 255).astype(kind).tobytes(), pieces)
    texts = [str(party.folder) for party in consortium.sites.values()]
    texts += [party.user.name for party in consortium.sites.values()]
    texts += ["adrenalmnist3d.npz", "train_images"]
    assert texts_in(b'{"path": "' + texts[0].encode(), texts) == [texts[0]]
    places = [consortium.home.exchange_path]
    places += [consortium.home_of(site).exchange_path for site in SITES]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    messages = [path for path in files if path.suffix == ".message"]
    assert len(messages) > 50
    for path in messages:
        # It is as long as its header says that it is, and has no byte beside.
        with open_message(path) as unread:
            unread.check_body()
    for path in files:
        content = path.read_bytes()
        assert not places_of(content, pieces), path
        assert not texts_in(content, texts), path
    assert len(consortium.relay.kept) > 10**6
    for content in (consortium.bad.kept, consortium.relay.kept):
        assert not places_of(bytes(content), pieces)
        assert not texts_in(bytes(content), texts)
    assert b"fedavg" in consortium.bad.kept or b"round-plan" in consortium.bad.kept
