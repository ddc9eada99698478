"""A site that lies: it is left out, named in the audit log, and does no other harm.

Each attack is made by whoever has the coordinator's or a site's own key and can write to the
exchange. The honest run goes on, or what it would have cost is not told.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.exchange import kinds
from federated.exchange.folder import Place
from federated.exchange.identity import COORDINATOR
from federated.exchange.message import Topic, sign
from federated.run.update_files import pack_payload, read_payload, read_state
from federated.stages.aggregate import add_payloads, apply_sum
from federated.stages.coordinator import (
    ask_evaluation,
    begin_round,
    plan_run,
    propose,
)
from federated.stages.evaluate import evaluate, evaluate_site
from federated.stages.take_part import take_part
from federated.weights.bounded_file import Content
from tests.federated.staged_run import (
    Staged,
    play_round,
    record,
    train_round,
)
from tests.federated.stages.lies import (
    OTHER,
    SITE,
    left_out,
    refusals,
)


def resend(run: Staged, topic: Topic, change: Callable[[Any], Any], site: str = SITE) -> None:
    """Take the site's payload away and let the site send another, with its own key."""
    exchange = run.coordinator.mailbox.exchange
    place = Place(topic.run, topic.round, topic.attempt, COORDINATOR, kinds.PAYLOAD, site)
    (path,) = exchange.find(place)
    message = run.coordinator.mailbox.receive(topic, kinds.PAYLOAD, site, 10**9)
    path.unlink()
    payload = read_payload(Content(message.body, "x"))
    body = change(payload)
    if not isinstance(body, bytes):
        body = pack_payload(body)
    run.site(site).mailbox.send(topic, kinds.PAYLOAD, body, COORDINATOR)


def nan(payload: Any) -> Any:
    return replace(payload, body=np.full(payload.length, np.nan, np.float32).view(np.uint8))


