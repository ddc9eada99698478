"""SecAgg+ at a site, whatever a coordinator passes on: names that nobody asked, sums of too few."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.exchange.bundle import pack_bundle
from federated.exchange.identity import COORDINATOR, Identity
from federated.exchange.message import Message, Topic, sign
from federated.protection.secagg import protocol
from federated.run.update_files import read_state
from federated.site.releases import state_digest
from federated.stages.coordinator import begin_round
from federated.stages.protect import protect_site
from federated.stages.secagg import (
    advertise_site,
    agree_site,
    answer_site,
    forget_secrets,
    share_site,
)
from federated.stages.secagg_messages import pack
from federated.stages.secagg_relay import relay_views
from tests.federated.exchange.parties import identity
from tests.federated.staged_run import (
    Staged,
    begin,
    small_experiment,
    small_images,
    train_round,
)

SECAGG = {
    "compression": {"name": "none", "bits": 8},
    "protection": {"name": "secagg_plus"},
}
FOUR = {"sites": {"count": 4, "partition": "iid", "min_cases": 2, "participation": 0.75}}
THREE = {"sites": {"count": 3, "partition": "iid", "min_cases": 2}}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return small_images(tmp_path)


@pytest.fixture
def run(tmp_path: Path, data: Path) -> Staged:
    return begin(small_experiment(data, **THREE, **SECAGG), tmp_path / "runs")


@pytest.fixture
def some(tmp_path: Path, data: Path) -> Staged:
    """Three of four sites are selected in a round."""
    return begin(small_experiment(data, **FOUR, **SECAGG), tmp_path / "runs")


def advertised(run: Staged, topic: Topic) -> list[Message]:
    """What the sites that are selected have advertised."""
    selected = run.coordinator.run.selected(topic.round)
    for site in selected:
        advertise_site(run.call(site), topic.round)
    receive = run.coordinator.mailbox.receive
    return [receive(topic, kinds.ADVERTISED, site, kinds.MOST_SMALL) for site in selected]


def keys_of(who: Identity, topic: Topic) -> Message:
    """What a party advertises that made its keys itself."""
    _, public = protocol.advertise(who.name, topic.run, topic.round, topic.attempt)
    return sign(who, topic, kinds.ADVERTISED, COORDINATOR, pack(asdict(public)))


def pass_on(run: Staged, topic: Topic, roster: list[Message]) -> None:
    """Send all sites what they need to share and mask, with a roster of the coordinator's own."""
    send = run.coordinator.mailbox.send
    send(topic, kinds.ROSTER, pack_bundle(roster))
    names = [message.header.sender for message in roster]
    send(topic, kinds.SHARING, json.dumps(names).encode())
    for site in run.coordinator.run.selected(topic.round):
        send(topic, kinds.INBOX, b"{}", site)


def refused_by_all(run: Staged, topic: Topic, said: str) -> None:
    """No site that is selected shares or masks, or has sent anything."""
    for site in run.coordinator.run.selected(topic.round):
        for stage in (share_site, protect_site):
            with pytest.raises(ConsiliumError, match=said):
                stage(run.call(site), topic.round)
        for kind in (kinds.SHARES, kinds.PAYLOAD):
            with pytest.raises(ConsiliumError, match=f"no message {kind}"):
                run.coordinator.mailbox.receive(topic, kind, site, kinds.MOST_SMALL)


def trained(run: Staged) -> Topic:
    """A round up to what the sites compressed, of which they have masked nothing."""
    topic = train_round(run, 1)
    run.resume()
    return topic


@pytest.mark.parametrize("signer", ["itself", "the coordinator"])
def test_a_site_shares_nothing_with_names_that_nobody_knows(run: Staged, signer: str) -> None:
    """Shares of its seeds would go to whoever made the names up."""
    trained(run)
    topic = begin_round(run.coordinator, 1)
    ghost = identity("ghost") if signer == "itself" else run.coordinator.mailbox.me
    pass_on(run, topic, [*advertised(run, topic), keys_of(ghost, topic)])
    name = ghost.name
    said = "who is not enrolled" if signer == "itself" else f"keys of {name}, not selected"
    refused_by_all(run, topic, said)


