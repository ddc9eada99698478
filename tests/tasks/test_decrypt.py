"""One site that does not do its part for an encrypted sum is named, and ends no run."""

import re
import shutil
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.exchange import kinds
from federated.exchange.folder import Place
from federated.exchange.message import Topic
from federated.protection.keys import SecretContext, new_run_key
from federated.protection.tag_proofs import ROWS
from federated.protection.tags import SEAL_BYTES, seal_tags
from federated.run.update_files import pack_payload, read_compressed, read_state, write_state
from federated.stages import aggregate as aggregate_stage
from federated.stages import tags as tags_stage
from federated.stages.aggregate import add_payloads, decrypt_site
from federated.stages.compress import COMPRESSED
from federated.stages.evaluate import evaluate, evaluate_site
from federated.stages.keys import site_key
from federated.stages.named_sums import open_sum
from federated.stages.secure_sum import digits_in
from federated.stages.site import open_round
from federated.stages.tags import send_tags
from federated.stages.worker import worker_context
from tasks.aggregate import Decrypted, decrypt
from tests.federated.staged_run import (
    Staged,
    agree_on_key,
    begin,
    record,
    small_experiment,
    small_images,
    train_round,
)
from tests.federated.stages.lies import QUANTISED
from tests.federated.stages.summing import add, ask, begin_sums

FOUR = {"sites": {"count": 4, "partition": "iid", "min_cases": 2, "on_dropout": "continue"}}
LIAR = "site-02"


