"""Rounds with privacy: entered before they are released, within the budget, and in the summary."""

import json
import shutil
from typing import Any

import numpy as np
import pytest

import tasks.aggregate
import tasks.local_train
from federated.errors import ConsiliumError
from federated.exchange.message import Topic
from federated.privacy.accounting import epsilon
from federated.privacy.ledger import Budget, Ledger, Spending, ledger_root
from federated.run.update_files import read_memory, read_state
from federated.secrets.home import consilium_home
from federated.site.home import WORK_KINDS
from federated.stages.aggregate import Added
from federated.stages.coordinator import Coordinator
from federated.stages.local_train import train_site
from federated.stages.site import SiteCall
from tasks import track
from tests.flows.conftest import kept_at, weights

pytestmark = pytest.mark.usefixtures("plainly")

DP_SGD = ["privacy.name=dp_sgd", "privacy.noise_multiplier=2", "privacy.delta=1e-3"]
SITE = ["privacy.name=site_level", "privacy.clip=1", "privacy.epsilon_per_round=6"]


LEDGER = "bloodmnist.jsonl"


def ledger() -> Ledger:
    return Ledger(ledger_root() / LEDGER)


def released(site: str, run: str | None = None) -> list[Spending]:
    """What a site has released of its training cases."""
    return [e for e in ledger().spendings(run) if e.site == site and e.trains]


@pytest.mark.usefixtures("prefect_server")
def test_what_is_spent_is_in_ledger_summary_and_mlflow(run):
    folder = run(overrides=DP_SGD)
    summary = json.loads(folder.summary_path.read_text())
    privacy = summary["privacy"]
    assert (privacy["unit"], privacy["delta"], privacy["accountant"]) == ("record", 1e-3, "prv")
    entries = released("site-00")
    assert [(e.round_number, e.run) for e in entries] == [(1, folder.run_id), (2, folder.run_id)]
    own = privacy["per_site"]["site-00"]
    assert own["epsilon"] == epsilon([e.release for e in entries], 1e-3, "prv")
    assert privacy["epsilon"] == max(s["epsilon"] for s in privacy["per_site"].values())
    assert privacy["epsilon_per_round"] < privacy["epsilon"] == privacy["epsilon_ledger"]
    cases = summary["per_site"]["site-00"]["cases"]["train"]
    assert entries[0].sampling_rate == min(1, 16 / cases)
    assert summary["per_site"]["site-00"]["train_loss"] is None
    assert all(value > 0 for value in folder.records()[0]["epsilon_rdp"].values())
    kept = json.loads(folder.ledger_path("site-00").read_text())
    # Two rounds of three sites, and what each tells of its validation and test cases.
    assert kept["head"]["count"] == 2 * 3 * 2
    assert kept["holder"] == "bloodmnist"
    metrics = track.client().get_run(summary["mlflow_run_id"]).data.metrics
    assert metrics["privacy/epsilon"] == pytest.approx(privacy["epsilon"])
    assert metrics["privacy/epsilon_rdp"] >= privacy["epsilon"]

    again = json.loads(run(overrides=DP_SGD).summary_path.read_text())["privacy"]
    assert again["epsilon"] == privacy["epsilon"]
    assert again["epsilon_ledger"] > privacy["epsilon_ledger"]


def test_a_target_is_reached_over_all_rounds(run):
    overrides = ["privacy.name=dp_sgd", "privacy.epsilon=4", "privacy.delta=1e-3"]
    # PRV, which takes longer, composes the schedule below.
    overrides += ["privacy.accountant=rdp"]
    privacy = json.loads(run(overrides=overrides).summary_path.read_text())["privacy"]
    for site in privacy["per_site"].values():
        assert 3.9 < site["epsilon"] <= 4


def test_a_schedule_and_a_norm_that_follows_are_composed_and_go_on_from_round_to_round(run):
    overrides = [
        *("privacy.name=dp_sgd", "privacy.epsilon=4", "privacy.delta=1e-3", "privacy.clip=0.01"),
        *("privacy.noise_schedule=[2, 1]", "privacy.adaptive.rate=0.5"),
        # What is counted of the gradients has noise in it too, and now and then turned the norm.
        "privacy.noise=seeded",
    ]
    folder = run(overrides=overrides)
    first, second = released("site-00")
    assert first.noise_multiplier == pytest.approx(2 * second.noise_multiplier)
    own = json.loads(folder.summary_path.read_text())["privacy"]["per_site"]["site-00"]
    assert own["epsilon"] == epsilon([first.release, second.release], 1e-3, "prv")
    assert 3.9 < own["epsilon"] <= 4
    norms = [
        float(read_memory(kept_at(folder, "site-00").memory_path(number))["clipping norm"][0])
        for number in (1, 2)
    ]
    # Nearly every gradient is larger, and the second round goes on where the first has got.
    assert 0.01 < norms[0] < norms[1]


