"""Sums of the evaluation over sites: they are exact, nobody learns more, and lies are refused.

Each attack is made by whoever has the coordinator's or a site's own key and can write to the
exchange.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from math import prod
from pathlib import Path

import numpy as np
import pytest

from federated.data.dataset import SPLITS
from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.exchange.bundle import pack_bundle
from federated.exchange.folder import FolderExchange, Place
from federated.exchange.identity import COORDINATOR
from federated.exchange.message import sign
from federated.exchange.plan import RoundPlan
from federated.files import read_json
from federated.learning import CLASSIFICATION, summed_vector
from federated.learning.evaluation import Evaluation
from federated.privacy.spending import EVALUATIONS
from federated.protection.digits import WholeNumbers
from federated.protection.secagg import protocol
from federated.run.update_files import pack_payload, read_payload, read_state, write_state
from federated.site.holder import holder_ledger
from federated.stages import evaluate as evaluate_stage
from federated.stages import secure_sum
from federated.stages.aggregate import decrypt_site, hand_sum, vouch_site
from federated.stages.evaluate import NO_NUMBERS, evaluate_site
from federated.stages.named_sums import EVALUATION, open_sum, refuse_sum
from federated.stages.secagg import advertise_site, agree_site, answer_site, share_site
from federated.stages.secagg_messages import masked_round, pack
from federated.stages.secure_sum import send_part
from federated.stages.worker import site_cases, worker_context
from federated.update import Layout, RoundState
from federated.weights.bounded_file import Content
from tests.federated.exchange.parties import identity
from tests.federated.staged_run import (
    Staged,
    begin,
    leave_model,
    record,
    small_experiment,
    train_round,
)
from tests.federated.stages.lies import OTHER, SITE, body_of, left_out
from tests.federated.stages.summing import (
    HIDING,
    NAME,
    PROTECTIONS,
    add,
    ask,
    begin_sums,
    exchange,
    measured,
    open_up,
    resume,
    summed,
    whether_told,
)
from tests.federated.stages.test_evaluate import evaluated

TWO = {"protection": {"min_sites": 2}}
hiding = pytest.mark.parametrize("protection", HIDING)


@pytest.fixture
def masked(tmp_path: Path, data: Path) -> Staged:
    return begin_sums(tmp_path / "runs", data, "secagg_plus")


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_a_sum_gives_the_metrics_of_statistics_and_those_of_no_site(
    tmp_path: Path, data: Path, protection: str
) -> None:
    run = begin_sums(tmp_path / "sums", data, protection)
    found = summed(run)
    sections = {"sites": {"count": 3, "partition": "iid", "min_cases": 2}}
    told = begin(small_experiment(data, **sections), tmp_path / "runs")
    leave_model(told, 1)
    expected = evaluated(told)
    for split in SPLITS[1:]:
        for name, value in expected.overall[split].items():
            assert found.overall[split][name] == pytest.approx(value, abs=1e-5), name
    assert found.confusion == expected.confusion
    assert found.classes_absent == expected.classes_absent
    assert found.intervals == expected.intervals
    assert list(found.per_site) == run.sites
    for site in run.sites:
        assert set(found.per_site[site]["test"].values()) == {None}
        assert found.per_site[site]["test"].keys() == expected.per_site[site]["test"].keys()
        # The site itself knows what it reached.
        own = read_json(run.store(site).evaluation_path(1))
        assert own["test"]["loss"] == pytest.approx(expected.per_site[site]["test"]["loss"])
        assert run.store(site).evaluation_path(1).stat().st_mode & 0o077 == 0
    assert found.site_spread["test"].keys() == expected.site_spread["test"].keys()
    assert {v for s in found.site_spread["test"].values() for v in s.values()} == {None}
    assert found.absent_at == {}


def test_the_ledger_says_that_a_sum_was_told_of_which_cases(masked: Staged) -> None:
    topic = ask(masked)
    exchange(masked, topic)
    evaluate_site(masked.call(SITE), 1)
    ledger = holder_ledger(masked.experiment)
    (entry,) = ledger.spendings()
    assert entry.mechanism == EVALUATIONS["sums"]
    site = masked.site(SITE)
    told = {r for split in ("val", "test") for r in site_cases(site, split).records}
    assert ledger.sets.read(entry.records) == told == ledger.evaluated_only()


def counts_of(run: Staged, site: str, patch: pytest.MonkeyPatch) -> WholeNumbers:
    """What a site adds to the sum, as the site alone knows it."""
    seen: list[WholeNumbers] = []
    with patch.context() as within:
        within.setattr(
            evaluate_stage,
            "send_part",
            lambda at, opened, vector: seen.append(vector) or send_part(at, opened, vector),
        )
        evaluate_site(run.call(site), 1)
    return seen[0]


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_the_coordinator_reads_a_sites_part_in_the_clear_alone(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, protection: str
) -> None:
    run = begin_sums(tmp_path / "runs", data, protection)
    topic = ask(run)
    exchange(run, topic)
    own = counts_of(run, SITE, monkeypatch)
    message = run.coordinator.mailbox.receive(topic, kinds.PAYLOAD, SITE, 10**9)
    payload = read_payload(Content(message.body, "x"))
    # Counts of few cases are one digit each, of these bits.
    counted = own[own < 100].astype(np.int8).tobytes()[:200]
    assert (counted in payload.body.tobytes()) == (protection == "plain")
    assert whether_told(run, own) == (protection == "plain"), "nor in anything else that is sent"
    kept = [p for p in run.folder.exchange_path.rglob("*") if p.name == kinds.EVALUATION]
    assert not kept, "nothing else is sent of the evaluation"
    if protection != "plain":
        # It looks like noise: no byte is much more frequent than others.
        frequent = np.bincount(payload.body, minlength=256).max()
        assert frequent < 0.1 * len(payload.body)


@hiding
def test_a_sum_with_one_site_fewer_is_not_opened_in_another_attempt(
    tmp_path: Path, data: Path, protection: str
) -> None:
    """The difference attack: the two sums would tell what the third site counts."""
    run = begin_sums(tmp_path / "runs", data, protection, **TWO)
    summed(run)
    resume(run)
    with pytest.raises(ConsiliumError, match="already answered for a sum"):
        summed(run, run.sites[:2])
    resume(run)
    assert summed(run).overall["test"]["loss"] is not None


@hiding
def test_a_sum_with_one_site_fewer_is_not_opened_in_another_run(
    tmp_path: Path, data: Path, protection: str
) -> None:
    summed(begin_sums(tmp_path / "runs", data, protection, **TWO))
    other = begin_sums(tmp_path / "others", data, protection, rounds=1, **TWO)
    with pytest.raises(ConsiliumError, match="already answered for a sum"):
        summed(other, other.sites[1:])


RELABELLED: dict[str, Callable[[RoundState], RoundState]] = {
    "as of another round": lambda state: state,
    "with zeros of the other sign": lambda state: replace(
        state, weights=np.where(state.weights == 0, np.float32(-0.0), state.weights)
    ),
    "with more digits than count": lambda state: replace(
        state, weights=state.weights.astype(np.float64) * (1 + 1e-12)
    ),
    "with a clipping norm": lambda state: replace(state, clip=3.0),
    "with what goes with it": lambda state: replace(
        state, broadcast={"x": np.ones(1, np.float32)}, compression={"y": np.ones(1, np.float32)}
    ),
}


@pytest.mark.parametrize("how", RELABELLED)
@pytest.mark.parametrize("protection", ["packed_bfv", "secagg_plus"])
def test_a_second_sum_of_the_same_model_under_another_label_is_not_opened(
    tmp_path: Path, data: Path, protection: str, how: str
) -> None:
    """What a site counts follows from the model and its cases, whatever else a state says."""
    run = begin_sums(tmp_path / "runs", data, protection, **TWO)
    # Some weights are zeros, as of a layer that is made so.
    first = read_state(run.folder.state_path(1))
    begun = replace(first, weights=np.where(np.arange(first.layout.size) < 5, 0, first.weights))
    write_state(run.folder.state_path(1), begun)
    summed(run)
    write_state(run.folder.state_path(2), replace(RELABELLED[how](begun), round_number=2))
    record(run, 1, run.sites)
    with pytest.raises(ConsiliumError, match="already answered for a sum"):
        summed(run, run.sites[:2], round_number=2)
    assert not list(run.folder.exchange_path.rglob(f"round-002/*/*/{NAME}.{kinds.ANSWER}/*"))
    assert not list(run.folder.exchange_path.rglob(f"round-002/*/*/{NAME}.{kinds.OPENED}/*"))


@hiding
def test_that_a_model_predicts_no_numbers_is_told_in_the_clear_and_nothing_is_added(
    tmp_path: Path, data: Path, protection: str
) -> None:
    """By a model that the coordinator chooses it is one thing of a site's cases."""
    run = begin_sums(tmp_path / "runs", data, protection)
    state = read_state(run.folder.state_path(1))
    huge = np.full_like(state.weights, np.finfo(np.float32).max)
    write_state(run.folder.state_path(1), replace(state, weights=huge))
    topic = ask(run)
    exchange(run, topic)
    evaluate_site(run.call(SITE), 1)
    receive = run.coordinator.mailbox.receive
    assert receive(topic, kinds.EVALUATION, SITE, 100).body == NO_NUMBERS
    with pytest.raises(RefusalError, match=r"no message evaluation\.payload from site-00"):
        receive(topic, kinds.PAYLOAD, SITE, 10**9)


