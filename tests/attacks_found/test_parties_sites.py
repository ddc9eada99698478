"""One enrolled site that lies, to end a round of the others or to have another one blamed."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from federated.exchange import kinds
from federated.exchange.folder import EVERYONE
from federated.exchange.identity import COORDINATOR
from federated.exchange.message import Topic
from federated.protection import secagg_plus
from federated.protection.secagg import protocol
from federated.protection.secagg.dealing import HASH_BYTES, _hash
from federated.protection.secagg.round import Share
from federated.run.update_files import read_state
from federated.settings.names import refuse_site_name
from federated.stages.aggregate import add_payloads
from federated.stages.compress import compress_site
from federated.stages.coordinator import begin_round
from federated.stages.local_train import train_site
from federated.stages.protect import protect_site
from federated.stages.secagg import advertise_site, agree_site, answer_site, share_site
from federated.stages.secagg_messages import Roster, masked_round, pack, unpack
from federated.stages.secagg_relay import (
    relay_keys,
    relay_responded,
    relay_shares,
    relay_views,
    unmask_sum,
)
from tasks.secagg import unmask
from tests.federated.staged_run import (
    Staged,
    agree_on_key,
    begin,
    small_experiment,
    small_images,
    train_round,
)

LIAR = "site-00"
SECTIONS = {
    "sites": {"count": 4, "partition": "iid", "min_cases": 2},
    "protection": {"name": "secagg_plus", "dropout": 0.25, "corrupted": 0.0},
    "compression": {"name": "shared_mask", "density": 1.0, "bits": 8},
}


@pytest.fixture
def run(tmp_path: Path) -> Staged:
    return begin(small_experiment(small_images(tmp_path), **SECTIONS), tmp_path / "runs")


def send_instead(run: Staged, topic: Topic, kind: str, body: bytes) -> None:
    """Let the liar send another message in place of its own."""
    for path in run.folder.exchange_path.rglob(f"{kind}/{LIAR}/*.message"):
        path.unlink()
    run.site(LIAR).mailbox.send(topic, kind, body, COORDINATOR)


def body(run: Staged, topic: Topic, kind: str) -> bytes:
    return run.coordinator.mailbox.receive(topic, kind, LIAR, kinds.MOST_SMALL).body


def up_to_payloads(run: Staged, topic: Topic, roster: Roster) -> list[str]:
    for site in run.sites:
        train_site(run.call(site), 1)
        compress_site(run.call(site), 1)
        protect_site(run.call(site), 1)
    masks = masked_round(run.coordinator.run, list(roster.advertised), topic)
    responded = add_payloads(run.coordinator, topic, run.sites, masks).responded
    relay_responded(run.coordinator, topic, roster, responded)
    return responded


def keys_and_shares(run: Staged, topic: Topic) -> Roster:
    for site in run.sites:
        advertise_site(run.call(site), 1)
    roster = relay_keys(run.coordinator, topic, run.sites)
    for site in run.sites:
        share_site(run.call(site), 1)
    return relay_shares(run.coordinator, topic, roster, run.sites)


def up_to_answers(run: Staged, topic: Topic) -> tuple[Roster, list[str]]:
    """All of a round before the sum is opened; who is in it."""
    roster = keys_and_shares(run, topic)
    responded = up_to_payloads(run, topic, roster)
    for site in responded:
        agree_site(run.call(site), 1)
    relay_views(run.coordinator, topic, responded)
    for site in responded:
        answer_site(run.call(site), 1)
    return roster, responded


def test_keys_with_megabytes_of_spaces_do_not_end_the_round(run: Staged) -> None:
    topic = begin_round(run.coordinator, 1)
    for site in run.sites:
        advertise_site(run.call(site), 1)
    padded = body(run, topic, kinds.ADVERTISED).ljust(kinds.MOST_SMALL - 10)
    send_instead(run, topic, kinds.ADVERTISED, padded)
    relay_keys(run.coordinator, topic, run.sites)
    for site in run.sites[1:]:
        share_site(run.call(site), 1)


def test_a_view_of_megabytes_does_not_end_the_round(run: Staged) -> None:
    topic = begin_round(run.coordinator, 1)
    roster = keys_and_shares(run, topic)
    responded = up_to_payloads(run, topic, roster)
    for site in responded:
        agree_site(run.call(site), 1)
    send_instead(run, topic, kinds.CONSISTENCY, bytes(kinds.MOST_SMALL - 10))
    relay_views(run.coordinator, topic, responded)
    for site in responded[1:]:
        answer_site(run.call(site), 1)


def test_who_deals_other_shares_afterwards_has_nobody_else_blamed(run: Staged) -> None:
    topic = begin_round(run.coordinator, 1)
    roster, responded = up_to_answers(run, topic)
    dealt = unpack(body(run, topic, kinds.SHARES))
    other = {name: bytes(2 * HASH_BYTES) + content[2 * HASH_BYTES :]
             for name, content in dealt.items()}  # fmt: skip
    send_instead(run, topic, kinds.SHARES, pack(other))
    assert unmask_sum(run.coordinator, topic, roster, responded, responded) == ()


def test_a_share_of_another_length_under_its_right_hash_does_not_end_the_round(
    run: Staged,
) -> None:
    """The liar deals itself a hash of eight bytes, and answers these."""
    import json

    topic = begin_round(run.coordinator, 1)
    for site in run.sites:
        advertise_site(run.call(site), 1)
    roster = relay_keys(run.coordinator, topic, run.sites)
    for site in run.sites:
        share_site(run.call(site), 1)
    session = masked_round(run.coordinator.run, list(roster.advertised), topic)
    short = Share("own", b"12345678" * 5)
    dealt = unpack(body(run, topic, kinds.SHARES))
    own = dealt[LIAR]
    lie = own[:HASH_BYTES] + _hash(short, LIAR, LIAR, session) + own[2 * HASH_BYTES :]
    send_instead(run, topic, kinds.SHARES, pack({**dealt, LIAR: lie}))
    roster = relay_shares(run.coordinator, topic, roster, run.sites)
    responded = up_to_payloads(run, topic, roster)
    for site in responded:
        agree_site(run.call(site), 1)
    relay_views(run.coordinator, topic, responded)
    for site in responded:
        answer_site(run.call(site), 1)
    told = json.loads(body(run, topic, kinds.ANSWER))
    told["shares"][LIAR] = {"kind": "own", "value": short.value.hex()}
    send_instead(run, topic, kinds.ANSWER, json.dumps(told).encode())
    assert unmask_sum(run.coordinator, topic, roster, responded, responded) == (LIAR,)


@pytest.mark.parametrize("name", ["coordinator", "all"])
def test_no_site_has_a_name_that_messages_need(name: str) -> None:
    from federated.errors import ConsiliumError

    with pytest.raises(ConsiliumError, match="are taken"):
        refuse_site_name(name)


def test_an_encrypted_payload_is_made_once_in_an_attempt(
    tmp_path: Path,
) -> None:
    """Asked again the site sends what it has sent: what is encrypted anew would be a second one."""
    sections = SECTIONS | {"protection": {"name": "packed_bfv"}}
    run = begin(small_experiment(small_images(tmp_path), **sections), tmp_path / "runs")
    agree_on_key(run)
    topic = train_round(run, 1)
    protect_site(run.call(LIAR), 1)
    assert add_payloads(run.coordinator, topic, run.sites).responded == run.sites


def test_a_site_that_masks_more_than_it_may_loses_the_round_and_ends_no_run(
    run: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which site it was is hidden with the rest; the model stays as it is."""

    def masking(quantised: Any, secrets: Any, *given: Any) -> Any:
        more = 30_000 if secrets.site == LIAR else 0
        return protocol.mask_update(quantised + more, secrets, *given)

    monkeypatch.setattr(secagg_plus, "mask_update", masking)
    topic = begin_round(run.coordinator, 1)
    roster, responded = up_to_answers(run, topic)
    done = unmask.fn(run.coordinator, topic, roster, responded, responded)
    assert done.lost is not None
    assert "a number is not from -508 to 508" in done.lost
    assert run.coordinator.faulty == {}
    first, second = (read_state(run.folder.state_path(number)).weights for number in (0, 1))
    assert (first == second).all()


