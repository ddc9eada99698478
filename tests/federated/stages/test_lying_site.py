"""A site that lies: it is left out, named in the audit log, and does no other harm.

Each attack is made by whoever has the coordinator's or a site's own key and can write to the
exchange. The honest run goes on, or what it would have cost is not told.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from federated.errors import ConsiliumError
from federated.exchange import kinds
from federated.exchange.folder import Place
from federated.exchange.identity import COORDINATOR
from federated.exchange.message import Topic, sign
from federated.learning.evaluation import PREDICTS_NONE, Evaluation
from federated.run.update_files import (
    pack_memory,
    pack_payload,
    read_payload,
    read_state,
    write_payload,
    write_state,
)
from federated.stages.aggregate import add_payloads, apply_sum, received_sum
from federated.stages.coordinator import (
    Coordinator,
    ask_evaluation,
    begin_round,
    end_run,
    plan_run,
    propose,
)
from federated.stages.evaluate import NO_NUMBERS, evaluate, evaluate_site
from federated.stages.local_train import train_site
from federated.stages.opening import apply_or_lose
from federated.stages.own_models import receive_models, receive_shares
from federated.stages.share_style import (
    STYLE,
    keep_styles,
    other_styles,
    receive_styles,
    share_style,
    site_style,
)
from federated.stages.site import open_site
from federated.stages.take_part import take_part
from federated.stages.worker import worker_context
from federated.weights.bounded_file import Content
from tests.federated.staged_run import (
    Staged,
    begin,
    leave_model,
    record,
    small_experiment,
    train_round,
)
from tests.federated.stages.lies import (
    OTHER,
    QUANTISED,
    SITE,
    THREE,
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


def one_of(value: float) -> Callable[[Any], Any]:
    """The payload with one value that is so large."""

    def change(payload: Any) -> Any:
        numbers = payload.body.view(np.float32).copy()
        numbers[7] = value
        return replace(payload, body=numbers.view(np.uint8))

    return change


LIES: dict[str, Callable[[Any], Any]] = {
    "values of 1e30": lambda p: replace(p, body=np.full(p.length, 1e30, np.float32).view(np.uint8)),
    "a value of -1e30": one_of(-1e30),
    "the largest float32": one_of(float(np.finfo(np.float32).max)),
    "a value of 1000 by a third of the cases": one_of(1000.0),
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
    apply_sum(
        plain.coordinator,
        topic,
        added.responded,
        received_sum(plain.coordinator, topic, None),
    )
    total = read_payload(plain.folder.sum_path(1))
    assert total.weight == pytest.approx(2 / 3)
    assert np.isfinite(read_state(plain.folder.state_path(1)).weights).all()


def test_a_large_update_that_training_could_give_counts(plain: Staged) -> None:
    """It is no defence against poisoning, which looks like this."""
    topic = train_round(plain, 1)
    resend(plain, topic, one_of(-300.0))
    added = add_payloads(plain.coordinator, topic, plain.sites)
    assert added.responded == plain.sites


BEYOND: dict[str, Any] = {
    "beyond the range": np.int32(128),
    "the largest integers": np.int32(2**31 - 1),
    "the smallest integers": np.int32(-(2**31)),
    "numbers that are not whole": np.float32(0.5),
}


@pytest.mark.parametrize("lie", BEYOND)
def test_a_site_that_sends_what_is_not_quantised_as_all_others_is_left_out(
    tmp_path: Path, data: Path, lie: str
) -> None:
    run = begin(small_experiment(data, **THREE, **QUANTISED), tmp_path / "runs")
    topic, value = train_round(run, 1), BEYOND[lie]
    body = np.full(1, value)

    def change(payload: Any) -> Any:
        own = np.resize(body, payload.length)
        return replace(payload, encoding=str(own.dtype), body=own.view(np.uint8))

    resend(run, topic, change)
    added = add_payloads(run.coordinator, topic, run.sites)
    assert (added.responded, left_out(run)) == (run.sites[1:], [SITE])


ADAPTIVE: dict[str, Any] = {
    **THREE,
    "privacy": {
        **{"name": "site_level", "clip": 1.0, "noise_multiplier": 1.0},
        "adaptive": {"quantile": 0.5},
    },
}


@pytest.mark.parametrize("told", [1e300, -1e300, 50.0])
def test_a_site_whose_clip_indicator_no_noise_gives_is_left_out(
    tmp_path: Path, data: Path, told: float
) -> None:
    """exp of it would be no number, or end every later round by a clipping norm that is none."""
    run = begin(small_experiment(data, **ADAPTIVE), tmp_path / "runs")
    topic = train_round(run, 1)
    resend(run, topic, lambda p: replace(p, scalars=dict.fromkeys(p.scalars, told)))
    added = add_payloads(run.coordinator, topic, run.sites)
    assert added.responded == run.sites[1:]
    apply_sum(
        run.coordinator,
        topic,
        added.responded,
        received_sum(run.coordinator, topic, None),
    )
    assert 0 < float(read_state(run.folder.state_path(1)).clip or 0) < 10


@pytest.mark.parametrize("where", ["values", "scalars"])
def test_a_sum_that_no_training_gives_leaves_the_model_as_it_is(
    tmp_path: Path, data: Path, where: str
) -> None:
    """As the coordinator gets it where it sees no site's part."""
    run = begin(small_experiment(data, **ADAPTIVE), tmp_path / "runs")
    topic = train_round(run, 1)
    added = add_payloads(run.coordinator, topic, run.sites)
    path = run.folder.sum_path(1)
    total = read_payload(path)
    lie = one_of(1e30)(total) if where == "values" else replace(total, scalars={"below_clip": 1e9})
    write_payload(path, lie)
    lost = apply_or_lose(run.coordinator, topic, added.responded)
    assert lost is not None
    assert "no training gives more than" in lost
    before, after = (read_state(run.folder.state_path(number)) for number in (0, 1))
    np.testing.assert_array_equal(before.weights, after.weights)
    assert (after.round_number, after.clip) == (1, before.clip)