def test_a_site_shares_nothing_with_a_site_that_was_not_selected(some: Staged) -> None:
    """It could be the coordinator's own, kept out of the sum."""
    trained(some)
    topic = begin_round(some.coordinator, 1)
    (other,) = set(some.sites) - set(some.coordinator.run.selected(1))
    own = keys_of(some.home(other).identity(), topic)
    pass_on(some, topic, [*advertised(some, topic), own])
    refused_by_all(some, topic, f"keys of {other}, not selected")


@pytest.mark.parametrize("what", ["another key", "another signer", "another round", "twice"])
def test_a_site_shares_nothing_where_a_key_is_not_the_one_that_its_owner_signed(
    run: Staged, what: str
) -> None:
    trained(run)
    topic = begin_round(run.coordinator, 1)
    *others, last = advertised(run, topic)
    if what == "another key":
        made_up = keys_of(run.coordinator.mailbox.me, topic)
        forged, said = [Message(last.signed, made_up.body)], "body is not the one that was signed"
    elif what == "another signer":
        forged, said = [keys_of(identity(run.sites[-1]), topic)], "which that site has not signed"
    elif what == "another round":
        earlier = Topic(topic.consortium, topic.run, topic.attempt, 7, topic.state, topic.plan)
        forged = [keys_of(run.home(run.sites[-1]).identity(), earlier)]
        said = "of another round, state, plan or kind"
    else:
        forged = [last, keys_of(run.home(run.sites[-1]).identity(), topic)]
        said = "is in it twice"
    pass_on(run, topic, [*others, *forged])
    refused_by_all(run, topic, said)


@pytest.mark.parametrize(
    ("responded", "said"),
    [
        (["site-00"], "min_sites=3"),
        (["site-00", "site-02"], "min_sites=3"),
        (["site-00"] * 3, "more than once"),
        (["site-00", "site-01", "ghost"], "ghost"),
    ],
    ids=["one", "two", "one three times", "a name that nobody knows"],
)
def test_a_site_asks_itself_whether_a_sum_is_of_enough_sites(
    run: Staged, responded: list[str], said: str
) -> None:
    """Whatever the coordinator lets pass."""
    topic = train_round(run, 1)
    body = json.dumps(responded).encode()
    run.coordinator.mailbox.send(topic, kinds.RESPONDED, body)
    for site in run.sites:
        for stage in (agree_site, answer_site):
            with pytest.raises(ConsiliumError, match=f"{said}|does not have {site} itself in it"):
                stage(run.call(site), 1)
        for kind in (kinds.CONSISTENCY, kinds.ANSWER):
            with pytest.raises(ConsiliumError, match=f"no message {kind}"):
                run.coordinator.mailbox.receive(topic, kind, site, kinds.MOST_SMALL)


def test_a_site_is_told_of_one_sum_alone(run: Staged) -> None:
    topic = train_round(run, 1)
    send = run.coordinator.mailbox.send
    send(topic, kinds.RESPONDED, json.dumps(run.sites).encode())
    send(topic, kinds.RESPONDED, json.dumps(run.sites[::-1]).encode())
    for stage in (agree_site, answer_site):
        with pytest.raises(RefusalError, match="2 different messages responded"):
            stage(run.call("site-00"), 1)


