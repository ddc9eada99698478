"""A coordinator or a site that lies: what it tries is refused, named in the audit log, and no more.

Each attack is made by whoever has the coordinator's or a site's own key and can write to the
exchange. The honest run goes on, or what it would have cost is not told.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.exchange.folder import Place
from federated.exchange.identity import COORDINATOR, Identity
from federated.exchange.message import Topic, open_message, sign
from federated.exchange.plan import RoundPlan, RunPlan
from federated.files import read_json, write_json
from federated.run.update_files import pack_payload, read_payload, read_state
from federated.stages.aggregate import add_payloads, apply_sum, decrypt_site, hand_sum, vouch_site
from federated.stages.compress import compress_site
from federated.stages.coordinator import (
    ask_evaluation,
    begin_round,
    end_run,
    plan_run,
    propose,
    publish_state,
)
from federated.stages.evaluate import evaluate, evaluate_site
from federated.stages.keys import prepare_key
from federated.stages.local_train import train_site
from federated.stages.own_models import receive_models
from federated.stages.privacy_report import report_site
from federated.stages.protect import protect_site
from federated.stages.secagg import (
    advertise_site,
    agree_site,
    answer_site,
    forget_secrets,
    share_site,
)
from federated.stages.secagg_messages import masked_round
from federated.stages.secagg_relay import (
    relay_keys,
    relay_responded,
    relay_shares,
    relay_views,
    unmask_sum,
)
from federated.stages.site import open_site
from federated.stages.site_model import hand_over
from federated.stages.take_part import take_part
from federated.stages.worker import worker_context
from federated.weights.bounded_file import Content
from tests.federated.exchange.parties import identity
from tests.federated.staged_run import (
    Staged,
    begin,
    play_round,
    record,
    small_experiment,
    small_images,
    train_round,
)

SITE, OTHER = "site-00", "site-01"
THREE = {"sites": {"count": 3, "partition": "iid", "min_cases": 2}}
QUANTISED = {"compression": {"name": "shared_mask", "density": 1.0, "bits": 8}}
BFV = {**THREE, **QUANTISED, "protection": {"name": "packed_bfv"}}
PRIVATE: dict[str, Any] = {
    **THREE,
    "privacy": {"name": "dp_sgd", "clip": 1.0, "noise_multiplier": 1.0},
    "training": {
        **{"lr": 0.1, "batch_size": 6, "device": "cpu", "optimizer": "sgd"},
        "augment": "none",
    },
    "model": {"name": "small_cnn"},
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return small_images(tmp_path)


@pytest.fixture
def plain(tmp_path: Path, data: Path) -> Staged:
    return begin(small_experiment(data, **THREE), tmp_path / "runs")


@pytest.fixture
def private(tmp_path: Path, data: Path) -> Staged:
    return begin(small_experiment(data, **PRIVATE), tmp_path / "runs")


@pytest.fixture
def encrypted(tmp_path: Path, data: Path) -> Staged:
    run = begin(small_experiment(data, **BFV), tmp_path / "runs")
    publish_state(run.coordinator, 0)
    public = prepare_key(run.call(SITE), 0)
    write_json(run.folder.context_path, public.to_json())
    return run


def refusals(run: Staged, who: str = COORDINATOR) -> list[str]:
    """Why a party has refused something, by its audit log."""
    audit = run.coordinator.mailbox.audit if who == COORDINATOR else run.home(who).audit
    return [line["reason"] for line in audit.lines() if line["event"] == "refused"]


def left_out(run: Staged) -> list[str]:
    """Which sites the coordinator has left out, by its audit log."""
    lines = run.coordinator.mailbox.audit.lines()
    return [line["sender"] for line in lines if line["event"] == "left out"]


# --- What a lying site sends instead of its payload.


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


# --- What a lying coordinator asks of a site.


def body_of(path: Path, signer: Identity) -> bytes:
    with open_message(path) as unread:
        return unread.read(signer.public, 10**9).body


def sign_plan(run: Staged, change: Callable[[RunPlan], RunPlan]) -> None:
    """Sign another plan of the run, in another attempt that sites have answered honestly."""
    members = run.coordinator.mailbox.members
    proposed = propose(run.folder, members, run.sites)
    run.coordinator = replace(run.coordinator, start=proposed.start, published={})
    for site in run.sites:
        take_part(run.call(site))
    coordinator, _ = plan_run(proposed)
    exchange, me = coordinator.mailbox.exchange, coordinator.mailbox.me
    before = replace(coordinator.start, plan="")
    place = Place(before.run, 0, before.attempt, "all", kinds.RUN_PLAN, COORDINATOR)
    (path,) = exchange.find(place)
    plan = change(RunPlan.from_bytes(body_of(path, me)))
    path.unlink()
    again = sign(me, before, kinds.RUN_PLAN, "all", plan.to_bytes())
    exchange.post(again)
    run.coordinator = replace(
        coordinator, start=replace(before, plan=again.signed.digest), published={}
    )


def with_section(plan: RunPlan, name: str, **values: Any) -> RunPlan:
    section = getattr(plan.experiment, name)
    changed = section.model_copy(update=values)
    return replace(plan, experiment=plan.experiment.model_copy(update={name: changed}))


def other_key(plan: RunPlan) -> RunPlan:
    return replace(plan, participants={**plan.participants, SITE: identity(SITE).public})


def other_counts(plan: RunPlan) -> RunPlan:
    counts = {site: dict(own) for site, own in plan.counts.sites.items()}
    counts[SITE]["train"] += 1000
    return replace(plan, counts=replace(plan.counts, sites=counts))


def without_me(plan: RunPlan) -> RunPlan:
    participants = {name: who for name, who in plan.participants.items() if name != SITE}
    counts = {name: own for name, own in plan.counts.sites.items() if name != SITE}
    return replace(plan, participants=participants, counts=replace(plan.counts, sites=counts))


def less_noise(plan: RunPlan) -> RunPlan:
    weaker = replace(plan.releases[SITE], noise_multiplier=1e-6)
    return replace(plan, releases={**plan.releases, SITE: weaker})


PLANS: dict[str, tuple[str, Callable[[RunPlan], RunPlan], str]] = {
    "a key of its own for the site": ("plain", other_key, "has another key for it"),
    "another number of cases": ("plain", other_counts, "would have another weight"),
    "a run without the site": ("plain", without_me, "does not name it"),
    "less noise than the site works out": ("private", less_noise, "by its own arithmetic"),
    "no release": (
        "private", lambda plan: replace(plan, releases={OTHER: plan.releases[OTHER]}),
        "by its own arithmetic",
    ),
    "a privacy with less noise": (
        "private", lambda plan: with_section(plan, "privacy", noise_multiplier=0.01),
        "by its own arithmetic",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", PLANS)
def test_a_plan_that_is_not_the_sites_own_arithmetic_is_refused(
    request: pytest.FixtureRequest, what: str
) -> None:
    fixture, change, said = PLANS[what]
    run: Staged = request.getfixturevalue(fixture)
    before = run.store(SITE).plan_path.read_bytes() if run.store(SITE).plan_path.is_file() else b""
    sign_plan(run, change)
    with pytest.raises(RefusalError, match=said):
        open_site(run.call(SITE))
    now = run.store(SITE).plan_path.read_bytes() if run.store(SITE).plan_path.is_file() else b""
    assert now == before


POLICIES = {
    "no privacy": "privacies: [dp_sgd]",
    "no protection": "protections: [secagg_plus]",
    "another experiment": "experiments: [chest]",
    "more rounds": "max_rounds: 1",
}


@pytest.mark.parametrize("what", POLICIES)
def test_a_plan_that_is_weaker_than_the_sites_policy_is_refused_before_anything_is_read(
    plain: Staged, what: str
) -> None:
    home, line = plain.home(SITE), POLICIES[what]
    key = line.split(":")[0]
    kept = [x for x in home.policy_path.read_text().splitlines() if not x.startswith(f"{key}:")]
    home.write_policy("\n".join([*kept, line, ""]))
    with pytest.raises(RefusalError, match=rf"line \d+ of site-policy.yaml \({key}\)"):
        plain.resume()
    sent = [line for line in home.audit.lines() if line["event"] == "sent"]
    assert [line["kind"] for line in sent] == [kinds.JOINING]


def test_a_run_waits_for_a_person_where_the_policy_says_so(plain: Staged) -> None:
    from federated.site.approvals import decide, proposals

    home = plain.home(SITE)
    home.write_policy(
        home.policy_path.read_text().replace("approval: not-required", "approval: required")
    )
    with pytest.raises(RefusalError, match="until a person approves it"):
        plain.resume()
    (run_id,) = proposals(home)
    decide(home, run_id, "refused")
    with pytest.raises(RefusalError, match="it was refused"):
        plain.resume()
    decide(home, run_id, "approved")
    plain.resume()
    assert open_site(plain.call(SITE)).name == SITE
    # What was approved is this proposal: another one has to be approved anew.
    config = read_json(plain.folder.config_path)
    config["training"]["lr"] = 0.5
    write_json(plain.folder.config_path, config)
    with pytest.raises(RefusalError, match="until a person approves it"):
        plain.resume()


def sign_round(run: Staged, number: int, change: Callable[[RoundPlan], RoundPlan]) -> None:
    """Sign another plan of a round in place of the honest one."""
    topic = begin_round(run.coordinator, number)
    box = run.coordinator.mailbox
    place = Place(topic.run, number, topic.attempt, "all", kinds.ROUND_PLAN, COORDINATOR)
    (path,) = box.exchange.find(place)
    before = run.coordinator.topic(number)
    plan = RoundPlan.from_bytes(body_of(path, box.me))
    path.unlink()
    box.exchange.post(sign(box.me, before, kinds.ROUND_PLAN, "all", change(plan).to_bytes()))


ROUNDS: dict[str, tuple[Callable[[RoundPlan], RoundPlan], str]] = {
    "fewer sites": (lambda plan: replace(plan, selected=plan.selected[:2]), "follow from the plan"),
    "one site alone": (lambda plan: replace(plan, selected=(SITE,)), "follow from the plan"),
    "a ghost": (
        lambda plan: replace(plan, selected=(*plan.selected, "ghost-0")), "follow from the plan",
    ),
    "a site twice": (
        lambda plan: replace(plan, selected=(SITE, *plan.selected)), "follow from the plan",
    ),
    "another state": (lambda plan: replace(plan, state="0" * 64), "another one than"),
    "another run": (lambda plan: replace(plan, run_plan="0" * 64), "of another run or round"),
    "another round": (lambda plan: replace(plan, round=2), "of another run or round"),
}  # fmt: skip


@pytest.mark.parametrize("what", ROUNDS)
def test_a_plan_of_a_round_that_does_not_follow_from_the_runs_is_refused(
    plain: Staged, what: str
) -> None:
    change, said = ROUNDS[what]
    sign_round(plain, 1, change)
    with pytest.raises(RefusalError, match=said):
        train_site(plain.call(SITE), 1)
    assert not plain.store(SITE).work_path(1, "update").exists()


def test_two_plans_of_one_round_count_for_nothing(plain: Staged) -> None:
    begin_round(plain.coordinator, 1)
    box = plain.coordinator.mailbox
    box.send(plain.coordinator.topic(1), kinds.ROUND_PLAN, b"{}")
    with pytest.raises(RefusalError, match="2 different messages"):
        train_site(plain.call(SITE), 1)
    assert refusals(plain, SITE) == ["duplicate"]


def test_a_state_that_was_changed_on_the_way_is_refused(plain: Staged) -> None:
    begin_round(plain.coordinator, 1)
    (path,) = plain.folder.exchange_path.rglob(f"{kinds.STATE}/coordinator/*.message")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    from federated.stages import site as site_stage

    site_stage._states.clear()
    with pytest.raises(RefusalError, match="not the one that was signed"):
        train_site(plain.call(SITE), 1)
    assert refusals(plain, SITE) == ["other body"]


def test_somebody_elses_plan_is_no_plan(plain: Staged) -> None:
    """Another coordinator's key, under the coordinator's name."""
    liar = identity(COORDINATOR)
    begin_round(plain.coordinator, 1)
    before = plain.coordinator.topic(1)
    exchange = plain.coordinator.mailbox.exchange
    exchange.post(sign(liar, before, kinds.ROUND_PLAN, "all", b"{}"))
    train_site(plain.call(SITE), 1)
    assert refusals(plain, SITE) == ["bad signature"]


def test_a_site_that_is_not_selected_trains_nothing(tmp_path: Path, data: Path) -> None:
    sites = {"count": 3, "partition": "iid", "min_cases": 2, "participation": 0.5}
    run = begin(small_experiment(data, sites=sites), tmp_path / "runs")
    begin_round(run.coordinator, 1)
    (absent,) = set(run.sites) - set(run.coordinator.run.selected(1))
    with pytest.raises(RefusalError, match="is not selected in round 1"):
        train_site(run.call(absent), 1)


# --- Sums that are sums.


def summed(run: Staged, sites: list[str]) -> Topic:
    """A round up to the sum of the payloads of ``sites``, which the coordinator has."""
    topic = train_round(run, 1)
    add_payloads(run.coordinator, topic, sites)
    return topic


def openings(run: Staged) -> int:
    from federated.protection.keys import keys_root

    found = list(keys_root().rglob("openings.json"))
    return sum(int(read_json(path)) for path in found)


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


# --- Two worlds.


@contextmanager
def opened_files() -> Iterator[list[Path]]:
    """The files that are opened in the block."""
    seen: list[Path] = []
    active = [True]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if active[0] and event == "open" and isinstance(arguments[0], str | bytes | Path):
            seen.append(Path(str(arguments[0])).absolute())

    sys.addaudithook(hook)  # it cannot be removed again, so it is switched off
    try:
        yield seen
    finally:
        active[0] = False


def steps(run: Staged) -> Iterator[tuple[str, Callable[[], Any]]]:
    """A whole run of one round, stage by stage: whose each is, and what it does."""
    box: dict[str, Any] = {}
    coordinator, protection = run.coordinator, run.experiment.protection

    def keep(name: str, value: Any) -> None:
        box[name] = value

    def at_all(stage: Callable[..., Any], *arguments: Any) -> Iterator[tuple[str, Any]]:
        for site in run.sites:
            yield site, lambda site=site: stage(run.call(site), *arguments)

    if protection.keyed:
        yield COORDINATOR, lambda: publish_state(coordinator, 0)
        yield SITE, lambda: keep("key", prepare_key(run.call(SITE), 0))
        yield COORDINATOR, lambda: write_json(run.folder.context_path, box["key"].to_json())
    yield COORDINATOR, lambda: keep("topic", begin_round(coordinator, 1))
    topic = box["topic"]
    if protection.masked:
        yield from at_all(advertise_site, 1)
        yield COORDINATOR, lambda: keep("roster", relay_keys(coordinator, topic, run.sites))
        yield from at_all(share_site, 1)
        yield (
            COORDINATOR,
            lambda: keep("roster", relay_shares(coordinator, topic, box["roster"], run.sites)),
        )
    for stage in (train_site, compress_site, protect_site):
        yield from at_all(stage, 1)
    masks = None
    if protection.masked:
        masks = masked_round(coordinator.run, list(box["roster"].advertised), topic)
    yield COORDINATOR, lambda: keep("added", add_payloads(coordinator, topic, run.sites, masks))
    responded = box["added"].responded
    assert responded == run.sites
    if protection.masked:
        roster = box["roster"]
        yield COORDINATOR, lambda: relay_responded(coordinator, topic, roster, responded)
        yield from at_all(agree_site, 1)
        yield COORDINATOR, lambda: relay_views(coordinator, topic, responded)
        yield from at_all(answer_site, 1)
        yield COORDINATOR, lambda: unmask_sum(coordinator, topic, roster, responded, responded)
        yield from at_all(forget_secrets)
    if protection.keyed:
        yield from at_all(vouch_site, 1, responded)
        yield COORDINATOR, lambda: hand_sum(coordinator, topic, SITE)
        yield SITE, lambda: decrypt_site(run.call(SITE), 1, responded)
    opener = SITE if protection.keyed else None
    yield COORDINATOR, lambda: apply_sum(coordinator, topic, responded, opener)
    yield COORDINATOR, lambda: keep("asked", ask_evaluation(coordinator, 1, responded))
    yield from at_all(evaluate_site, 1)
    info = worker_context(run.site(SITE)).info
    yield COORDINATOR, lambda: evaluate(coordinator, box["asked"], run.sites, info)
    yield COORDINATOR, lambda: record(run, 1, responded)
    yield COORDINATOR, lambda: keep("end", end_run(coordinator))
    yield from at_all(hand_over, 1)
    state = read_state(run.folder.state_path(1))
    yield COORDINATOR, lambda: receive_models(coordinator, box["end"], state)
    yield from at_all(report_site)


MASKED = {**THREE, **QUANTISED, "protection": {"name": "secagg_plus"}}


@pytest.mark.parametrize(
    "sections", [THREE, PRIVATE, BFV, MASKED], ids=["plain", "private", "packed_bfv", "secagg_plus"]
)
def test_a_stage_opens_no_file_of_the_other_side(
    tmp_path: Path, data: Path, sections: dict[str, Any]
) -> None:
    run = begin(small_experiment(data, **sections), tmp_path / "runs")
    root, exchange = run.folder.root, run.folder.exchange_path
    opened: dict[str, int] = {}
    for party, stage in steps(run):
        own = root if party == COORDINATOR else run.home(party).root
        with opened_files() as seen:
            stage()
        foreign = [
            path
            for path in seen
            if path.is_relative_to(root)
            and not path.is_relative_to(exchange)
            and (path.is_relative_to(root / "sites") or party != COORDINATOR)
            and not (party != COORDINATOR and path.is_relative_to(own))
        ]
        assert not foreign, (party, foreign)
        opened[party] = opened.get(party, 0) + len(seen)
    assert set(opened) == {COORDINATOR, *run.sites}
    assert min(opened.values()) > 10


def test_everything_in_a_home_is_its_owners_alone(plain: Staged) -> None:
    play_round(plain, 1)
    for path in [plain.home(SITE).root, *plain.home(SITE).root.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


# --- What each side learns (docs/who-sees-what.md).


def test_in_the_clear_the_coordinator_reads_a_sites_update(plain: Staged) -> None:
    from federated.run.update_files import read_update

    topic = train_round(plain, 1)
    message = plain.coordinator.mailbox.receive(topic, kinds.PAYLOAD, SITE, 10**9)
    payload = read_payload(Content(message.body, "x"))
    update = read_update(plain.store(SITE).work_path(1, "update"))
    seen = payload.body.view(np.float32) / payload.weight
    np.testing.assert_allclose(seen, update.vector, rtol=1e-5, atol=1e-9)
    # And the sum is no more than that of all.
    added = add_payloads(plain.coordinator, topic, plain.sites)
    assert added.responded == plain.sites


def test_the_coordinator_has_no_key_and_all_sites_have_the_same(encrypted: Staged) -> None:
    from federated.protection.keys import keys_root
    from federated.stages.keys import site_key

    (secret,) = keys_root().rglob("secret.key")
    content = secret.read_bytes()
    for path in encrypted.folder.root.rglob("*"):
        if path.is_file():
            assert content not in path.read_bytes(), path
    keys = [site_key(encrypted.site(site)) for site in encrypted.sites]
    assert len({key.common for key in keys if key is not None}) == 1
    context = read_json(encrypted.folder.context_path)
    assert set(context) == {"parameters", "key_id", "fingerprint"}


@pytest.mark.parametrize("sections", [THREE, PRIVATE, BFV], ids=["plain", "private", "packed_bfv"])
def test_what_all_are_told_is_the_plan_the_state_and_nothing_of_a_site(
    tmp_path: Path, data: Path, sections: dict[str, Any]
) -> None:
    run = begin(small_experiment(data, **sections), tmp_path / "runs")
    begin_round(run.coordinator, 1)
    told = {path.parent.parent.name for path in run.folder.exchange_path.rglob("all/*/*/*.message")}
    assert told == {kinds.PROPOSAL, kinds.RUN_PLAN, kinds.ROUND_PLAN, kinds.STATE}
    (path,) = run.folder.exchange_path.rglob(f"all/{kinds.RUN_PLAN}/*/*.message")
    plan = json.loads(body_of(path, run.coordinator.mailbox.me))
    assert set(plan) == {
        *("experiment", "code", "participants", "counts", "releases", "quorum", "deadline"),
    }
    cases = {split: len(indices) for split, indices in run.store(SITE).data()[1][SITE].items()}
    assert plan["counts"][SITE] == cases
    assert set(plan["participants"]) == set(run.sites)