def test_a_server_that_makes_no_numbers_of_honest_updates_ends_the_run_and_says_why(
    tmp_path: Path, data: Path
) -> None:
    strategy = {"name": "fedadam", "server_lr": 1e30}
    run = begin(small_experiment(data, strategy=strategy, **THREE), tmp_path / "runs")
    topic = train_round(run, 1)
    added = add_payloads(run.coordinator, topic, run.sites)
    with pytest.raises(ConsiliumError, match=r"diverged.*strategy\.server_lr"):
        apply_sum(
            run.coordinator,
            topic,
            added.responded,
            received_sum(run.coordinator, topic, None),
        )
    assert not run.folder.state_path(1).exists()


def test_a_model_that_predicts_no_numbers_has_no_metrics_and_ends_nothing(plain: Staged) -> None:
    leave_model(plain, 1)
    path = plain.folder.state_path(1)
    state = read_state(path)
    write_state(path, replace(state, weights=np.full_like(state.weights, 3e38)))
    topic = ask_evaluation(plain.coordinator, 1, [])
    for site in plain.sites:
        evaluate_site(plain.call(site), 1)
    info = worker_context(plain.site(SITE)).info
    found = evaluate(plain.coordinator, topic, plain.sites, info)
    assert dict(found.missing) == dict.fromkeys(plain.sites, PREDICTS_NONE)
    assert (found.overall, found.per_site) == ({}, {})


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
        apply_sum(
            plain.coordinator,
            first,
            added.responded,
            received_sum(plain.coordinator, first, None),
        )
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


