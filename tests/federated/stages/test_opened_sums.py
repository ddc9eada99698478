"""Of encrypted sums a site opens those alone that are the sum of what enrolled sites have sent.

Each attack is made by whoever has the coordinator's or a site's own key and can write to the
exchange. The honest run goes on, or what it would have cost is not told.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from federated.errors import ConsiliumError
from federated.exchange import kinds
from federated.exchange.message import Topic
from federated.files import read_json
from federated.run.update_files import pack_payload, read_payload, read_state
from federated.stages.aggregate import add_payloads, apply_sum, decrypt_site, hand_sum, vouch_site
from federated.weights.bounded_file import Content
from tests.federated.staged_run import (
    Staged,
    train_round,
)
from tests.federated.stages.lies import (
    OTHER,
    SITE,
)


def summed(run: Staged, sites: list[str]) -> Topic:
    """A round up to the sum of the payloads of ``sites``, which the coordinator has."""
    topic = train_round(run, 1)
    add_payloads(run.coordinator, topic, sites)
    return topic


def openings(run: Staged) -> int:
    found = [run.store(site).root / "openings.json" for site in run.sites]
    return sum(sum(read_json(path).values()) for path in found if path.is_file())


def test_an_honest_sum_is_opened_and_applied(encrypted: Staged) -> None:
    topic = summed(encrypted, encrypted.sites)
    hand_sum(encrypted.coordinator, topic, SITE)
    for site in encrypted.sites:
        vouch_site(encrypted.call(site), 1, encrypted.sites)
    decrypt_site(encrypted.call(SITE), 1, encrypted.sites)
    apply_sum(encrypted.coordinator, topic, encrypted.sites, SITE)
    assert read_state(encrypted.folder.state_path(1)).round_number == 1


def one_payload(run: Staged, topic: Topic) -> bytes:
    return run.coordinator.mailbox.receive(topic, kinds.PAYLOAD, OTHER, 10**9).body


def made_up(run: Staged, topic: Topic) -> bytes:
    """A ciphertext that gives the key away where it is opened: c0 = q/t, c1 = 0 (AUDIT C2)."""
    total = read_payload(run.folder.sum_path(1))
    body = total.body.copy()
    body[-4096:] = 0
    return pack_payload(replace(total, body=body))


FORGED: dict[str, Callable[[Staged, Topic], bytes]] = {
    "one site's payload": one_payload,
    "one site's payload with the sum's weight": lambda run, topic: pack_payload(
        replace(
            read_payload(Content(one_payload(run, topic), "x")),
            site="sum", weight=read_payload(run.folder.sum_path(1)).weight,
        )
    ),
    "a ciphertext that was made up": made_up,
}  # fmt: skip


@pytest.mark.parametrize("what", FORGED)
def test_what_is_not_the_sum_is_not_opened(encrypted: Staged, what: str) -> None:
    topic = summed(encrypted, encrypted.sites)
    content = FORGED[what](encrypted, topic)
    encrypted.coordinator.mailbox.send(topic, kinds.SUM, content, SITE)
    for site in encrypted.sites:
        vouch_site(encrypted.call(site), 1, encrypted.sites)
    with pytest.raises(ConsiliumError):
        decrypt_site(encrypted.call(SITE), 1, encrypted.sites)
    assert openings(encrypted) == 0
    assert not list(encrypted.folder.exchange_path.rglob(f"{kinds.OPENED}/*"))


@pytest.mark.parametrize(
    ("really", "said"),
    [
        (["site-00", "site-01"], ["site-00", "site-01", "site-02"]),
        (["site-00", "site-01", "site-02"], ["site-00", "site-01"]),
        (["site-00"], ["site-00", "site-00", "site-00"]),
        (["site-00", "site-01", "site-02"], ["site-01", "site-02", "ghost-0"]),
        (["site-01", "site-02"], ["site-01", "site-02"]),
    ],
    ids=["one less than said", "one more", "one site thrice", "a ghost", "without itself"],
)
def test_a_sum_of_others_than_it_is_said_to_be_of_is_not_opened(
    encrypted: Staged, really: list[str], said: list[str]
) -> None:
    topic = summed(encrypted, really)
    hand_sum(encrypted.coordinator, topic, SITE)
    with pytest.raises(ConsiliumError):
        decrypt_site(encrypted.call(SITE), 1, said)
    assert openings(encrypted) == 0


def test_a_lying_opener_is_noticed_where_its_sum_does_not_fit(encrypted: Staged) -> None:
    topic = summed(encrypted, encrypted.sites)
    hand_sum(encrypted.coordinator, topic, SITE)
    encrypted.site(SITE).to_coordinator(topic, kinds.OPENED, b"noise")
    with pytest.raises(ConsiliumError):
        apply_sum(encrypted.coordinator, topic, encrypted.sites, SITE)
    assert not encrypted.folder.state_path(1).exists()