def test_site_level_noise_is_new_in_every_run(run):
    first, other = run(overrides=SITE, rounds=1), run(overrides=SITE, rounds=1)
    assert (weights(first) != weights(other)).any()


@pytest.mark.parametrize("privacy", [SITE, DP_SGD], ids=["site_level", "dp_sgd"])
def test_killed_once_its_releases_are_stored_a_run_ends_as_if_it_had_not_been(
    run, project, consilium_home, tmp_path_factory, monkeypatch, privacy
):
    """The run's folder and the home as they lie when the last round's updates have arrived."""
    add, kept = tasks.aggregate.add_payloads, tmp_path_factory.mktemp("kept") / "copy"

    def copy(coordinator: Coordinator, topic: Topic, *given: Any) -> Added:
        if topic.round == 2 and not kept.exists():
            shutil.copytree(project / "runs", kept / "runs", symlinks=True)
            shutil.copytree(consilium_home, kept / "home")
        return add(coordinator, topic, *given)

    monkeypatch.setattr(tasks.aggregate, "add_payloads", copy)
    whole = run(overrides=privacy)
    ended = weights(whole)
    for name, place in (("runs", project / "runs"), ("home", consilium_home)):
        shutil.rmtree(place)
        (kept / name).rename(place)
    for site in whole.sites():
        for kind in WORK_KINDS:
            kept_at(whole, site).work_path(2, kind).unlink()
    assert whole.done_rounds() == 1
    assert not whole.summary_path.exists()
    resumed = run(resume=whole.run_id)
    np.testing.assert_array_equal(weights(resumed), ended)
    assert [e.round_number for e in released("site-00", whole.run_id)] == [1, 2]


def test_a_round_that_is_asked_for_after_the_end_is_another_release(run):
    folder = run(overrides=SITE, rounds=1)
    ended = weights(folder)
    assert not list(folder.root.rglob("*.release"))
    folder.record_path(1).unlink()
    again = run(resume=folder.run_id, rounds=1)
    assert (weights(again) != ended).mean() > 0.9
    assert [e.round_number for e in released("site-00", folder.run_id)] == [1, 1]
    summary = json.loads(again.summary_path.read_text())["privacy"]
    assert summary["epsilon_per_round"] == pytest.approx(6, rel=0.01)
    assert summary["epsilon"] > 6


def test_a_run_goes_on_with_more_rounds_unless_its_noise_was_made_for_an_epsilon_in_all(run):
    folder = run(overrides=SITE, rounds=1)
    longer = run(resume=folder.run_id, rounds=2)
    assert [e.round_number for e in released("site-00", folder.run_id)] == [1, 2]
    own = json.loads(longer.summary_path.read_text())["privacy"]
    assert own["epsilon"] > own["epsilon_per_round"] == pytest.approx(6, rel=0.01)
    target = run(overrides=[*SITE[:2], "privacy.epsilon=6"], rounds=1)
    with pytest.raises(ConsiliumError, match=r"epsilon=6 in all.*made for 1 rounds.*--rounds"):
        run(resume=target.run_id, rounds=2)


def test_seeded_noise_gives_the_same_run_twice_and_says_what_it_costs(run):
    seeded = [*SITE, "privacy.noise=seeded"]
    first = run(overrides=seeded, rounds=1)
    np.testing.assert_array_equal(weights(first), weights(run(overrides=seeded, rounds=1)))
    (warning,) = json.loads(first.privacy_path.read_text())["site-00"]["warnings"]
    assert "does not hold against those who know it" in warning