def answered_but(
    run: Staged, answer: bytes | None
) -> tuple[Coordinator, Callable[[], tuple[Coordinator, Any]]]:
    """A run that is proposed and answered, by the first site with ``answer`` or not at all."""
    members = run.coordinator.mailbox.members
    proposed = propose(run.folder, members, run.sites)
    run.coordinator = replace(run.coordinator, start=proposed.start)
    for site in run.sites:
        take_part(run.call(site))
    place = Place(proposed.run.run_id, 0, proposed.start.attempt, COORDINATOR, kinds.JOINING, SITE)
    (path,) = proposed.mailbox.exchange.find(place)
    path.unlink()
    if answer is not None:
        me = run.home(SITE).identity()
        proposed.mailbox.exchange.post(sign(me, proposed.start, kinds.JOINING, COORDINATOR, answer))
    return proposed, lambda: plan_run(proposed)


def joining(counts: Mapping[str, int], release: Any = None) -> bytes:
    return json.dumps({"counts": counts, "release": release, "warnings": []}).encode()


MINE = {"train": 8, "val": 3, "test": 3}
WEAK = {"noise_multiplier": 10.0**9, "sampling_rate": 0.5, "steps": 1}
ANSWERS: dict[str, tuple[str, bytes | None]] = {
    "nothing": ("plain", None),
    "noise": ("plain", b"noise"),
    "more cases than it has": ("plain", joining({"train": 10**6, "val": 1, "test": 1})),
    "a release in a run without privacy": ("plain", joining(MINE, WEAK)),
    "no release in a private run": ("private", joining(MINE)),
    "so much noise that no model is left": ("private", joining(MINE, WEAK)),
}


@pytest.mark.parametrize("lie", ANSWERS)
def test_a_site_that_answers_a_proposal_wrongly_does_not_take_part_and_the_others_do(
    request: pytest.FixtureRequest, lie: str
) -> None:
    fixture, answer = ANSWERS[lie]
    run: Staged = request.getfixturevalue(fixture)
    assert dict(run.coordinator.run.counts.sites[SITE]) == MINE
    _, plan = answered_but(run, answer)
    run.coordinator, _ = plan()
    assert run.sites == ["site-01", "site-02"]
    assert list(run.coordinator.absent) == [SITE]
    assert left_out(run) == [SITE]
    topic = train_round(run, 1)
    assert add_payloads(run.coordinator, topic, run.sites).responded == run.sites
    with pytest.raises(ConsiliumError, match="its plan does not name it"):
        open_site(run.call(SITE))


def test_a_run_for_which_too_few_sites_answer_does_not_begin_and_says_who_is_missing(
    encrypted: Staged,
) -> None:
    _, plan = answered_but(encrypted, None)
    with pytest.raises(
        ConsiliumError, match=r"Of 3 sites only 2 .*site-00.*protection.min_sites=3"
    ):
        plan()


def test_what_a_site_says_of_its_refusal_is_the_reason_that_is_kept(plain: Staged) -> None:
    proposed, _ = answered_but(plain, None)
    coordinator, _ = plan_run(proposed, {SITE: "its policy says no"})
    assert coordinator.absent == {SITE: "its policy says no"}


def evaluated(run: Staged, change: Callable[[dict[str, Any]], bytes | None]) -> Evaluation:
    """The evaluation of an untrained model, in which the first site sends something else."""
    leave_model(run, 1)
    topic = ask_evaluation(run.coordinator, 1, [])
    for site in run.sites:
        evaluate_site(run.call(site), 1)
    place = Place(topic.run, 1, topic.attempt, COORDINATOR, kinds.EVALUATION, SITE)
    (path,) = run.coordinator.mailbox.exchange.find(place)
    body = run.coordinator.mailbox.receive(topic, kinds.EVALUATION, SITE, 10**8).body
    path.unlink()
    other = change(dict(load(body)))
    if other is not None:
        run.site(SITE).mailbox.send(topic, kinds.EVALUATION, other, COORDINATOR)
    info = worker_context(run.site(OTHER)).info
    return evaluate(run.coordinator, topic, run.sites, info)


