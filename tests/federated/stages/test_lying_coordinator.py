"""A coordinator that lies: sites refuse its plans and states, and do nothing.

Each attack is made by whoever has the coordinator's or a site's own key and can write to the
exchange. The honest run goes on, or what it would have cost is not told.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.exchange.folder import Place
from federated.exchange.identity import COORDINATOR
from federated.exchange.message import sign
from federated.exchange.plan import RoundPlan, RunPlan
from federated.files import read_json, write_json
from federated.run.update_files import write_memory
from federated.site.approvals import decide, proposals
from federated.site.home import SiteHome
from federated.stages.coordinator import ask_evaluation, begin_round, end_run, publish_state
from federated.stages.evaluate import evaluate_site
from federated.stages.local_train import train_site
from federated.stages.site import open_site
from federated.stages.site_model import hand_over
from federated.stages.tag_verdict import ask_proofs
from federated.stages.tags import prove_tags
from tests.federated.exchange.parties import identity
from tests.federated.staged_run import (
    Staged,
    begin,
    leave_model,
    play_round,
    record,
    small_experiment,
    train_round,
)
from tests.federated.stages.lies import (
    OTHER,
    SITE,
    THREE,
    body_of,
    refusals,
    sign_plan,
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
    (refused,) = (line for line in home.audit.lines() if line["event"] == "does not take part")
    assert f"({key})" in refused["said"]


def waiting(run: Staged) -> tuple[SiteHome, str]:
    """A site whose run waits for a person there, and the run that is to be decided on."""
    home = run.home(SITE)
    home.write_policy(
        home.policy_path.read_text().replace("approval: not-required", "approval: required")
    )
    with pytest.raises(RefusalError, match="until a person approves it"):
        run.resume()
    (run_id,) = proposals(home)
    return home, run_id


def test_a_run_waits_for_a_person_where_the_policy_says_so(plain: Staged) -> None:
    home, run_id = waiting(plain)
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


def with_stranger(plan: RunPlan) -> RunPlan:
    participants = {**plan.participants, "ghost-0": identity("ghost-0").public}
    counts = {**plan.counts.sites, "ghost-0": plan.counts.sites[SITE]}
    return replace(plan, participants=participants, counts=replace(plan.counts, sites=counts))


def with_counts_of_another(plan: RunPlan) -> RunPlan:
    counts = {site: dict(own) for site, own in plan.counts.sites.items()}
    counts[OTHER]["train"] += 1000
    return replace(plan, counts=replace(plan.counts, sites=counts))


OTHER_RUNS: dict[str, Callable[[RunPlan], RunPlan]] = {
    "a site that was not proposed": with_stranger,
    "another key for another site": lambda plan: replace(
        plan, participants={**plan.participants, OTHER: identity(OTHER).public}
    ),
    "other cases of another site": with_counts_of_another,
    "another configuration": lambda plan: with_section(plan, "training", lr=5.0),
    "another quorum": lambda plan: replace(plan, quorum=plan.quorum + 1),
    "another program": lambda plan: replace(plan, code="0" * 64),
}


@pytest.mark.parametrize("what", OTHER_RUNS)
def test_a_plan_of_another_run_than_was_proposed_is_refused(plain: Staged, what: str) -> None:
    sign_plan(plain, OTHER_RUNS[what])
    with pytest.raises(RefusalError, match="another one than was proposed to the site"):
        open_site(plain.call(SITE))


def without(name: str) -> Callable[[RunPlan], RunPlan]:
    def change(plan: RunPlan) -> RunPlan:
        participants = {other: who for other, who in plan.participants.items() if other != name}
        counts = {other: own for other, own in plan.counts.sites.items() if other != name}
        releases = {other: own for other, own in plan.releases.items() if other != name}
        return replace(
            plan,
            participants=participants,
            counts=replace(plan.counts, sites=counts),
            releases=releases,
        )

    return change


def test_a_plan_of_fewer_sites_than_were_proposed_is_accepted_where_they_are_enough(
    plain: Staged,
) -> None:
    sign_plan(plain, without("site-02"))
    assert open_site(plain.call(SITE)).run.sites == (SITE, OTHER)


def test_a_plan_of_so_few_sites_that_an_update_would_show_is_refused(encrypted: Staged) -> None:
    sign_plan(encrypted, without("site-02"))
    with pytest.raises(RefusalError, match=r"of which 2 of 3 sites are left.*min_sites=3"):
        open_site(encrypted.call(SITE))


def test_what_a_person_has_approved_holds_for_a_plan_of_fewer_sites(plain: Staged) -> None:
    home, run_id = waiting(plain)
    decide(home, run_id, "approved")
    sign_plan(plain, without("site-02"))
    assert open_site(plain.call(SITE)).run.sites == (SITE, OTHER)
    decide(home, run_id, "refused")
    with pytest.raises(RefusalError, match=r"does nothing more in run .*: it was refused"):
        open_site(plain.call(SITE))


def done_rounds(run: Staged, *responded: list[str]) -> None:
    """Rounds that are done, in each of which these sites were; the site has kept something."""
    for number, sites in enumerate(responded, start=1):
        begin_round(run.coordinator, number)
        train_site(run.call(SITE), number)
        write_memory(run.store(SITE).memory_path(number), {"x": np.zeros(1)})
        leave_model(run, number)
        record(run, number, sites)


FORGETTING: dict[str, tuple[Callable[[RoundPlan], RoundPlan], str]] = {
    "nobody was ever in a sum": (lambda plan: replace(plan, responded={}), "in the sum of round 1"),
    "the site was in no sum": (
        lambda plan: replace(plan, responded={OTHER: 2}), "site-00 is in the sum of round 1",
    ),
    "the site was in a sum of a round that is not done": (
        lambda plan: replace(plan, responded={**plan.responded, SITE: 3}), "has site-00 in round 3",
    ),
    "the run keeps a round that is not done": (lambda plan: replace(plan, kept=7), "in round 7"),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGETTING)
@pytest.mark.parametrize("kind", [kinds.ROUND_PLAN, kinds.EVALUATION_PLAN])
def test_a_site_forgets_nothing_by_a_plan_that_contradicts_what_it_was_told(
    tmp_path: Path, data: Path, what: str, kind: str
) -> None:
    sites = {"count": 3, "partition": "iid", "min_cases": 2}
    run = begin(small_experiment(data, sites=sites, rounds=3), tmp_path / "runs")
    done_rounds(run, run.sites, run.sites)
    change, said = FORGETTING[what]
    before = run.store(SITE).memory_paths()
    assert before
    if kind == kinds.ROUND_PLAN:
        sign_round(run, 3, change)
        with pytest.raises(RefusalError, match=said):
            train_site(run.call(SITE), 3)
    else:
        # That round 1 has a record the site was told with round 2.
        topic = run.coordinator.topic(2)
        digest = publish_state(run.coordinator, 2)
        honest = RoundPlan(
            run.coordinator.start.plan, 2, tuple(run.sites), digest,
            dict.fromkeys(run.sites, 2), 1,
        )  # fmt: skip
        run.coordinator.mailbox.send(topic, kind, change(honest).to_bytes())
        with pytest.raises(RefusalError, match=said):
            evaluate_site(run.call(SITE), 2)
    assert run.store(SITE).memory_paths() == before


def test_rounds_that_are_done_never_become_fewer(plain: Staged) -> None:
    done_rounds(plain, plain.sites)
    begin_round(plain.coordinator, 2)
    train_site(plain.call(SITE), 2)
    kept = plain.store(SITE).memory_paths()
    assert kept
    plain.folder.record_path(1).unlink()
    plain.resume()
    begin_round(plain.coordinator, 1)
    with pytest.raises(RefusalError, match="0 rounds are done, since 1 were done by a plan before"):
        train_site(plain.call(SITE), 1)
    assert plain.store(SITE).memory_paths() == kept


def test_a_round_that_broke_off_after_its_evaluation_is_begun_anew(plain: Staged) -> None:
    begin_round(plain.coordinator, 1)
    train_site(plain.call(SITE), 1)
    leave_model(plain, 1)
    ask_evaluation(plain.coordinator, 1, plain.sites)
    evaluate_site(plain.call(SITE), 1)
    plain.resume()
    begin_round(plain.coordinator, 1)
    train_site(plain.call(SITE), 1)


def test_nothing_is_told_of_the_cases_before_the_first_round(plain: Staged) -> None:
    ask_evaluation(plain.coordinator, 0, [])
    with pytest.raises(RefusalError, match="does nothing in round 0"):
        evaluate_site(plain.call(SITE), 0)
    assert not list(plain.folder.exchange_path.rglob(f"{kinds.EVALUATION}/*"))


def test_a_site_proves_nothing_of_tags_for_a_challenge_that_is_not_that_of_the_plan(
    encrypted: Staged,
) -> None:
    topic = train_round(encrypted, 1)
    encrypted.coordinator.mailbox.send(topic, kinds.CHALLENGE, bytes(32))
    with pytest.raises(RefusalError, match="something else than it has committed itself to"):
        prove_tags(encrypted.call(SITE), 1, encrypted.sites)
    assert not list(encrypted.folder.exchange_path.rglob(f"{kinds.PROOF}/*"))


def test_a_site_proves_nothing_of_the_tags_of_too_few_sites(encrypted: Staged) -> None:
    topic = train_round(encrypted, 1)
    ask_proofs(encrypted.coordinator, topic)
    with pytest.raises(ConsiliumError, match=r"protection\.min_sites=3"):
        prove_tags(encrypted.call(SITE), 1, encrypted.sites[:2])


def say_of_own_model(run: Staged, answer: str) -> None:
    """Have a site's policy say whether its own model may leave it."""
    home = run.home(SITE)
    home.write_policy(
        home.policy_path.read_text().replace("own_model: allowed", f"own_model: {answer}")
    )


