"""Of encrypted sums a site opens those alone that are the sum of what enrolled sites have sent.

Each attack is made by whoever has the coordinator's or a site's own key and can write to the
exchange. The honest run goes on, or what it would have cost is not told.
"""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tasks.aggregate
from federated.data.partition import CaseCounts
from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.exchange.message import Topic
from federated.files import read_json
from federated.protection.opened import opened_payload
from federated.rounds.context import RunContext
from federated.rounds.participation import site_weights
from federated.run.update_files import pack_payload, read_compressed, read_payload, read_state
from federated.stages.aggregate import (
    add_payloads,
    apply_sum,
    decrypt_site,
    hand_sum,
    received_sum,
    vouch_site,
    vouched,
)
from federated.stages.compress import COMPRESSED
from federated.stages.coordinator import begin_round
from federated.stages.keys import site_key
from federated.stages.named_sums import open_sum, refuse_sum
from federated.stages.site import SiteCall
from federated.update import Doubles, Vector
from federated.weights.bounded_file import Content
from tasks.aggregate import Decrypted, decrypt
from tests.federated.staged_run import (
    Staged,
    agree_on_key,
    begin,
    small_experiment,
    train_round,
)
from tests.federated.stages.lies import BFV, OTHER, QUANTISED, SITE, THREE, left_out


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
    found = received_sum(encrypted.coordinator, topic, SITE)
    parts = [read_compressed(encrypted.store(s).work_path(1, COMPRESSED)) for s in encrypted.sites]
    np.testing.assert_array_equal(found.numbers, sum(part.numbers.astype(int) for part in parts))
    apply_sum(encrypted.coordinator, topic, encrypted.sites, found)
    assert read_state(encrypted.folder.state_path(1)).round_number == 1


@pytest.mark.parametrize("told", ["nothing", "of another sum"])
def test_a_sum_that_a_site_in_it_does_not_help_to_is_not_opened(
    encrypted: Staged, told: str
) -> None:
    """It may have helped to another one, and of two sums the difference would be an update."""
    topic = summed(encrypted, encrypted.sites)
    hand_sum(encrypted.coordinator, topic, SITE)
    *others, last = encrypted.sites
    for site in others:
        vouch_site(encrypted.call(site), 1, encrypted.sites)
    if told != "nothing":
        encrypted.site(last).to_all(topic, kinds.CONSISTENCY, vouched([*others[1:], last]))
    with pytest.raises(ConsiliumError, match=f"no message consistency from {last}|told of another"):
        decrypt_site(encrypted.call(SITE), 1, encrypted.sites)
    assert openings(encrypted) == 0


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
        apply_sum(
            encrypted.coordinator,
            topic,
            encrypted.sites,
            received_sum(encrypted.coordinator, topic, SITE),
        )
    assert not encrypted.folder.state_path(1).exists()


# --- Sites that open the right sum as other numbers.


def lying_openers(
    run: Staged, monkeypatch: pytest.MonkeyPatch, lies: dict[str, Callable[[Doubles], Doubles]]
) -> list[str]:
    """Let sites send other numbers than a sum has, in its right form; who opens one."""
    asked: list[str] = []

    def opening(call: SiteCall, number: int, responded: list[str], name: str = "") -> None:
        asked.append(call.site)
        if call.site not in lies:
            decrypt_site(call, number, responded, name)
            return
        site = run.site(call.site)
        opened = open_sum(site, number, name)
        total = read_payload(run.folder.sum_path(number, name))
        key = site_key(site)
        numbers = lies[call.site](run.experiment.protection.reveal(total, key))
        body = pack_payload(opened_payload(total, numbers))
        site.to_coordinator(opened.topic, kinds.OPENED, body)

    monkeypatch.setattr(tasks.aggregate, "decrypt_site", opening)
    return asked


def opened_by(run: Staged, topic: Topic) -> Decrypted:
    """The task by which a run's graph has a sum opened."""
    with ThreadPoolExecutor(1) as pool:
        calls = [run.call(site) for site in run.sites]
        found: Decrypted = decrypt.fn(pool, run.coordinator, calls, topic)
    return found


def honest_state(run: Staged, topic: Topic) -> Vector:
    """The weights that the round comes to where the sum is opened as it is."""
    opened_by(run, topic)
    path = run.folder.state_path(1)
    weights = read_state(path).weights
    path.unlink()
    return weights