def with_array(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], bytes]:
    return lambda arrays: save({**arrays, name: np.ascontiguousarray(change(arrays[name]))})


def one_more(array: Any) -> Any:
    array = array.copy()
    array.flat[0] += 1
    return array


EVALUATIONS: dict[str, Callable[[dict[str, Any]], bytes | None]] = {
    "nothing": lambda arrays: None,
    "noise": lambda arrays: b"noise",
    "that the model predicts no numbers": lambda arrays: NO_NUMBERS,
    "no arrays": lambda arrays: save({"x": np.zeros(1)}),
    "NaN": with_array("val.loss", lambda a: a * np.nan),
    "infinity": with_array("val.loss", lambda a: a + np.inf),
    "a loss that no case has": with_array("val.loss", lambda a: a + 1e300),
    "a loss below 0": with_array("test.loss", lambda a: -a - 1),
    "a negative count": with_array("val.confusion", lambda a: a - 5),
    "counts of more cases than it has": with_array("val.cases", lambda a: a + 1000),
    "counts of fewer cases than it has": with_array("val.cases", lambda a: a * 0),
    "one case more in a table": with_array("test.confusion", one_more),
    "one case more in a histogram": with_array("test.scores", one_more),
    "places that no scores have": with_array("test.places", one_more),
    "one case more that was right": with_array("val.outcomes", lambda a: a[::-1] + a),
    "a confidence above 1": with_array("val.confidence", lambda a: a + 1),
    "another shape": with_array("val.confusion", lambda a: a.ravel()),
    "another type": with_array("val.confusion", lambda a: a.astype(np.int64)),
    "less than is asked for": lambda arrays: save(
        {name: array for name, array in arrays.items() if name != "val.scores"}
    ),
    "one array more": lambda arrays: save({**arrays, "val.more": np.zeros(1, np.int32)}),
}


@pytest.mark.parametrize("lie", EVALUATIONS)
def test_metrics_are_those_of_the_sites_whose_evaluation_counts(plain: Staged, lie: str) -> None:
    found = evaluated(plain, EVALUATIONS[lie])
    assert list(found.missing) == [SITE]
    assert left_out(plain) == [SITE]
    assert list(found.per_site) == plain.sites[1:]
    assert found.overall["test"]["auc"] is not None
    assert sum(map(sum, found.confusion["test"])) == sum(
        plain.coordinator.run.counts.cases(site, "test") for site in plain.sites[1:]
    )


def test_an_honest_evaluation_counts(plain: Staged) -> None:
    found = evaluated(plain, lambda arrays: save(arrays))
    assert found.missing == {}
    assert list(found.per_site) == plain.sites


def test_where_no_site_tells_its_evaluation_there_are_no_metrics(plain: Staged) -> None:
    leave_model(plain, 1)
    topic = ask_evaluation(plain.coordinator, 1, [])
    info = worker_context(plain.site(SITE)).info
    with pytest.raises(ConsiliumError, match="No site has evaluated the model after round 1"):
        evaluate(plain.coordinator, topic, plain.sites, info)


OWN: dict[str, Callable[[Any], bytes | None]] = {
    "nothing at all": lambda common: None,
    "noise": lambda common: b"noise",
    "a tensor that the model has not": lambda common: save({"more": np.zeros(1, np.float32)}),
    "another shape": lambda common: save({n: v.reshape(-1)[:1].copy() for n, v in common.items()}),
    "NaN": lambda common: save({n: np.full_like(v, np.nan) for n, v in common.items()}),
}


