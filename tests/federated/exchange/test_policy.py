"""What a site takes part in: closed by default, and each refusal names the line it is by."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from federated.configuration.experiment import Experiment
from federated.configuration.load import resolve
from federated.data.partition import CaseCounts
from federated.errors import ConsiliumError, RefusalError
from federated.exchange.plan import RunPlan
from federated.exchange.policy import PERMISSIVE, SitePolicy, read_policy
from federated.exchange.policy_checks import Proposal, refuse_by_policy, refuse_to_send
from federated.privacy.accounting import Release
from federated.rounds.planned_work import planned_work
from federated.settings.sections import EvaluationSettings
from federated.stages.coordinator import absence_lines
from federated.strategies import AnyStrategy
from federated.weights.planned import planned_layout
from tests.federated.exchange.parties import SITES, identity

SECTIONS: dict[str, Any] = {
    "rounds": 5,
    "data": {"dataset": "adrenalmnist3d"},
    "sites": {"count": 3},
    "strategy": {"name": "fedavg"},
    "privacy": {"name": "none"},
    "compression": {"name": "none"},
    "protection": {"name": "plain"},
}
DP = {"privacy": {"name": "dp_sgd", "clip": 1.0, "noise_multiplier": 1.0},
      "training": {"augment": "none"}}  # fmt: skip
MASKED = {
    "protection": {"name": "secagg_plus"},
    "compression": {"name": "shared_mask", "density": 0.1, "bits": 8},
}


def experiment(**sections: Any) -> Experiment:
    return resolve("adrenal", SECTIONS | sections, "a test")


def proposal(found: Experiment, release: Release | None = None, **given: Any) -> Proposal:
    counts = CaseCounts({site: {"train": 10, "val": 2, "test": 2} for site in SITES})
    who = {site: identity(site).public for site in SITES}
    plan = RunPlan(found, "code", who, counts, {}, 1)
    return replace(Proposal(plan, release, "code"), **given)


def policy(tmp_path: Path, text: str):
    path = tmp_path / "site-policy.yaml"
    path.write_text(text)
    return read_policy(path)


def strict(**changed: str) -> str:
    """A policy that allows the experiment above, and nothing more, with some lines changed."""
    lines = {
        "datasets": "[adrenalmnist3d]",
        "experiments": "[adrenal]",
        "protections": "[plain]",
        "privacies": "[none]",
        "participants": "any",
        "max_epsilon": "unbounded",
        "max_delta": "1e-5",
        "min_noise_multiplier": "0",
        "min_sites": "1",
        "max_rounds": "5",
        "max_megabytes": "10",
        "max_epochs": "1",
        "max_steps": "1",
        "max_model_values": "1000000",
        "evaluation": "statistics",
        "min_count": "0",
        "approval": "not-required",
    } | changed
    return "".join(f"{key}: {value}\n" for key, value in lines.items() if value)


def test_what_a_policy_allows_is_allowed(tmp_path: Path) -> None:
    refuse_by_policy(policy(tmp_path, strict()), "clinic", proposal(experiment()))
    refuse_by_policy(policy(tmp_path, strict()), "site-00", proposal(experiment()))


@pytest.mark.parametrize("line", strict().splitlines()[:-1])
def test_a_policy_without_a_line_refuses_what_the_line_allows(tmp_path: Path, line: str) -> None:
    key = line.split(":")[0]
    if key in ("max_delta", "min_noise_multiplier"):
        found = proposal(experiment(**DP), Release(1.0, 0.1, 10))
        text = strict(**{"privacies": "[dp_sgd]", key: ""})
    else:
        found, text = proposal(experiment()), strict(**{key: ""})
    with pytest.raises(RefusalError, match=f"site-policy.yaml, which does not name {key}"):
        refuse_by_policy(policy(tmp_path, text), "site-00", found)


def test_an_empty_policy_refuses_everything(tmp_path: Path) -> None:
    with pytest.raises(RefusalError) as told:
        refuse_by_policy(policy(tmp_path, "# nothing\n"), "site-00", proposal(experiment()))
    for key in ("datasets", "experiments", "protections", "privacies", "max_epsilon", "min_sites",
                "max_rounds", "max_megabytes", "max_epochs", "max_steps", "max_model_values",
                "evaluation", "min_count"):  # fmt: skip
        assert key in str(told.value)


PICTURES = {
    "sites": {"count": 3, "overlays": True, "partition": "iid"},
    "data": {"dataset": "hippocampus", "source": "phantom"},
    "selection": {"metric": "val/dice"},
    "model": {"name": "unet", "width": 8},
}
SUMS = {"evaluation": {"share": "sums"}}
BY_LOSS = {"metric": "val/loss"}
REFUSED = {
    "another data set": ("datasets: [organmnist3d]", {}, {}),
    "another experiment": ("experiments: [organ]", {}, {}),
    "updates in the clear": ("protections: [secagg_plus]", {}, {}),
    "no privacy": ("privacies: [dp_sgd]", {}, {}),
    "too many rounds": ("max_rounds: 4", {}, {}),
    "sums of too few sites": ("min_sites: 4", MASKED, {}),
    "sums that no collusion is assumed of": ("min_corrupted: 0.3", MASKED, {}),
    "a million epochs": ("max_epochs: 5", {"training": {"local_epochs": 10**6}}, {}),
    "patches without end": (
        "max_epochs: 5",
        {**PICTURES, "data": {"dataset": "kidney", "source": "phantom"},
         "training": {"patches_per_case": 10**6}}, {},
    ),
    "many small steps": ("max_steps: 9", {"training": {"local_steps": 10}}, {}),
    "steps that draw a case often": ("max_epochs: 5", {"training": {"local_steps": 6}}, {}),
    "epochs of a model of its own": (
        "max_steps: 1", {"strategy": {"name": "ditto", "personal_epochs": 9}}, {},
    ),
    "a model that is too large": ("max_model_values: 1000", {}, {}),
    "a network as large as a memory": (
        "max_model_values: 100000000", {**PICTURES, "model": {"name": "unet", "width": 80_000}}, {},
    ),
    "small counts": ("min_count: 5", {}, {}),
    "smaller counts": (
        "min_count: 5", {"evaluation": {"min_count": 4}, "selection": {"metric": "val/loss"}}, {},
    ),
    "predictions, which withhold nothing": (
        "min_count: 5", {"evaluation": {"share": "predictions"}}, {},
    ),
    "no bound on epsilon": ("max_epsilon: 8", {}, {}),
    "predictions": ("evaluation: statistics", {"evaluation": {"share": "predictions"}}, {}),
    "statistics": ("evaluation: metrics", {}, {}),
    "sums": ("evaluation: nothing", MASKED | SUMS, {}),
    "sums that nothing hides": ("evaluation: metrics", SUMS, {}),
    "another program": ("code: same", {}, {"code": "another"}),
    "a temperature": (
        "calibration: refused", {"evaluation": {"calibration": "temperature"}}, {},
    ),
    "prediction sets": ("calibration: refused", {"evaluation": {"conformal": {"alpha": 0.1}}}, {}),
    "pictures": ("pictures: refused", PICTURES, {}),
    "styles": ("styles: refused", {"strategy": {"name": "resfim"}}, {}),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_refusal_names_the_line_of_the_policy(tmp_path: Path, what: str) -> None:
    line, sections, given = REFUSED[what]
    key = line.split(":")[0]
    text = "".join(x + "\n" for x in PERMISSIVE.splitlines() if not x.startswith(key)) + line
    number = text.splitlines().index(line) + 1
    with pytest.raises(RefusalError, match=rf"line {number} of site-policy.yaml \({key}\)") as told:
        refuse_by_policy(
            policy(tmp_path, text), "site-00", proposal(experiment(**sections), **given)
        )
    assert str(told.value).startswith("site-00 does not take part in a run of adrenal")


def test_a_refusal_says_what_is_asked_for_what_is_allowed_and_what_to_do(tmp_path: Path) -> None:
    found = policy(tmp_path, strict(max_rounds="2", protections="[secagg_plus]", max_steps="0"))
    with pytest.raises(RefusalError) as told:
        refuse_by_policy(found, "site-00", proposal(experiment()))
    said = str(told.value)
    assert "it does not allow plain as the protection, only secagg_plus, by line 3" in said
    assert "it has 5 rounds, and at most 2 are allowed, by line 10" in said
    assert "a round has 1 optimiser steps, and at most 0 are allowed, by line 13" in said
    assert "Propose a run that keeps to these lines; or whoever runs the site may" in said
    assert str(found.path) in said


def test_that_a_site_does_not_take_part_is_said_once(tmp_path: Path) -> None:
    with pytest.raises(RefusalError) as told:
        refuse_by_policy(policy(tmp_path, "{}"), "site-00", proposal(experiment()))
    absent = {"site-00": str(told.value), "site-01": "nothing has come"}
    first, second = absence_lines(absent, "this run")
    assert first == str(told.value)
    assert second == "site-01 does not take part in this run: nothing has come"


def test_a_policy_that_does_not_say_how_many_may_collude_allows_no_masked_sum(
    tmp_path: Path,
) -> None:
    allowed = {"protections": "[secagg_plus]", "min_sites": "2", "max_model_values": "10000000"}
    with pytest.raises(RefusalError, match="does not name min_corrupted"):
        refuse_by_policy(
            policy(tmp_path, strict(**allowed)), "site-00", proposal(experiment(**MASKED))
        )
    text = strict(**allowed, min_corrupted="0.1")
    refuse_by_policy(policy(tmp_path, text), "site-00", proposal(experiment(**MASKED)))


def test_what_a_policy_asks_for_is_allowed_to_the_last_unit(tmp_path: Path) -> None:
    """Ten cases in batches of 32: one step an epoch, and two passes of ditto."""
    found = experiment(
        training={"local_epochs": 3},
        strategy={"name": "ditto", "personal_epochs": 2},
        evaluation={"min_count": 5},
        selection={"metric": "val/loss"},
    )
    lines = {"max_epochs": "5", "max_steps": "5", "min_count": "5", "min_sites": "1"}
    size = planned_layout(found).size
    lines["max_model_values"] = str(size)
    refuse_by_policy(policy(tmp_path, strict(**lines)), "site-00", proposal(found))
    for key, less in (("max_epochs", 4), ("max_steps", 4), ("max_model_values", size - 1)):
        text = strict(**lines | {key: str(less)})
        with pytest.raises(RefusalError, match=rf"\({key}\)"):
            refuse_by_policy(policy(tmp_path, text), "site-00", proposal(found))


@pytest.mark.parametrize("strategy", get_args(get_args(AnyStrategy)[0]), ids=lambda s: s.__name__)
def test_the_work_of_every_strategy_is_known_before_it_begins(strategy: Any) -> None:
    name = strategy.model_fields["name"].default
    found = planned_work(experiment(strategy={"name": name}), cases=100)
    assert found.steps == 4 * found.epochs
    assert found.epochs >= 1


def test_a_plan_of_absurdly_many_rounds_is_refused_before_its_arithmetic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> float:
        raise AssertionError("ε over all rounds was worked out")

    monkeypatch.setattr("federated.exchange.policy_checks.epsilon", busy)
    found = proposal(experiment(**DP, rounds=100_000), Release(1.0, 0.1, 10))
    text = strict(privacies="[dp_sgd]", max_epsilon="8")
    with pytest.raises(
        RefusalError, match="it has 100000 rounds, and at most 5 are allowed, by line 10"
    ):
        refuse_by_policy(policy(tmp_path, text), "site-00", found)
    with pytest.raises(ConsiliumError, match="at most 100000"):
        experiment(rounds=10**9)


def test_epsilon_is_the_sites_own_arithmetic(tmp_path: Path) -> None:
    found = experiment(**DP)
    weak, strong = Release(0.6, 0.1, 100), Release(4.0, 0.1, 10)
    text = strict(privacies="[dp_sgd]", max_epsilon="3")
    refuse_by_policy(policy(tmp_path, text), "site-00", proposal(found, strong))
    with pytest.raises(RefusalError, match="at most 3 is allowed, by line 6"):
        refuse_by_policy(policy(tmp_path, text), "site-00", proposal(found, weak))


def test_noise_that_a_seed_gives_again_has_no_bound(tmp_path: Path) -> None:
    seeded = {**DP, "privacy": DP["privacy"] | {"noise": "seeded"}}
    text = strict(privacies="[dp_sgd]", max_epsilon="1000")
    with pytest.raises(RefusalError, match="without a bound on ε"):
        refuse_by_policy(
            policy(tmp_path, text), "site-00", proposal(experiment(**seeded), Release(9, 0.1, 1))
        )


def test_the_least_noise_of_a_schedule_counts(tmp_path: Path) -> None:
    scheduled = {**DP, "privacy": DP["privacy"] | {"noise_schedule": [1.5, 0.5]}}
    text = strict(privacies="[dp_sgd]", min_noise_multiplier="0.8")
    refuse_by_policy(
        policy(tmp_path, text), "site-00", proposal(experiment(**DP), Release(1, 0.1, 1))
    )
    with pytest.raises(RefusalError, match=r"would be 0\.5, and at least 0\.8"):
        refuse_by_policy(
            policy(tmp_path, text), "site-00", proposal(experiment(**scheduled), Release(1, 0.1, 1))
        )


def test_a_site_sends_no_more_than_its_policy_allows(tmp_path: Path) -> None:
    found = policy(tmp_path, strict(max_megabytes="2"))
    refuse_to_send(found, "site-00", 2_000_000)
    with pytest.raises(RefusalError, match=r"2 MB are allowed, by line 11 .*max_megabytes"):
        refuse_to_send(found, "site-00", 2_000_001)
    with pytest.raises(RefusalError, match="does not name max_megabytes"):
        refuse_to_send(policy(tmp_path, strict(max_megabytes="")), "site-00", 1)


@pytest.mark.parametrize(
    "text",
    ["- a\n", "max_rounds: many\n", "max_rounds: -1\n", "max_round: 3\n", "a: b: c\n", "x\n",
     "max_rounds: 1\nmax_rounds: 100\n", "max_epsilon: .inf\n", "evaluation: everything\n"],
)  # fmt: skip
def test_what_is_no_policy_is_refused_and_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConsiliumError, match=r"site-policy\.yaml") as told:
        policy(tmp_path, text)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("allowed", ["sums", "metrics", "statistics", "predictions"])
def test_sums_that_are_hidden_are_the_least_that_is_told(tmp_path: Path, allowed: str) -> None:
    lines = {"protections": "any", "min_corrupted": "0.1", "max_model_values": "10000000"}
    own = policy(tmp_path, strict(evaluation=allowed, **lines))
    refuse_by_policy(own, "clinic", proposal(experiment(**MASKED, **SUMS)))
    if allowed == "sums":
        for share in ("metrics", "statistics", "predictions"):
            asked = experiment(**MASKED, evaluation={"share": share}, selection=BY_LOSS)
            with pytest.raises(RefusalError, match=f"it allows sums, and {share} is asked for"):
                refuse_by_policy(own, "clinic", proposal(asked))


def with_subgroups() -> Experiment:
    """An experiment that asks for subgroups, whatever its data set is."""
    plain = experiment()
    asked = EvaluationSettings.model_validate({"subgroups": {"sex": ["F", "M"]}})
    return plain.model_copy(update={"evaluation": asked})


def test_a_policy_of_before_there_were_any_subgroups_allows_none(tmp_path: Path) -> None:
    own = policy(tmp_path, strict())
    with pytest.raises(RefusalError, match=r"site-policy\.yaml, which does not name subgroups"):
        refuse_by_policy(own, "clinic", proposal(with_subgroups()))
    allowing = policy(tmp_path, strict(subgroups="allowed"))
    refuse_by_policy(allowing, "clinic", proposal(with_subgroups()))


@pytest.mark.parametrize("asked", [{"calibration": "temperature"}, {"conformal": {}}])
def test_a_policy_of_before_there_was_any_calibration_allows_none(
    tmp_path: Path, asked: Any
) -> None:
    own = policy(tmp_path, strict())
    with pytest.raises(RefusalError, match=r"site-policy\.yaml, which does not name calibration"):
        refuse_by_policy(own, "clinic", proposal(experiment(evaluation=asked)))
    allowing = policy(tmp_path, strict(calibration="allowed"))
    refuse_by_policy(allowing, "clinic", proposal(experiment(evaluation=asked)))


def test_no_policy_is_no_permission(tmp_path: Path) -> None:
    with pytest.raises(ConsiliumError, match="Without a policy a site takes part in nothing"):
        read_policy(tmp_path / "site-policy.yaml")


def test_a_simulated_site_has_a_policy_that_names_every_key(tmp_path: Path) -> None:
    found = policy(tmp_path, PERMISSIVE)
    assert set(found.lines) == set(SitePolicy.model_fields)
    asked = {
        "strategy": {"name": "resfim"},
        "evaluation": {"share": "predictions", "conformal": {}},
    }
    everything = experiment(**asked, rounds=1000)
    refuse_by_policy(found, "site-00", proposal(everything, code="other"))