@pytest.mark.parametrize(
    "protection",
    [[], ["compression.bits=16", "protection.name=secagg_plus", "runner.name=processes"]],
    ids=["plain", "secagg_plus"],
)
def test_a_norm_of_all_sites_follows_their_updates_and_stands_in_the_ledger(
    run, in_process, protection
):
    """Nearly no noise, so that every update is seen to be longer than the first norm."""
    adaptive = [*SITE[:2], "privacy.noise_multiplier=0.02", "privacy.adaptive.rate=0.5"]
    first = "privacy.clip=0.001"
    folder = run(overrides=[*adaptive, first, *protection])
    clips = [entry.clip for entry in released("site-00")]
    assert clips == [0.001, pytest.approx(0.001 * np.exp(0.5 * 0.5), rel=0.1)]
    assert read_state(folder.state_path(2)).clip == pytest.approx(0.001 * np.exp(0.5), rel=0.1)
    assert read_state(folder.state_path(1)).clip == clips[1]


def test_what_has_no_guarantee_reports_no_epsilon(run, caplog):
    laplace = ["privacy.name=percentile_laplace", "privacy.clip=1", "privacy.noise_multiplier=0.1"]
    folder = run(overrides=laplace, rounds=1)
    privacy = json.loads(folder.summary_path.read_text())["privacy"]
    assert (privacy["epsilon"], privacy["epsilon_ledger"]) == (None, None)
    assert privacy["per_site"]["site-00"]["epsilon"] is None
    assert "gives no guarantee that composes" in caplog.text
    assert "epsilon without bound" in caplog.text


def test_noise_goes_before_quantisation_whose_range_has_room_for_it(run):
    """Everything behind the noise is post-processing."""
    settings = [*SITE, "privacy.noise=seeded", "compression.bits=16"]
    folder = run(overrides=settings, rounds=1)
    plain = run(overrides=settings[:-1], rounds=1)
    difference = np.abs(weights(folder) - weights(plain)).max()
    # A level is 4σC / 32767 where nothing was clipped.
    assert 0 < difference < 1e-3
    assert kept_at(folder, "site-00").latest_memory(1, "residual") is not None


def test_a_site_beyond_its_budget_is_left_out_or_stops_the_run(run, monkeypatch):
    """Prefect is told of it as well."""
    events = []
    monkeypatch.setattr("flows.budget_events._emit", lambda *event: events.append(event[:2]))
    run(overrides=DP_SGD, rounds=1)
    after_one = released("site-01")[0]
    spent = epsilon([after_one.release], 1e-3, "rdp")
    own = ledger().sets.read(after_one.records)
    ledger().set_budget(Budget("record", spent * 1.01, 1e-3, site="site-01"), own)
    with pytest.raises(ConsiliumError, match=r"site-01 has a privacy budget of .* was not started"):
        run(overrides=DP_SGD, rounds=1)
    folder = run(overrides=[*DP_SGD, "sites.on_dropout=continue"], rounds=1)
    (record,) = folder.records()
    assert record["sites"] == ["site-00", "site-02"]
    assert "privacy budget" in record["dropped"]["site-01"]
    assert len(released("site-01")) == 1
    spent = ("consilium.budget.spent", "site-01")
    assert events[:2] == [spent, spent]


def test_it_is_entered_before_it_is_computed(run, monkeypatch):
    """A site that dies in local training has spent what it was about to release."""

    def die(call: SiteCall, round_number: int) -> object:
        from federated.rounds import local_training

        monkeypatch.setattr(local_training, "training_steps", lambda *_, **__: 1 / 0)
        return train_site(call, round_number)

    monkeypatch.setattr(tasks.local_train, "train_site", die)
    with pytest.raises(ConsiliumError, match="The run is private, so the reason stays"):
        run(overrides=DP_SGD)
    spent = released("site-00") + released("site-01") + released("site-02")
    assert len(spent) >= 1


def test_ledgers_lie_outside_the_runs_and_releases_in_their_sites_home_closed_to_others(
    run, project
):
    folder = run(overrides=SITE, rounds=1)
    assert ledger_root().is_relative_to(consilium_home())
    assert not ledger_root().is_relative_to(project / "runs")
    releases = kept_at(folder, "site-00").releases
    assert set(folder.root.rglob("released.jsonl")) == {
        kept_at(folder, site).releases / "released.jsonl" for site in folder.sites()
    }
    for place in (ledger_root(), releases, folder.home_path("site-00")):
        assert any(path.is_file() for path in place.rglob("*"))
        assert all(path.stat().st_mode & 0o077 == 0 for path in (place, *place.rglob("*")))