@pytest.mark.parametrize("kind", [kinds.ADVERTISED, kinds.CONSISTENCY])
def test_what_a_site_tells_all_in_place_of_the_coordinator_is_not_passed_on(
    run: Staged, kind: str
) -> None:
    """A bundle with it was refused by each honest site, so that one site ended every round."""
    topic, liar = begin_round(run.coordinator, 1), run.sites[-1]

    def misaddressed() -> None:
        body = run.coordinator.mailbox.receive(topic, kind, liar, 10**7).body
        for place in run.folder.exchange_path.rglob(f"{kind}/{liar}"):
            shutil.rmtree(place)
        run.site(liar).mailbox.send(topic, kind, body, EVERYONE)

    honest = run.sites[:-1]
    if kind == kinds.ADVERTISED:
        for site in run.sites:
            advertise_site(run.call(site), 1)
        misaddressed()
        assert sorted(relay_keys(run.coordinator, topic, run.sites).advertised) == honest
        for site in honest:
            share_site(run.call(site), 1)
        return
    responded = up_to_payloads(run, topic, keys_and_shares(run, topic))
    for site in responded:
        agree_site(run.call(site), 1)
    misaddressed()
    relay_views(run.coordinator, topic, responded)
    for site in honest:
        answer_site(run.call(site), 1)
