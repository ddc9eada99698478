"""A stage that was interrupted after it has sent something, and is done again in the same attempt.

As at a site of a consortium whose process is started anew. Of two different messages of one site in
one place none counts, so that the second time nothing may be made otherwise.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from federated.errors import RefusalError
from federated.exchange import kinds
from federated.exchange.folder import FolderExchange
from federated.exchange.message import Topic
from federated.files import read_json
from federated.run.result import StageResult
from federated.run.update_files import read_state
from federated.stages import aggregate as aggregate_stage
from federated.stages import protect as protect_stage
from federated.stages import secagg as secagg_stage
from federated.stages.aggregate import (
    add_payloads,
    apply_sum,
    decrypt_site,
    hand_sum,
    received_sum,
    vouch_site,
)
from federated.stages.compress import compress_site
from federated.stages.coordinator import begin_round
from federated.stages.local_train import train_site
from federated.stages.protect import protect_site
from federated.stages.report import reports
from federated.stages.secagg import advertise_site, agree_site, answer_site, share_site
from federated.stages.secagg_messages import Roster, masked_round
from federated.stages.secagg_relay import (
    relay_keys,
    relay_responded,
    relay_shares,
    relay_views,
    unmask_sum,
)
from federated.stages.site import SiteCall
from tests.federated.staged_run import Staged, agree_on_key, begin, small_experiment
from tests.federated.stages.lies import QUANTISED, SITE, THREE

KEYED = {
    "packed_bfv": {"protection": {"name": "packed_bfv"}, **QUANTISED},
    "ckks": {"protection": {"name": "ckks"}},
}


class PowerCutError(BaseException):
    """The end of a process."""


def cut(*_: object) -> None:
    raise PowerCutError


@pytest.fixture(params=KEYED)
def keyed(request: pytest.FixtureRequest, tmp_path: Path, data: Path) -> Staged:
    run = begin(small_experiment(data, **THREE, **KEYED[request.param]), tmp_path / "runs")
    agree_on_key(run)
    return run


@pytest.mark.parametrize("after", ["its payload", "its tags", "its report"])
def test_a_site_that_was_interrupted_as_it_sent_its_payload_is_in_the_sum(
    keyed: Staged, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    topic = begin_round(keyed.coordinator, 1)
    where = {"its payload": "send_tags", "its tags": "tell"}
    for site in keyed.sites:
        train_site(keyed.call(site), 1)
        compress_site(keyed.call(site), 1)
        with monkeypatch.context() as within:
            if after in where:
                within.setattr(protect_stage, where[after], cut)
                with pytest.raises(PowerCutError):
                    protect_site(keyed.call(site), 1)
            else:
                protect_site(keyed.call(site), 1)
        protect_site(keyed.call(site), 1)
    assert add_payloads(keyed.coordinator, topic, keyed.sites).responded == keyed.sites
    told = reports(keyed.coordinator, 1, "protect", keyed.sites)
    assert all(isinstance(each, StageResult) for each in told)
    hand_sum(keyed.coordinator, topic, SITE)
    for site in keyed.sites:
        vouch_site(keyed.call(site), 1, keyed.sites)
    decrypt_site(keyed.call(SITE), 1, keyed.sites)


def test_a_site_that_was_interrupted_as_it_opened_a_sum_opens_it_once(
    keyed: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = begin_round(keyed.coordinator, 1)
    for site in keyed.sites:
        train_site(keyed.call(site), 1)
        compress_site(keyed.call(site), 1)
        protect_site(keyed.call(site), 1)
    add_payloads(keyed.coordinator, topic, keyed.sites)
    hand_sum(keyed.coordinator, topic, SITE)
    for site in keyed.sites:
        vouch_site(keyed.call(site), 1, keyed.sites)
    with monkeypatch.context() as within:
        within.setattr(aggregate_stage, "tell", cut)
        with pytest.raises(PowerCutError):
            decrypt_site(keyed.call(SITE), 1, keyed.sites)
    decrypt_site(keyed.call(SITE), 1, keyed.sites)
    total = received_sum(keyed.coordinator, topic, SITE)
    apply_sum(keyed.coordinator, topic, keyed.sites, total)
    assert read_state(keyed.folder.state_path(1)).round_number == 1
    counted = read_json(keyed.store(SITE).root / "openings.json")
    assert list(counted.values()) == [1]
    exchange = FolderExchange(keyed.folder.exchange_path)
    assert len(list(exchange.root.rglob(f"{kinds.OPENED}/{SITE}/*.message"))) == 1


@pytest.fixture(params=["secagg_plus", "rlwe_secagg"])
def masked(request: pytest.FixtureRequest, tmp_path: Path, data: Path) -> Staged:
    sections = {**THREE, "compression": {"name": "none", "bits": 8}}
    sections["protection"] = {"name": request.param}
    return begin(small_experiment(data, **sections), tmp_path / "runs")


def exchanged(run: Staged) -> tuple[Topic, Roster]:
    """A round up to the exchange of keys, with what sites have to send."""
    topic = begin_round(run.coordinator, 1)
    for site in run.sites:
        train_site(run.call(site), 1)
        compress_site(run.call(site), 1)
        advertise_site(run.call(site), 1)
    roster = relay_keys(run.coordinator, topic, run.sites)
    for site in run.sites:
        share_site(run.call(site), 1)
    return topic, relay_shares(run.coordinator, topic, roster, run.sites)


def interrupted(
    monkeypatch: pytest.MonkeyPatch, where: str, stage: Callable[[SiteCall, int], None], run: Staged
) -> None:
    """Let all sites do a stage that ends at ``where``, and do it again."""
    for site in run.sites:
        with monkeypatch.context() as within:
            within.setattr(secagg_stage, where, cut)
            with pytest.raises(PowerCutError):
                stage(run.call(site), 1)
        stage(run.call(site), 1)


@pytest.mark.parametrize("where", ["atomic_path", "tell"])
def test_sites_that_were_interrupted_as_they_masked_signed_and_answered_open_the_sum(
    masked: Staged, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Before what was made is stored, or after it was sent."""
    topic, roster = exchanged(masked)
    if where == "atomic_path":
        interrupted(monkeypatch, where, protect_site, masked)
    else:
        for site in masked.sites:
            protect_site(masked.call(site), 1)
    masks = masked_round(masked.coordinator.run, list(roster.advertised), topic)
    assert add_payloads(masked.coordinator, topic, masked.sites, masks).responded == masked.sites
    relay_responded(masked.coordinator, topic, roster, masked.sites)
    interrupted(monkeypatch, where, agree_site, masked)
    relay_views(masked.coordinator, topic, masked.sites)
    if where == "tell":
        interrupted(monkeypatch, where, answer_site, masked)
    else:
        for site in masked.sites:
            answer_site(masked.call(site), 1)
    assert unmask_sum(masked.coordinator, topic, roster, masked.sites, masked.sites) == ()
    for stage in ("agree", "answer"):
        told = reports(masked.coordinator, 1, stage, masked.sites)
        assert all(isinstance(each, StageResult) for each in told)
    assert not list(masked.folder.root.rglob("secagg/*.secret.json"))


def test_shares_that_were_begun_and_not_stored_are_not_dealt_anew(
    masked: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sealed shares are others each time, under a key that is for one message."""
    topic = begin_round(masked.coordinator, 1)
    for site in masked.sites:
        advertise_site(masked.call(site), 1)
    relay_keys(masked.coordinator, topic, masked.sites)
    with monkeypatch.context() as within:
        within.setattr(secagg_stage, "atomic_path", cut)
        with pytest.raises(PowerCutError):
            share_site(masked.call(SITE), 1)
    with pytest.raises(RefusalError, match="does nothing more in attempt 1 at round 1"):
        share_site(masked.call(SITE), 1)