LIES: dict[str, Callable[[Any], Any]] = {
    "a weight of -0.4999": lambda p: replace(p, weight=-0.4999),
    "a weight of 1": lambda p: replace(p, weight=1.0),
    "a weight that is tiny": lambda p: replace(p, weight=1e-300),
    "NaN": nan,
    "infinity": lambda p: replace(p, body=np.full(p.length, np.inf, np.float32).view(np.uint8)),
    "another site's name": lambda p: replace(p, site=OTHER),
    "another round": lambda p: replace(p, round_number=7),
    "another length": lambda p: replace(p, length=p.length - 1, body=p.body[:-4]),
    "a body cut short": lambda p: replace(p, body=p.body[:-4]),
    "another scheme": lambda p: replace(p, scheme="ckks"),
    "an encoding that nobody knows": lambda p: replace(p, encoding="float8"),
    "positions beyond the vector": lambda p: replace(
        p, positions=np.array([10**6]), body=p.body[:4]
    ),
    "scalars that nobody asked for": lambda p: replace(p, scalars={"loss": 3.0}),
    "noise": lambda p: b"noise" * 1000,
    "nothing": lambda p: b"",
    "a header of ten gigabytes": lambda p: (10 * 2**30).to_bytes(8, "little") + b"{}",
    "a header that is no JSON": lambda p: (2).to_bytes(8, "little") + b"{]",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_site_is_left_out_and_the_round_is_that_of_the_others(
    plain: Staged, lie: str
) -> None:
    topic = train_round(plain, 1)
    resend(plain, topic, LIES[lie])
    added = add_payloads(plain.coordinator, topic, plain.sites)
    assert added.responded == plain.sites[1:]
    assert list(added.refused) == [SITE]
    assert left_out(plain) == [SITE]
    apply_sum(plain.coordinator, topic, added.responded)
    total = read_payload(plain.folder.sum_path(1))
    assert total.weight == pytest.approx(2 / 3)
    assert np.isfinite(read_state(plain.folder.state_path(1)).weights).all()


def test_what_a_lying_site_sent_changes_no_bit_of_the_others_sum(
    plain: Staged, tmp_path: Path
) -> None:
    topic = train_round(plain, 1)
    add_payloads(plain.coordinator, topic, plain.sites[1:])
    honest = plain.folder.sum_path(1).read_bytes()
    resend(plain, topic, nan)
    add_payloads(plain.coordinator, topic, plain.sites)
    assert plain.folder.sum_path(1).read_bytes() == honest


def test_a_site_that_sends_two_payloads_is_left_out(plain: Staged) -> None:
    topic = train_round(plain, 1)
    plain.site(SITE).mailbox.send(topic, kinds.PAYLOAD, b"another", COORDINATOR)
    added = add_payloads(plain.coordinator, topic, plain.sites)
    assert (added.responded, refusals(plain)) == (plain.sites[1:], ["duplicate"])


def test_a_site_that_speaks_for_another_is_refused_and_the_other_is_heard(plain: Staged) -> None:
    topic = train_round(plain, 1)
    forged = sign(plain.home(SITE).identity(), topic, kinds.PAYLOAD, COORDINATOR, b"forged")
    header = replace(forged.header, sender=OTHER)
    exchange = plain.coordinator.mailbox.exchange
    exchange.post(replace(forged, signed=replace(forged.signed, header=header)))
    added = add_payloads(plain.coordinator, topic, plain.sites)
    assert (added.responded, refusals(plain)) == (plain.sites, ["bad signature"])


@pytest.mark.parametrize("what", ["the round before", "the attempt before"])
def test_a_replayed_payload_is_refused(plain: Staged, what: str) -> None:
    first = train_round(plain, 1)
    old = plain.coordinator.mailbox.receive(first, kinds.PAYLOAD, SITE, 10**9)
    if what == "the round before":
        added = add_payloads(plain.coordinator, first, plain.sites)
        apply_sum(plain.coordinator, first, added.responded)
        record(plain, 1, added.responded)
        topic = begin_round(plain.coordinator, 2)
    else:
        plain.resume()
        topic = begin_round(plain.coordinator, 1)
    exchange = plain.coordinator.mailbox.exchange
    place = Place(topic.run, topic.round, topic.attempt, COORDINATOR, kinds.PAYLOAD, SITE)
    folder = exchange.folder(place)
    folder.mkdir(parents=True)
    (folder / "old.message").write_bytes(old.to_bytes())
    with pytest.raises(ConsiliumError, match="Nothing that counts has arrived"):
        add_payloads(plain.coordinator, topic, [SITE])
    assert refusals(plain) == ["other round" if "round" in what else "other attempt"]


def test_a_payload_of_more_than_it_may_have_is_not_read(plain: Staged) -> None:
    topic = train_round(plain, 1)
    resend(plain, topic, lambda payload: bytes(200 * payload.length + 2 * 2**20))
    added = add_payloads(plain.coordinator, topic, plain.sites)
    assert (added.responded, refusals(plain)) == (plain.sites[1:], ["too large"])


def test_a_suspended_site_does_not_count(plain: Staged) -> None:
    topic = train_round(plain, 1)
    members = plain.coordinator.mailbox.members.suspend(SITE)
    plain.coordinator = replace(
        plain.coordinator, mailbox=replace(plain.coordinator.mailbox, members=members)
    )
    added = add_payloads(plain.coordinator, topic, plain.sites)
    assert (added.responded, refusals(plain)) == (plain.sites[1:], ["suspended"])


def test_a_site_that_says_it_has_more_cases_stops_the_run_before_it_begins(plain: Staged) -> None:
    members = plain.coordinator.mailbox.members
    proposed = propose(plain.folder, members, plain.sites)
    for site in plain.sites:
        plain.coordinator = replace(plain.coordinator, start=proposed.start)
        take_part(plain.call(site))
    place = Place(proposed.run.run_id, 0, proposed.start.attempt, COORDINATOR, kinds.JOINING, SITE)
    (path,) = proposed.mailbox.exchange.find(place)
    path.unlink()
    lie = json.dumps({"counts": {"train": 10**6, "val": 1, "test": 1}, "release": None,
                      "warnings": []}).encode()  # fmt: skip
    message = sign(plain.home(SITE).identity(), proposed.start, kinds.JOINING, COORDINATOR, lie)
    proposed.mailbox.exchange.post(message)
    with pytest.raises(ConsiliumError, match="by which updates are weighted"):
        plan_run(proposed)


def test_a_site_that_tells_no_evaluation_is_named(plain: Staged) -> None:
    play_round(plain, 1)
    topic = ask_evaluation(plain.coordinator, 1, plain.sites)
    for site in plain.sites[1:]:
        evaluate_site(plain.call(site), 1)
    from federated.data.load import load, locate

    info = load(locate(plain.experiment.data), plain.experiment.data).info
    with pytest.raises(ConsiliumError, match="no message evaluation from site-00"):
        evaluate(plain.coordinator, topic, plain.sites, info)