@pytest.mark.parametrize("answer", ["allowed", "refused"])
def test_a_policy_that_keeps_the_own_model_keeps_the_shares_of_its_layers_too(
    tmp_path: Path, data: Path, answer: str
) -> None:
    strategy = {"name": "resfim", "warmup": 1}
    model = {"name": "small_cnn", "norm": "group"}
    sites = {"count": 3, "partition": "iid", "min_cases": 2}
    experiment = small_experiment(data, strategy=strategy, model=model, sites=sites)
    run = begin(experiment, tmp_path / "runs")
    leave_model(run, 1)
    record(run, 1, [])
    say_of_own_model(run, answer)
    topic = end_run(run.coordinator)
    hand_over(run.call(SITE), 1)
    message = run.coordinator.mailbox.receive(topic, kinds.OWN_SHARES, SITE, kinds.MOST_SMALL)
    assert (message.body == b"{}") == (answer == "refused")


@pytest.mark.parametrize("answer", ["allowed", "refused"])
def test_a_policy_that_keeps_the_own_model_keeps_its_values(
    tmp_path: Path, data: Path, answer: str
) -> None:
    sections = {"strategy": {"name": "fedbn"}, "model": {"name": "small_cnn", "norm": "batch"}}
    run = begin(small_experiment(data, **THREE, **sections), tmp_path / "runs")
    play_round(run, 1)
    say_of_own_model(run, answer)
    topic = end_run(run.coordinator)
    hand_over(run.call(SITE), 1)
    message = run.coordinator.mailbox.receive(topic, kinds.OWN_MODEL, SITE, kinds.MOST_EVALUATION)
    assert (message.body == b"") == (answer == "refused")