def test_a_state_of_other_tensors_than_the_plans_model_has_is_refused(masked: Staged) -> None:
    """What is missing in it would be left in the model from before, and be no part of the state."""
    state = read_state(masked.folder.state_path(1))
    (_, shape), *rest = state.layout.entries
    short = replace(state, layout=Layout(tuple(rest)), weights=state.weights[prod(shape) :])
    write_state(masked.folder.state_path(1), short)
    ask(masked)
    for stage in (evaluate_site, lambda call, number: advertise_site(call, number, NAME)):
        with pytest.raises(RefusalError, match="has other tensors than"):
            stage(masked.call(SITE), 1)


def test_sums_of_updates_and_of_evaluations_are_of_different_answers(masked: Staged) -> None:
    """What a site has answered for is kept for each by its own name, and for each split."""
    summed(masked)
    answered = read_json(masked.home(SITE).answered_path)
    assert len(answered) == 3
    for states in answered.values():
        (sites,) = states.values()
        assert [site.split()[0] for site in sites] == masked.sites
    masked.resume()
    summed(masked)
    assert read_json(masked.home(SITE).answered_path) == answered


FORGED = {
    "one site": ([SITE], r"min_sites=3|does not have site-0\d itself"),
    "two sites": ([SITE, OTHER], r"min_sites=3|does not have site-02 itself"),
    "one site three times": ([SITE] * 3, "more than once|does not have"),
    "a name that nobody knows": ([SITE, OTHER, "ghost"], "ghost"),
}