@pytest.mark.parametrize("lie", OWN)
def test_a_run_ends_without_the_model_of_a_site_that_hands_over_none(
    plain: Staged, lie: str
) -> None:
    leave_model(plain, 1)
    record(plain, 1, [])
    topic = end_run(plain.coordinator)
    state = read_state(plain.folder.state_path(1))
    common = state.layout.split(state.weights)
    name = next(name for name, value in common.items() if value.dtype.kind == "f")
    for site in plain.sites[1:]:
        hers = save({name: common[name] + 1})
        plain.site(site).mailbox.send(topic, kinds.OWN_MODEL, hers, COORDINATOR)
    body = OWN[lie]({name: common[name]})
    if body is not None:
        plain.site(SITE).mailbox.send(topic, kinds.OWN_MODEL, body, COORDINATOR)
    handed = receive_models(plain.coordinator, topic, state)
    assert list(handed.missing) == [SITE]
    assert list(handed.models) == plain.sites[1:]
    np.testing.assert_array_equal(handed.models[OTHER][name], common[name] + 1)


@pytest.mark.parametrize("told", [None, b"noise", b'{"fc": 2}', b'{"other": 0.5}', b"{}"])
def test_sensitive_layers_are_those_of_the_sites_that_tell_them(
    plain: Staged, told: bytes | None
) -> None:
    leave_model(plain, 1)
    record(plain, 1, [])
    topic = end_run(plain.coordinator)
    for site in plain.sites[1:]:
        plain.site(site).mailbox.send(topic, kinds.OWN_SHARES, b'{"fc": 0.5}', COORDINATOR)
    if told is not None:
        plain.site(SITE).mailbox.send(topic, kinds.OWN_SHARES, told, COORDINATOR)
    found = receive_shares(plain.coordinator, topic, ["fc"])
    assert found == {"site-01": {"fc": 0.5}, "site-02": {"fc": 0.5}}


@pytest.fixture
def styled(tmp_path: Path, data: Path) -> Staged:
    strategy = {"name": "resfim", "warmup": 1}
    model = {"name": "small_cnn", "norm": "group"}
    return begin(small_experiment(data, strategy=strategy, model=model, **THREE), tmp_path / "r")


def style(values: Any) -> bytes:
    return pack_memory({STYLE: values})


STYLE_LIES: dict[str, Callable[[Any], bytes | None]] = {
    "nothing": lambda own: None,
    "noise": lambda own: b"noise",
    "NaN": lambda own: style(own * np.nan),
    "amplitudes below 0": lambda own: style(-own - 1),
    "another shape": lambda own: style(own.ravel()),
    "another type": lambda own: style(own.astype(np.float64)),
    "another name": lambda own: pack_memory({"more": own}),
}


@pytest.mark.parametrize("lie", STYLE_LIES)
def test_the_others_go_on_without_the_style_of_a_lying_site(styled: Staged, lie: str) -> None:
    begin_round(styled.coordinator, 1)
    for site in styled.sites[1:]:
        share_style(styled.call(site))
    own = site_style(styled.site(SITE), styled.experiment.strategy.introduction())
    body = STYLE_LIES[lie](own)
    if body is not None:
        styled.site(SITE).to_all(styled.site(SITE).topic(0), kinds.STYLE, body)
    missing = keep_styles(styled.coordinator)
    # Whether an amplitude may be below 0 the strategy says, which a coordinator need not know.
    assert list(missing) == ([] if "below" in lie else [SITE])
    # Those of two that are left, and at each site that of one.
    for site in styled.sites[1:]:
        assert receive_styles(styled.site(site), 1) > 0
        assert len(other_styles(styled.site(site))) == 1
    train_site(styled.call(OTHER), 1)
    assert receive_styles(styled.site(SITE), 1) > 0
    assert len(other_styles(styled.site(SITE))) == 2


def test_a_site_that_has_no_style_of_another_drops_out(styled: Staged) -> None:
    begin_round(styled.coordinator, 1)
    share_style(styled.call(SITE))
    with pytest.raises(ConsiliumError, match="site-00 has no style of any other site"):
        train_site(styled.call(SITE), 1)