def test_a_site_answers_nothing_that_too_few_others_have_signed(run: Staged) -> None:
    """The coordinator may have told them another list, and passes on what it likes."""
    topic = train_round(run, 1)
    box = run.coordinator.mailbox
    box.send(topic, kinds.RESPONDED, json.dumps(run.sites).encode())
    for site in run.sites:
        agree_site(run.call(site), 1)
    own = box.receive(topic, kinds.CONSISTENCY, "site-00", kinds.MOST_SMALL)
    others = [
        sign(run.home(site).identity(), topic, kinds.CONSISTENCY, COORDINATOR, b"another view")
        for site in run.sites[1:]
    ]
    box.send(topic, kinds.AGREED, pack_bundle([own, *others]))
    with pytest.raises(ConsiliumError, match=r"1 sites, .*site-01, site-02 signed something else"):
        answer_site(run.call("site-00"), 1)
    assert not list(run.folder.exchange_path.rglob(f"{kinds.ANSWER}/*/*.message"))


def test_a_site_that_has_answered_has_nothing_left_to_answer_with(run: Staged) -> None:
    topic = train_round(run, 1)
    body = json.dumps(run.sites).encode()
    run.coordinator.mailbox.send(topic, kinds.RESPONDED, body)
    for site in run.sites:
        agree_site(run.call(site), 1)
    relay_views(run.coordinator, topic, run.sites)
    answer_site(run.call("site-00"), 1)
    forget_secrets(run.call("site-01"))
    # Asked again, the first sends nothing else than it has sent; the second never answered.
    answer_site(run.call("site-00"), 1)
    assert len(list(run.folder.exchange_path.rglob(f"{kinds.ANSWER}/site-00/*.message"))) == 1
    with pytest.raises(ConsiliumError, match="it has answered already, or never advertised"):
        answer_site(run.call("site-01"), 1)
    for site in run.sites[:2]:
        # New keys in the same attempt would be for a second sum of the same update.
        with pytest.raises(RefusalError, match="does nothing more in attempt 1 at round 1"):
            advertise_site(run.call(site), 1)


def test_secrets_that_a_killed_process_was_writing_are_erased_too(run: Staged) -> None:
    train_round(run, 1)
    folder = run.store("site-01").secrets
    left = folder / ".round-001-attempt-1.secret.json.ab12.part"
    left.write_text("{}")
    left.chmod(0o600)
    forget_secrets(run.call("site-01"))
    assert [path.name for path in folder.iterdir() if "secret" in path.name] == []


def answered(run: Staged, responded: list[str]) -> None:
    """An attempt at round 1 up to the answer of its first site, for the sum of ``responded``."""
    topic = train_round(run, 1)
    run.coordinator.mailbox.send(topic, kinds.RESPONDED, json.dumps(responded).encode())
    for site in responded:
        agree_site(run.call(site), 1)
    relay_views(run.coordinator, topic, responded)
    answer_site(run.call(responded[0]), 1)


def test_a_site_answers_for_one_sum_from_a_state_in_whatever_bytes_it_is_written(
    tmp_path: Path, data: Path
) -> None:
    """In two attempts; the difference of the sums would be the update of the third site."""
    two = SECAGG | {"protection": {"name": "secagg_plus", "min_sites": 2}}
    run = begin(small_experiment(data, **THREE, **two), tmp_path / "runs")
    answered(run, run.sites)
    path = run.folder.state_path(0)
    content, before = path.read_bytes(), read_state(path)
    start = 8 + int.from_bytes(content[:8], "little")
    text = json.dumps(json.loads(content[8:start]), indent=1).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[start:])
    assert path.read_bytes() != content
    assert state_digest(read_state(path)) == state_digest(before)
    run.resume()
    with pytest.raises(ConsiliumError, match="has already answered for a sum"):
        answered(run, run.sites[:2])
    run.resume()
    answered(run, run.sites)


@pytest.mark.parametrize("body", [b"", b"3", b"{}", b"[3]", b"[" * 10**5, b'["a", null]'])
def test_names_that_are_none_are_refused(run: Staged, body: bytes) -> None:
    topic = train_round(run, 1)
    run.coordinator.mailbox.send(topic, kinds.RESPONDED, body)
    for stage in (agree_site, answer_site):
        with pytest.raises(RefusalError, match="is no list of names"):
            stage(run.call("site-00"), 1)