@hiding
@pytest.mark.parametrize("what", FORGED)
def test_a_sum_of_too_few_or_of_others_is_not_opened(
    tmp_path: Path, data: Path, protection: str, what: str
) -> None:
    """Whatever the coordinator itself lets pass."""
    responded, said = FORGED[what]
    run = begin_sums(tmp_path / "runs", data, protection)
    topic = ask(run)
    roster = exchange(run, topic)
    for site in run.sites:
        evaluate_site(run.call(site), 1)
    add(run, topic, roster, [name for name in dict.fromkeys(responded) if name in run.sites])
    if roster is not None:
        body = json.dumps(responded).encode()
        run.coordinator.mailbox.send(topic, kinds.RESPONDED, body)
        for site in run.sites:
            for stage in (agree_site, answer_site):
                with pytest.raises(ConsiliumError, match=said):
                    stage(run.call(site), 1, NAME)
    else:
        hand_sum(run.coordinator, topic, SITE)
        for site in run.sites:
            with pytest.raises(ConsiliumError, match=said):
                vouch_site(run.call(site), 1, responded, NAME)
        with pytest.raises(ConsiliumError, match=said):
            decrypt_site(run.call(SITE), 1, responded, NAME)
    assert not list(run.folder.exchange_path.rglob(f"{NAME}.{kinds.ANSWER}/*"))
    assert not list(run.folder.exchange_path.rglob(f"{NAME}.{kinds.OPENED}/*"))


