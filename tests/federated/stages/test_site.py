"""What a stage reads of a round is that round's, and of who it has to be of, or refused."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.exchange.folder import EVERYONE, Place
from federated.exchange.identity import COORDINATOR
from federated.exchange.message import Topic
from federated.exchange.policy import PERMISSIVE
from federated.run.update_files import (
    pack_payload,
    read_compressed,
    read_payload,
    read_state,
    write_state,
)
from federated.stages import aggregate
from federated.stages.aggregate import add_payloads, decrypt_site
from federated.stages.compress import compress_site
from federated.stages.coordinator import ask_evaluation, begin_round
from federated.stages.evaluate import evaluate_site
from federated.stages.local_train import train_site
from federated.stages.protect import protect_site
from federated.stages.share_style import share_style
from tests.federated.federation import SITE, begin, sent
from tests.federated.staged_run import Staged, record, train_round

pytestmark = pytest.mark.usefixtures("project")

KEPT = "round-00{}.memory.safetensors"
ADAPTIVE = ("privacy.name=site_level", "privacy.clip=1", "privacy.noise_multiplier=1")


def test_a_state_of_another_round_is_refused():
    run = begin()
    state = read_state(run.folder.state_path(0))
    write_state(run.folder.state_path(0), replace(state, round_number=4))
    topic = begin_round(run.coordinator, 1)
    with pytest.raises(ConsiliumError, match="that of round 4, and not of 0"):
        train_site(run.call(SITE), 1)
    with pytest.raises(ConsiliumError, match="that of round 4, and not of 0"):
        add_payloads(run.coordinator, topic, run.sites)


def test_no_opening_of_a_key_is_counted_where_the_state_cannot_be_read(monkeypatch):
    run, counted = begin(), []
    monkeypatch.setattr(aggregate, "site_key", lambda *_: SimpleNamespace(public=None))
    monkeypatch.setattr(aggregate, "count_opening", lambda *given: counted.append(given))
    run.folder.state_path(0).write_bytes(b"")
    begin_round(run.coordinator, 1)
    with pytest.raises(ConsiliumError, match="cannot be read as a state"):
        decrypt_site(run.call(SITE), 1, run.sites)
    assert counted == []


def test_a_plan_that_is_missing_is_told():
    run = begin(*ADAPTIVE)
    start = run.coordinator.start
    place = Place(start.run, 0, start.attempt, EVERYONE, kinds.RUN_PLAN, COORDINATOR)
    for path in run.coordinator.mailbox.exchange.find(place):
        path.unlink()
    with pytest.raises(ConsiliumError, match="no message run-plan from coordinator"):
        sent(run)


def test_what_a_site_kept_of_a_round_that_it_dropped_out_of_is_forgotten():
    run = begin("strategy.name=scaffold", "rounds=2")
    sent(run, 1)
    assert [path.name for path in run.store(SITE).memory_paths()] == [KEPT.format(1)]
    state = read_state(run.folder.state_path(0))
    write_state(run.folder.state_path(1), replace(state, round_number=1))
    record(run, 1, [site for site in run.sites if site != SITE])
    sent(run, 2)
    assert [path.name for path in run.store(SITE).memory_paths()] == [KEPT.format(2)]


def send_again(run: Staged, topic: Topic, site: str, **changes: object) -> None:
    """Let a site send another payload instead of its own, which it signs."""
    place = Place(topic.run, topic.round, topic.attempt, COORDINATOR, kinds.PAYLOAD, site)
    for path in run.coordinator.mailbox.exchange.find(place):
        path.unlink()
    compressed = read_compressed(run.store(site).work_path(topic.round, "compressed"))
    payload = replace(run.experiment.protection.protect(compressed, None), **changes)
    run.site(site).to_coordinator(topic, kinds.PAYLOAD, pack_payload(payload))


@pytest.mark.parametrize(
    ("settings", "scalars"),
    [
        ((*ADAPTIVE, "privacy.adaptive.rate=0.5"), {}),
        ((*ADAPTIVE, "privacy.adaptive.rate=0.5"), {"below_clip": 0.0, "more": 1.0}),
        (ADAPTIVE, {"below_clip": 0.5}),
    ],
)
def test_a_payload_with_other_scalars_than_the_privacy_has_is_refused_by_its_site(
    settings, scalars
):
    run = begin(*settings)
    topic = train_round(run, 1)
    assert add_payloads(run.coordinator, topic, run.sites).responded == run.sites
    left = [site for site in run.sites if site != "site-01"]
    add_payloads(run.coordinator, topic, left)
    of_others = read_payload(run.folder.sum_path(1))
    send_again(run, topic, "site-01", scalars=scalars)
    added = add_payloads(run.coordinator, topic, run.sites)
    assert added.responded == left
    assert "payload of site-01 in round 1 is refused: its scalars is" in added.refused["site-01"]
    # And the sum is as if it had sent nothing.
    np.testing.assert_array_equal(read_payload(run.folder.sum_path(1)).body, of_others.body)
    assert read_payload(run.folder.sum_path(1)).weight == of_others.weight


def test_stages_of_a_round_need_what_the_site_itself_has_made_before_them():
    run = begin()
    begin_round(run.coordinator, 1)
    for stage in (compress_site, protect_site):
        with pytest.raises(ConsiliumError, match="cannot be read"):
            stage(run.call(SITE), 1)


def test_also_where_it_was_asked_nothing_after_that_round():
    """The round was not evaluated, and the site not selected in the next one."""
    run = begin("strategy.name=scaffold", "rounds=3")
    for site in (SITE, "site-01"):
        sent(run, 1, site)
    state = read_state(run.folder.state_path(0))
    for number, responded in ((1, ["site-01", "site-02"]), (2, ["site-02"])):
        write_state(run.folder.state_path(number), replace(state, round_number=number))
        record(run, number, responded)
    ask_evaluation(run.coordinator, 2, ["site-02"])
    for site in (SITE, "site-01"):
        evaluate_site(run.call(site), 2)
    assert run.store(SITE).memory_paths() == []
    # One that did respond keeps what it had, however long ago.
    assert [path.name for path in run.store("site-01").memory_paths()] == [KEPT.format(1)]


def test_what_a_site_sends_to_all_counts_in_what_its_policy_lets_it_send():
    run = begin("strategy.name=resfim")
    share_style(run.call(SITE))
    run.home(SITE).write_policy(PERMISSIVE.replace("megabytes: 1000000000000", "megabytes: 0"))
    with pytest.raises(RefusalError, match="sends nothing more in this run"):
        share_style(run.call(SITE))