def forget_opened(run: Staged) -> None:
    """Let nobody have opened the sum yet: of two different messages of one site none counts."""
    for folder in run.folder.exchange_path.rglob(kinds.OPENED):
        shutil.rmtree(folder)


IMPOSSIBLE: dict[str, Callable[[Doubles], Doubles]] = {
    "no whole numbers": lambda numbers: numbers + 0.25,
    "more than all sites can send": lambda numbers: np.full_like(numbers, 3 * 127 + 1),
    "less than all sites can send": lambda numbers: np.full_like(numbers, -3 * 127 - 1),
    "numbers that no model bears": lambda numbers: np.full_like(numbers, 1e300),
}


@pytest.mark.parametrize("lie", IMPOSSIBLE)
def test_an_opener_of_an_impossible_sum_is_named_and_the_next_site_opens_it(
    encrypted: Staged, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    topic = summed(encrypted, encrypted.sites)
    wanted = honest_state(encrypted, topic)
    forget_opened(encrypted)
    asked = lying_openers(encrypted, monkeypatch, {SITE: IMPOSSIBLE[lie]})
    done = opened_by(encrypted, topic)
    assert asked == [SITE, OTHER]
    assert done.openers == (OTHER,)
    assert "none of what 3 sites send" in done.passed_over[SITE]
    assert left_out(encrypted) == [SITE]
    np.testing.assert_array_equal(read_state(encrypted.folder.state_path(1)).weights, wanted)


def test_a_sum_that_is_impossible_whoever_opens_it_loses_the_round_and_ends_no_run(
    encrypted: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some site has encrypted what is no quantised value; nobody can tell which one."""
    topic = summed(encrypted, encrypted.sites)
    everyone = dict.fromkeys(encrypted.sites, IMPOSSIBLE["more than all sites can send"])
    asked = lying_openers(encrypted, monkeypatch, everyone)
    done = opened_by(encrypted, topic)
    assert asked == [SITE, OTHER]
    assert done.lost is not None
    assert "none of what 3 sites send" in done.lost
    assert done.faulty == {}
    first, second = (read_state(encrypted.folder.state_path(n)).weights for n in (0, 1))
    np.testing.assert_array_equal(first, second)


def test_a_false_sum_within_bounds_is_noticed_where_two_have_to_open_it(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = BFV | {"protection": {"name": "packed_bfv", "openers": 2}}
    run = begin(small_experiment(data, **sections), tmp_path / "runs")
    agree_on_key(run)
    topic = summed(run, run.sites)
    wanted = honest_state(run, topic)
    forget_opened(run)
    asked = lying_openers(run, monkeypatch, {SITE: lambda numbers: -numbers})
    done = opened_by(run, topic)
    assert asked == run.sites
    assert done.openers == tuple(run.sites[1:])
    assert "other numbers than site-01 and site-02" in done.passed_over[SITE]
    assert left_out(run) == [SITE]
    np.testing.assert_array_equal(read_state(run.folder.state_path(1)).weights, wanted)


def false(numbers: Doubles) -> Doubles:
    """Other numbers that such a sum can have."""
    return -numbers


def run_of(place: Path, data: Path, openers: int) -> Staged:
    """A run of three sites whose sums so many have to open."""
    sections = BFV | {"protection": {"name": "packed_bfv", "openers": openers}}
    run = begin(small_experiment(data, **sections), place / "runs")
    agree_on_key(run)
    return run


@pytest.mark.parametrize(
    "lie", [false, IMPOSSIBLE["more than all sites can send"]], ids=["possible", "impossible"]
)
def test_where_all_have_to_open_a_sum_one_that_opens_it_falsely_is_named_and_loses_no_round(
    tmp_path: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    lie: Callable[[Doubles], Doubles],
) -> None:
    run = run_of(tmp_path, data, openers=3)
    topic = summed(run, run.sites)
    wanted = honest_state(run, topic)
    forget_opened(run)
    asked = lying_openers(run, monkeypatch, {SITE: lie})
    done = opened_by(run, topic)
    assert asked == run.sites
    assert (done.openers, done.lost) == (tuple(run.sites[1:]), None)
    assert list(done.passed_over) == left_out(run) == [SITE]
    np.testing.assert_array_equal(read_state(run.folder.state_path(1)).weights, wanted)
    # From then on it is asked last.
    assert run.coordinator.false_openers == {SITE}
    forget_opened(run)
    asked.clear()
    opened_by(run, topic)
    assert asked == [*run.sites[1:], SITE]


def test_of_two_openers_that_differ_nobody_can_tell_which_one_lies(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a sum is of two sites one that lies loses rounds; docs/parties.md says so."""
    sections = BFV | {
        "sites": {"count": 2, "partition": "iid", "min_cases": 2, "on_dropout": "continue"},
        "protection": {"name": "packed_bfv", "openers": 2, "min_sites": 2},
    }
    run = begin(small_experiment(data, **sections), tmp_path / "runs")
    agree_on_key(run)
    topic = summed(run, run.sites)
    lying_openers(run, monkeypatch, {SITE: false})
    done = opened_by(run, topic)
    assert (done.openers, done.faulty) == ((), {})
    assert run.coordinator.false_openers == set()


def test_most_of_the_sites_that_lie_together_have_a_false_sum_taken(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not stopped, and docs/parties.md says so: two of three, however many have to open it."""
    run = run_of(tmp_path, data, openers=3)
    topic = summed(run, run.sites)
    wanted = honest_state(run, topic)
    forget_opened(run)
    lying_openers(run, monkeypatch, {SITE: false, OTHER: false})
    assert opened_by(run, topic).openers == (SITE, OTHER)
    assert (read_state(run.folder.state_path(1)).weights != wanted).any()


def test_with_one_opener_a_false_sum_within_bounds_is_not_noticed(
    encrypted: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not stopped, and docs/parties.md says so."""
    topic = summed(encrypted, encrypted.sites)
    wanted = honest_state(encrypted, topic)
    forget_opened(encrypted)
    lying_openers(encrypted, monkeypatch, {SITE: lambda numbers: -numbers})
    assert opened_by(encrypted, topic).openers == (SITE,)
    assert (read_state(encrypted.folder.state_path(1)).weights != wanted).any()


def test_several_openers_need_sums_that_all_open_as_the_same_numbers(data: Path) -> None:
    for sections, said in (
        ({"protection": {"name": "ckks", "openers": 2}}, "adds noise of its own"),
        (
            {"protection": {"name": "packed_bfv", "openers": 4}, **QUANTISED},
            "only protection.min_sites=3 in it",
        ),
    ):
        with pytest.raises(ConsiliumError, match=said):
            small_experiment(data, **THREE | sections)


# --- Sums in which others than the sites that have cases hide nobody.


def with_cases(run: Staged, *cases: int) -> RunContext:
    """What is known of a run whose sites have so many training cases."""
    known = zip(run.sites, cases, strict=True)
    counts = {site: {"train": count, "val": 3, "test": 3} for site, count in known}
    return replace(run.coordinator.run, counts=CaseCounts(counts))


def test_no_site_helps_to_open_a_sum_of_updates_of_fewer_sites_with_training_cases(
    encrypted: Staged,
) -> None:
    topic = begin_round(encrypted.coordinator, 1)
    for cases in ((8, 0, 0), (8, 8, 0)):
        with pytest.raises(RefusalError, match=r"sum of updates is refused.*train split"):
            refuse_sum(with_cases(encrypted, *cases), topic, SITE, encrypted.sites)


def test_a_site_with_one_training_case_is_hidden_in_a_sum_as_any_other(encrypted: Staged) -> None:
    topic = begin_round(encrypted.coordinator, 1)
    known = with_cases(encrypted, 1, 1, 1)
    assert refuse_sum(known, topic, SITE, encrypted.sites) == set(encrypted.sites)


def test_a_sum_of_updates_is_nearly_the_update_of_a_site_with_nearly_all_cases(
    encrypted: Staged,
) -> None:
    """Not stopped, and docs/who-sees-what.md says so: such is the weighted mean."""
    topic = begin_round(encrypted.coordinator, 1)
    known = with_cases(encrypted, 998, 1, 1)
    assert refuse_sum(known, topic, SITE, encrypted.sites) == set(encrypted.sites)
    assert site_weights(known.counts, encrypted.sites)[SITE] == 0.998