def test_one_sites_part_is_not_opened_as_the_sum(tmp_path: Path, data: Path) -> None:
    run = begin_sums(tmp_path / "runs", data, "packed_bfv")
    topic = ask(run)
    for site in run.sites:
        evaluate_site(run.call(site), 1)
    add(run, topic, None, run.sites)
    total = read_payload(run.folder.sum_path(1, NAME))
    part = read_payload(
        Content(run.coordinator.mailbox.receive(topic, kinds.PAYLOAD, OTHER, 10**9).body, "x")
    )
    forged = pack_payload(replace(part, site="sum", weight=total.weight))
    run.coordinator.mailbox.send(topic, kinds.SUM, forged, SITE)
    for site in run.sites:
        vouch_site(run.call(site), 1, run.sites, NAME)
    with pytest.raises(ConsiliumError, match="is not the sum"):
        decrypt_site(run.call(SITE), 1, run.sites, NAME)


def test_the_coordinator_cannot_ask_some_of_the_sites_alone(masked: Staged) -> None:
    topic = ask(masked)
    box = masked.coordinator.mailbox
    place = Place(topic.run, 1, topic.attempt, "all", kinds.EVALUATION_PLAN, COORDINATOR)
    (path,) = box.exchange.find(place)
    plan = RoundPlan.from_bytes(body_of(path, box.me))
    path.unlink()
    before = masked.coordinator.topic(1)
    for selected in ((SITE,), (*plan.selected, "ghost"), plan.selected[:2]):
        other = replace(plan, selected=selected).to_bytes()
        signed = sign(box.me, before, kinds.EVALUATION_PLAN, "all", other)
        box.exchange.post(signed)
        with pytest.raises(RefusalError, match="does nothing for the sum evaluation"):
            advertise_site(masked.call(SITE), 1, NAME)
        (path,) = box.exchange.find(place)
        path.unlink()


def test_a_site_shares_nothing_with_names_that_the_coordinator_made_up(masked: Staged) -> None:
    topic = ask(masked)
    for site in masked.sites:
        advertise_site(masked.call(site), 1, NAME)
    receive, send = masked.coordinator.mailbox.receive, masked.coordinator.mailbox.send
    own = [receive(topic, kinds.ADVERTISED, site, kinds.MOST_SMALL) for site in masked.sites]
    ghost = identity("ghost")
    _, public = protocol.advertise("ghost", topic.run, 1, topic.attempt, NAME)
    made = sign(ghost, topic, kinds.ADVERTISED, COORDINATOR, pack(asdict(public)))
    send(topic, kinds.ROSTER, pack_bundle([*own, made]))
    with pytest.raises(ConsiliumError, match="who is not enrolled"):
        share_site(masked.call(SITE), 1, NAME)


def test_a_sum_that_no_plan_has_is_not_opened(tmp_path: Path, data: Path, masked: Staged) -> None:
    ask(masked)
    with pytest.raises(RefusalError, match="no sum 'labels'"):
        advertise_site(masked.call(SITE), 1, "labels")
    other = begin_sums(tmp_path / "others", data, "secagg_plus", evaluation={"share": "metrics"})
    ask(other)
    with pytest.raises(RefusalError, match=r"evaluation\.share=metrics"):
        advertise_site(other.call(SITE), 1, NAME)


