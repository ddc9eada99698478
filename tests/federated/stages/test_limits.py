"""Just as many sites missing as a sum bears, and one more: of three, four, five and seven sites."""

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.exchange import kinds
from federated.protection.secagg.bounds import Shares, quorum
from federated.run.update_files import read_state
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
from federated.stages.secagg import advertise_site, agree_site, answer_site, share_site
from federated.stages.secagg_messages import masked_round
from federated.stages.secagg_relay import (
    relay_keys,
    relay_responded,
    relay_shares,
    relay_views,
    unmask_sum,
)
from federated.update import Vector
from tests.federated.staged_run import Staged, begin, small_experiment
from tests.federated.stages.summing import tell_key

PROTECTIONS = ("secagg_plus", "rlwe_secagg", "packed_bfv")
# Of who is gone at the first of these the masks have to be taken off the sum.
BEFORE_IT_IS_SENT = ("protect", "share", "advertise")
SITES = pytest.mark.parametrize("sites", [3, 4, 5, 7])


def begun(place: Path, data: Path, sites: int, protection: str) -> Staged:
    experiment = small_experiment(
        data,
        sites={"count": sites, "partition": "iid", "min_cases": 1},
        compression={"name": "none", "bits": 8},
        protection={"name": protection},
    )
    run = begin(experiment, place / protection)
    tell_key(run)
    return run


def round_without(run: Staged, out: dict[str, str]) -> Vector:
    """A round in which sites are gone from a stage on; the weights that come of it.

    ``out`` says from which stage on which site is gone.
    """
    coordinator, gone = run.coordinator, set[str]()

    def there(stage: str, sites: list[str]) -> Iterator[str]:
        gone.update(site for site, when in out.items() if when == stage)
        return iter([site for site in sites if site not in gone])

    topic = begin_round(coordinator, 1)
    protection, sites, masks = run.experiment.protection, run.sites, None
    if protection.masked:
        advertised = list(there("advertise", sites))
        for site in advertised:
            advertise_site(run.call(site), 1)
        roster = relay_keys(coordinator, topic, advertised)
        sharing = list(there("share", advertised))
        for site in sharing:
            share_site(run.call(site), 1)
        roster = relay_shares(coordinator, topic, roster, sharing)
        masks = masked_round(coordinator.run, list(roster.advertised), topic)
        sites = list(roster.sharing)
    sending = list(there("protect", sites))
    for site in sending:
        for stage in (train_site, compress_site, protect_site):
            stage(run.call(site), 1)
    responded = add_payloads(coordinator, topic, sending, masks).responded
    opener = None
    if protection.masked:
        relay_responded(coordinator, topic, roster, responded)
        agreeing = list(there("agree", responded))
        for site in agreeing:
            agree_site(run.call(site), 1)
        relay_views(coordinator, topic, agreeing)
        answering = list(there("answer", agreeing))
        for site in answering:
            answer_site(run.call(site), 1)
        unmask_sum(coordinator, topic, roster, responded, answering)
    elif protection.keyed:
        opener = responded[-1]
        for site in responded:
            vouch_site(run.call(site), 1, responded)
        hand_sum(coordinator, topic, opener)
        decrypt_site(run.call(opener), 1, responded)
    apply_sum(coordinator, topic, responded, received_sum(coordinator, topic, opener))
    return read_state(run.folder.state_path(1)).weights


def needed(run: Staged, stage: str) -> int:
    """How many sites have to be there at a stage."""
    protection, sites = run.experiment.protection, len(run.sites)
    if not protection.masked:
        return protection.min_sites
    least = protection.graph(sites).threshold
    if stage != "answer":
        least = max(least, quorum(sites, Shares(protection.dropout, protection.corrupted)))
    return least if stage in ("agree", "answer") else max(least, protection.min_sites)


def missing(run: Staged, count: int) -> dict[str, str]:
    """So many sites that are gone before they send, the last ones first, each at another stage."""
    masked = run.experiment.protection.masked
    stages = BEFORE_IT_IS_SENT if masked else BEFORE_IT_IS_SENT[:1]
    return dict(zip(run.sites[: -count - 1 : -1], cycle(stages), strict=False))


@SITES
@pytest.mark.parametrize("protection", PROTECTIONS)
def test_with_as_many_missing_as_may_be_the_sum_is_that_of_the_others(
    tmp_path: Path, data: Path, sites: int, protection: str
) -> None:
    run = begun(tmp_path, data, sites, protection)
    out = missing(run, sites - needed(run, "protect"))
    plain = begun(tmp_path, data, sites, "plain")
    expected = round_without(plain, dict.fromkeys(out, "protect"))
    np.testing.assert_array_equal(round_without(run, out), expected)


@SITES
@pytest.mark.parametrize("protection", PROTECTIONS)
def test_with_one_more_nothing_is_opened_and_the_round_begins_anew(
    tmp_path: Path, data: Path, sites: int, protection: str
) -> None:
    run = begun(tmp_path, data, sites, protection)
    out = missing(run, sites - needed(run, "protect") + 1)
    with pytest.raises(ConsiliumError) as said:
        round_without(run, out)
    assert "\n" not in str(said.value)
    assert not run.folder.state_path(1).exists()
    sent = {path.parent.parent.name for path in run.folder.exchange_path.rglob("*.message")}
    assert not sent & {kinds.ANSWER, kinds.OPENED, kinds.RESPONDED}
    run.resume()
    tell_key(run)
    expected = round_without(begun(tmp_path, data, sites, "plain"), {})
    np.testing.assert_array_equal(round_without(run, {}), expected)


@SITES
@pytest.mark.parametrize("stage", ["agree", "answer"])
def test_who_is_gone_once_it_has_sent_is_in_the_sum_or_nobody_opens_it(
    tmp_path: Path, data: Path, sites: int, stage: str
) -> None:
    run = begun(tmp_path, data, sites, "secagg_plus")
    borne = sites - needed(run, stage)
    with pytest.raises(ConsiliumError):
        round_without(run, dict.fromkeys(run.sites[: borne + 1], stage))
    assert not run.folder.state_path(1).exists()
    run.resume()
    expected = round_without(begun(tmp_path, data, sites, "plain"), {})
    found = round_without(run, dict.fromkeys(run.sites[:borne], stage))
    np.testing.assert_array_equal(found, expected)