class Here(Executor):
    """A pool that runs a stage at once, in this thread."""

    def submit(self, stage: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(stage(*arguments, **named))
        except ConsiliumError as error:
            done.set_exception(error)
        return done


def keyed(folder: Path, count: int) -> Staged:
    sites = {**FOUR["sites"], "count": count}
    sections = {**QUANTISED, "sites": sites, "protection": {"name": "packed_bfv"}, "rounds": 3}
    run = begin(small_experiment(small_images(folder), **sections), folder / "runs")
    agree_on_key(run)
    return run


@pytest.fixture
def encrypted(tmp_path: Path) -> Staged:
    return keyed(tmp_path, 4)


def taken(run: Staged, topic: Topic, kind: str, site: str = LIAR) -> bytes:
    """Take away what a site has sent to all; its body."""
    exchange = run.coordinator.mailbox.exchange
    body = run.coordinator.mailbox.receive(topic, kind, site, 10**8, for_all=True).body
    (path,) = exchange.find(Place(topic.run, topic.round, topic.attempt, "all", kind, site))
    path.unlink()
    return body


def opened(run: Staged, topic: Topic, sites: list[str]) -> Decrypted:
    added = add_payloads(run.coordinator, topic, sites)
    assert added.responded == sites
    calls = [run.call(site) for site in sites]
    return decrypt.fn(Here(), run.coordinator, calls, topic)


def openings(run: Staged) -> list[Path]:
    return list(run.folder.exchange_path.rglob(f"{kinds.OPENED}/*/*/*.message"))


def faulty_lines(run: Staged) -> list[str]:
    lines = run.coordinator.mailbox.audit.lines()
    return [line["sender"] for line in lines if line["event"] == "faulty"]


@pytest.fixture
def wrong_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    """The liar's tags are off by one, properly sealed."""

    def lying(rows: Any, site: str, key: Any) -> bytes:
        if site == LIAR:
            rows = ((rows[0][0] + 1, *rows[0][1:]), *rows[1:])
        return seal_tags(rows, site, key)

    monkeypatch.setattr(tags_stage, "seal_tags", lying)


def test_an_honest_sum_is_opened_by_the_first_and_nobody_is_named(encrypted: Staged) -> None:
    done = opened(encrypted, train_round(encrypted, 1), encrypted.sites)
    assert (dict(done.faulty), dict(done.passed_over)) == ({}, {})
    assert read_state(encrypted.folder.state_path(1)).round_number == 1
    assert not list(encrypted.folder.exchange_path.rglob(f"{kinds.PROOF}/*"))


def assert_lost_and_goes_on(run: Staged, done: Decrypted) -> None:
    """The round is lost, its liar named, and the next one is that of the others."""
    assert list(done.faulty) == [LIAR]
    assert faulty_lines(run) == [LIAR]
    assert list(run.coordinator.faulty) == [LIAR]
    assert openings(run) == []
    before, after = (read_state(run.folder.state_path(number)) for number in (0, 1))
    np.testing.assert_array_equal(before.weights, after.weights)
    assert after.round_number == 1
    record(run, 1, [])
    topic = train_round(run, 2)
    left = [site for site in run.sites if site != LIAR]
    again = opened(run, topic, left)
    assert dict(again.faulty) == {}
    assert (read_state(run.folder.state_path(2)).weights != after.weights).any()


@pytest.mark.usefixtures("wrong_tags")
def test_a_site_whose_tags_are_wrong_is_named_and_the_run_goes_on_without_it(
    encrypted: Staged,
) -> None:
    done = opened(encrypted, train_round(encrypted, 1), encrypted.sites)
    assert "tags that it has sent are not those of its payload" in done.faulty[LIAR]
    assert_lost_and_goes_on(encrypted, done)


def test_a_site_whose_tags_nobody_can_read_is_named(encrypted: Staged) -> None:
    topic = train_round(encrypted, 1)
    body = taken(encrypted, topic, kinds.TAG)
    encrypted.site(LIAR).to_all(topic, kinds.TAG, bytes(len(body)))
    assert_lost_and_goes_on(encrypted, opened(encrypted, topic, encrypted.sites))


@pytest.mark.usefixtures("wrong_tags")
def test_a_liar_that_proves_something_else_than_the_others_protects_itself_and_accuses_nobody(
    encrypted: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, stage = tags_stage.prove, tags_stage.prove_tags

    def proving(call: Any, *arguments: Any) -> Any:
        if call.site != LIAR:
            return stage(call, *arguments)
        with monkeypatch.context() as patch:
            patch.setattr(tags_stage, "prove", lambda *given: replace(honest(*given), told={}))
            return stage(call, *arguments)

    monkeypatch.setattr("tasks.aggregate.prove_tags", proving)
    done = opened(encrypted, train_round(encrypted, 1), encrypted.sites)
    assert list(done.faulty) == [LIAR]


@pytest.mark.parametrize("size", ["nothing", "too short", "too long"])
def test_a_payload_without_tags_of_it_is_left_out_before_anything_is_opened(
    encrypted: Staged, size: str
) -> None:
    topic = train_round(encrypted, 1)
    body = taken(encrypted, topic, kinds.TAG)
    assert len(body) > SEAL_BYTES + 8 * ROWS
    other = {"nothing": None, "too short": body[:-8], "too long": body + bytes(8)}[size]
    if other is not None:
        encrypted.site(LIAR).to_all(topic, kinds.TAG, other)
    added = add_payloads(encrypted.coordinator, topic, encrypted.sites)
    assert list(added.refused) == [LIAR]
    calls = [encrypted.call(site) for site in added.responded]
    done = decrypt.fn(Here(), encrypted.coordinator, calls, topic)
    assert (dict(done.faulty), dict(done.passed_over)) == ({}, {})


@pytest.mark.parametrize("word", [None, b"noise", b'["site-00", "site-01", "site-02"]'])
def test_a_site_that_does_not_give_its_word_for_the_sum_is_named_and_the_run_goes_on(
    encrypted: Staged, monkeypatch: pytest.MonkeyPatch, word: bytes | None
) -> None:
    stage = aggregate_stage.vouch_site

    def vouching(call: Any, *arguments: Any) -> Any:
        if call.site != LIAR or 2 in arguments:
            return stage(call, *arguments)
        if word is None:
            raise ConsiliumError("It says nothing.")
        site = tags_stage.open_site(call)
        site.to_all(open_round(site, 1).topic, kinds.CONSISTENCY, word)
        return None

    monkeypatch.setattr("tasks.pool.run_and_report", lambda stage, *a: stage(*a))
    monkeypatch.setattr("tasks.aggregate.vouch_site", vouching)
    done = opened(encrypted, train_round(encrypted, 1), encrypted.sites)
    assert not list(encrypted.folder.exchange_path.rglob(f"{kinds.SUM}/*"))
    assert_lost_and_goes_on(encrypted, done)


OPENED: dict[str, bytes | None] = {"nothing": None, "noise": b"noise", "no bytes": b""}


@pytest.mark.parametrize("what", OPENED)
def test_where_one_site_does_not_open_the_sum_another_one_does(
    encrypted: Staged, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    stage = aggregate_stage.decrypt_site

    def decrypting(call: Any, number: int, *told: Any) -> Any:
        if call.site != "site-00":
            return stage(call, number, *told)
        if OPENED[what] is None:
            raise ConsiliumError("It opens nothing.")
        site = tags_stage.open_site(call)
        topic = open_round(site, number).topic
        return site.to_coordinator(topic, kinds.OPENED, OPENED[what] or b"")

    monkeypatch.setattr("tasks.aggregate.decrypt_site", decrypting)
    done = opened(encrypted, train_round(encrypted, 1), encrypted.sites)
    assert dict(done.faulty) == {}
    assert list(done.passed_over) == ["site-00"]
    assert encrypted.coordinator.faulty == {}  # its update is in the sum
    assert (
        read_state(encrypted.folder.state_path(1)).weights
        != read_state(encrypted.folder.state_path(0)).weights
    ).any()


@pytest.mark.usefixtures("wrong_tags")
def test_where_too_few_sites_are_left_the_run_ends_and_says_because_of_whom(
    tmp_path: Path,
) -> None:
    run = keyed(tmp_path, 3)
    with pytest.raises(ConsiliumError, match=r"because of site-02: the tags .*min_sites=3"):
        opened(run, train_round(run, 1), run.sites)
    assert openings(run) == []
    assert not run.folder.state_path(1).exists()


def test_where_no_site_opens_the_sum_the_round_is_lost_and_it_is_told_what_each_said(
    encrypted: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decrypting(call: Any, *_: Any) -> Any:
        raise ConsiliumError(f"{call.site} has lost its key.")

    monkeypatch.setattr("tasks.aggregate.decrypt_site", decrypting)
    found = opened(encrypted, train_round(encrypted, 1), encrypted.sites)
    assert found.lost
    assert re.search("No site has opened .*site-00 has lost.*site-03 has", found.lost)
    assert found.faulty == {}


def test_a_payload_that_opens_nowhere_though_its_tags_are_right_costs_a_round_and_no_run(
    encrypted: Staged,
) -> None:
    """The site has encrypted it under another key, and tagged what it sends."""
    topic = train_round(encrypted, 1)
    site = encrypted.site(LIAR)
    own = open_sum(site, 1)
    for kind in (kinds.PAYLOAD, kinds.TAG):
        for place in encrypted.folder.exchange_path.rglob(f"{kind}/{LIAR}"):
            shutil.rmtree(place)
    key = site_key(site)
    assert key is not None
    other = new_run_key(key.public.parameters).opened()
    update = read_compressed(site.store.work_path(1, COMPRESSED))
    protection = encrypted.coordinator.run.experiment.protection
    payload = protection.protect(update, SecretContext(key.public, other.key, key.common))
    send_tags(site, own, payload, key)
    site.to_coordinator(own.topic, kinds.PAYLOAD, pack_payload(payload))
    found = opened(encrypted, topic, encrypted.sites)
    assert found.lost
    assert found.openers == ()


@pytest.mark.parametrize("kind", [kinds.CONSISTENCY, kinds.PAYLOAD])
def test_a_site_that_signs_something_else_when_it_is_to_open_is_the_one_that_is_named(
    encrypted: Staged, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    topic = train_round(encrypted, 1)

    def decrypting(call: Any, *told: Any) -> Any:
        if call.site != encrypted.sites[0]:
            return decrypt_site(call, *told)
        liar = encrypted.site(call.site)
        send = liar.to_all if kind == kinds.CONSISTENCY else liar.to_coordinator
        return send(topic, kind, b"something else")

    monkeypatch.setattr("tasks.aggregate.decrypt_site", decrypting)
    found = opened(encrypted, topic, encrypted.sites)
    assert found.lost
    assert list(found.faulty) == [encrypted.sites[0]]


# --- The same of a named sum: that of the evaluation.


@pytest.fixture
def summing(tmp_path: Path) -> Staged:
    four = {"sites": {**FOUR["sites"], "count": 4}}
    return begin_sums(tmp_path / "runs", small_images(tmp_path), "packed_bfv", **four)


def opened_evaluation(run: Staged) -> tuple[Topic, Decrypted]:
    topic = ask(run)
    for site in run.sites:
        evaluate_site(run.call(site), 1)
    assert add(run, topic, None, run.sites) == run.sites
    length = digits_in(run.coordinator, topic, worker_context(run.site(run.sites[0])).info)
    calls = [run.call(site) for site in run.sites]
    return topic, decrypt.fn(Here(), run.coordinator, calls, topic, length)


@pytest.mark.usefixtures("wrong_tags")
def test_of_a_sum_of_the_evaluation_too_the_site_whose_tags_are_wrong_is_named(
    summing: Staged,
) -> None:
    path, first = summing.folder.state_path(1), read_state(summing.folder.state_path(0))
    write_state(path, replace(first, round_number=1, weights=first.weights + np.float32(0.01)))
    before = path.read_bytes()
    _, done = opened_evaluation(summing)
    assert list(done.faulty) == list(summing.coordinator.faulty) == [LIAR]
    assert "tags that it has sent are not those of its payload" in done.faulty[LIAR]
    assert not list(summing.folder.exchange_path.rglob("evaluation.opened/*/*.message"))
    assert path.read_bytes() == before, "the model of the round is not lost with it"


def test_where_one_site_does_not_open_the_sum_of_the_evaluation_another_one_does(
    summing: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = aggregate_stage.decrypt_site

    def decrypting(call: Any, *told: Any) -> Any:
        if call.site == "site-00":
            raise ConsiliumError("It opens nothing.")
        return stage(call, *told)

    monkeypatch.setattr("tasks.aggregate.decrypt_site", decrypting)
    topic, done = opened_evaluation(summing)
    assert (dict(done.faulty), list(done.passed_over)) == ({}, ["site-00"])
    info = worker_context(summing.site("site-00")).info
    assert evaluate(summing.coordinator, topic, summing.sites, info, "site-01").overall["val"]


# --- What is for all, told to one alone: found by an attacker of the finished protocol.


def to_one(run: Staged, topic: Topic, kind: str, site: str) -> None:
    """The liar sends one site alone something else than all."""
    liar = run.site(LIAR)
    liar.mailbox.send(replace(topic, plan=topic.plan), kind, b"something else", site)


def test_tags_that_one_site_alone_is_sent_beside_those_for_all_make_nobody_look_guilty(
    encrypted: Staged,
) -> None:
    topic = train_round(encrypted, 1)
    to_one(encrypted, topic, kinds.TAG, "site-00")
    done = opened(encrypted, topic, encrypted.sites)
    assert (dict(done.faulty), dict(done.passed_over)) == ({}, {})


def test_another_word_for_the_sum_to_each_site_alone_does_not_stop_it_from_being_opened(
    encrypted: Staged,
) -> None:
    topic = train_round(encrypted, 1)
    for site in encrypted.sites:
        if site != LIAR:
            to_one(encrypted, topic, kinds.CONSISTENCY, site)
    done = opened(encrypted, topic, encrypted.sites)
    assert (dict(done.faulty), dict(done.passed_over)) == ({}, {})