@hiding
def test_parts_of_another_attempt_or_of_an_update_do_not_count(
    tmp_path: Path, data: Path, protection: str
) -> None:
    run = begin_sums(tmp_path / "runs", data, protection)
    topic = ask(run)
    roster = exchange(run, topic)
    evaluate_site(run.call(OTHER), 1)
    box = run.coordinator.mailbox
    earlier = box.receive(topic, kinds.PAYLOAD, OTHER, 10**9)
    resume(run)
    updates = train_round(run, 1)
    update = box.receive(updates, kinds.PAYLOAD, OTHER, 10**9)
    topic = ask(run)
    roster = exchange(run, topic)
    for site in (SITE, "site-02"):
        evaluate_site(run.call(site), 1)
    place = Place(topic.run, 1, topic.attempt, COORDINATOR, topic.kind(kinds.PAYLOAD), OTHER)
    folder = FolderExchange(run.folder.exchange_path).folder(place)
    folder.mkdir(parents=True, exist_ok=True)
    for number, message in enumerate((earlier, update)):
        (folder / f"{number}.message").write_bytes(message.to_bytes())
    assert add(run, topic, roster, run.sites) == [SITE, "site-02"]
    assert left_out(run) == [OTHER]
    refused = [line for line in box.audit.lines() if line["event"] == "refused"]
    assert {line["kind"] for line in refused} == {topic.kind(kinds.PAYLOAD)}
    assert len(refused) == 2


def test_what_a_site_has_signed_for_another_sum_is_no_part_of_this_one(masked: Staged) -> None:
    """Of the same plan, round and state; the name alone differs."""
    topic = ask(masked)
    exchange(masked, topic)
    evaluate_site(masked.call(OTHER), 1)
    box = masked.coordinator.mailbox
    part = box.receive(topic, kinds.PAYLOAD, OTHER, 10**9)
    for name in ("", "labels"):
        resigned = sign(
            masked.home(OTHER).identity(),
            replace(topic, sum=name),
            kinds.PAYLOAD,
            COORDINATOR,
            part.body,
        )
        place = Place(topic.run, 1, topic.attempt, COORDINATOR, topic.kind(kinds.PAYLOAD), OTHER)
        folder = FolderExchange(masked.folder.exchange_path).folder(place)
        for path in folder.iterdir():
            path.unlink()
        (folder / "0.message").write_bytes(resigned.to_bytes())
        with pytest.raises(RefusalError, match=f"its kind is '{name}.?payload'"):
            box.receive(topic, kinds.PAYLOAD, OTHER, 10**9)


Change = Callable[[WholeNumbers], WholeNumbers]


def lying(run: Staged, liar: str, change: Change) -> None:
    """Let a site add something else than what it counts, by its own program."""
    with pytest.MonkeyPatch.context() as within:
        within.setattr(evaluate_stage, "summed_vector", lambda *own: change(summed_vector(*own)))
        evaluate_site(run.call(liar), 1)


def summed_with_a_liar(run: Staged, change: Change) -> Evaluation:
    topic = ask(run)
    roster = exchange(run, topic)
    lying(run, OTHER, change)
    for site in run.sites:
        if site != OTHER:
            evaluate_site(run.call(site), 1)
    responded = add(run, topic, roster, run.sites)
    open_up(run, topic, roster, responded)
    return measured(run, topic, responded)


def one_less(vector: WholeNumbers) -> WholeNumbers:
    return vector - (np.arange(len(vector)) == 0)


def moved(vector: WholeNumbers) -> WholeNumbers:
    """All of a site's cases counted as right; what is counted adds up."""
    result = vector.copy()
    result[1:3] = 0, vector[1:3].sum()
    return result


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_counts_that_cannot_be_those_of_the_cases_are_refused(
    tmp_path: Path, data: Path, protection: str
) -> None:
    run = begin_sums(tmp_path / "runs", data, protection)
    with pytest.raises(ConsiliumError, match=r"all sites together are refused: they are of \d+ "):
        summed_with_a_liar(run, one_less)


def test_a_site_that_counts_within_its_cases_changes_the_metrics_as_it_likes(
    tmp_path: Path, data: Path
) -> None:
    """What a sum cannot protect from; it is said in docs/who-sees-what.md."""
    honest = summed(begin_sums(tmp_path / "one", data, "secagg_plus"))
    told = summed_with_a_liar(begin_sums(tmp_path / "two", data, "secagg_plus"), moved)
    was, now = (found.overall["val"]["accuracy"] for found in (honest, told))
    assert was is not None
    assert now is not None
    assert now > was


