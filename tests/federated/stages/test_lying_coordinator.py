"""A coordinator that lies: sites refuse its plans and states, and do nothing.

Each attack is made by whoever has the coordinator's or a site's own key and can write to the
exchange. The honest run goes on, or what it would have cost is not told.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from federated.errors import RefusalError
from federated.exchange import kinds
from federated.exchange.folder import Place
from federated.exchange.identity import COORDINATOR
from federated.exchange.message import sign
from federated.exchange.plan import RoundPlan, RunPlan
from federated.files import read_json, write_json
from federated.stages.coordinator import (
    begin_round,
)
from federated.stages.local_train import train_site
from federated.stages.site import open_site
from tests.federated.exchange.parties import identity
from tests.federated.staged_run import (
    Staged,
    begin,
    small_experiment,
)
from tests.federated.stages.lies import (
    OTHER,
    SITE,
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