def test_a_site_that_masks_what_is_no_digit_is_noticed(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin_sums(tmp_path / "runs", data, "secagg_plus")
    topic = ask(run)
    roster = exchange(run, topic)
    with monkeypatch.context() as within:
        within.setattr(
            secure_sum,
            "to_digits",
            lambda _, bounds, base: np.full(bounds.digits(base), -500, np.int32),
        )
        evaluate_site(run.call(OTHER), 1)
    for site in (SITE, "site-02"):
        evaluate_site(run.call(site), 1)
    open_up(run, topic, roster, add(run, topic, roster, run.sites))
    with pytest.raises(ConsiliumError, match=r"A sum over the sites is refused: a digit is not"):
        measured(run, topic, run.sites)


@hiding
def test_a_site_that_drops_out_is_in_no_metric(tmp_path: Path, data: Path, protection: str) -> None:
    run = begin_sums(tmp_path / "runs", data, protection, **TWO)
    found = summed(run, run.sites[1:])
    counts = run.coordinator.run.counts
    assert np.sum(found.confusion["test"]) == sum(counts.cases(s, "test") for s in run.sites[1:])


def test_a_sum_of_which_few_have_any_cases_is_not_opened(masked: Staged) -> None:
    """Zeros of sites without a case hide nobody's counts."""
    topic = ask(masked)
    exchange(masked, topic)
    for site in masked.sites:
        evaluate_site(masked.call(site), 1)
    body = json.dumps(masked.sites).encode()
    masked.coordinator.mailbox.send(topic, kinds.RESPONDED, body)
    site = masked.site(SITE)
    for split in ("val", "test"):
        counts = {name: dict(own) for name, own in site.run.counts.sites.items()}
        for name in masked.sites[1:]:
            counts[name][split] = 0
        thin = replace(site.run, counts=replace(site.run.counts, sites=counts))
        with pytest.raises(RefusalError, match=f"only {SITE} of the 3 sites .* the {split} split"):
            refuse_sum(thin, topic, SITE, masked.sites)
        for name in masked.sites:
            counts[name][split] = 0
        empty = replace(site.run, counts=replace(site.run.counts, sites=counts))
        assert refuse_sum(empty, topic, SITE, masked.sites) == set(masked.sites)


def test_a_site_makes_its_part_once(masked: Staged) -> None:
    topic = ask(masked)
    exchange(masked, topic)
    evaluate_site(masked.call(SITE), 1)
    with pytest.raises(ConsiliumError, match="masks of something else"):
        lying(masked, SITE, moved)
    evaluate_site(masked.call(SITE), 1)
    box = masked.coordinator.mailbox
    place = Place(topic.run, 1, topic.attempt, COORDINATOR, topic.kind(kinds.PAYLOAD), SITE)
    assert len(box.exchange.find(place)) == 1


def test_keys_of_a_rounds_updates_are_none_of_its_named_sum(masked: Staged) -> None:
    """Nothing is masked, shared or signed for both under one label."""
    opened = open_sum(masked.site(SITE), 1, NAME) if ask(masked) else None
    assert opened is not None
    named = masked_round(masked.coordinator.run, masked.sites, opened.topic)
    updates = masked_round(masked.coordinator.run, masked.sites, replace(opened.topic, sum=""))
    assert named.label("own mask") != updates.label("own mask")
    assert named.fingerprint != updates.fingerprint


def test_the_bounds_are_what_everyone_knows_of_the_run(masked: Staged) -> None:
    info = worker_context(masked.site(SITE)).info
    bounds = EVALUATION.bounds(masked.coordinator.run, info)
    assert bounds == EVALUATION.bounds(masked.site(OTHER).run, info)
    form = CLASSIFICATION.statistics.form(info)
    assert bounds.length == 2 * sum(int(np.prod(part.shape)) for part in form.values())
