"""Runs of a consortium whose sites are parties of their own: runner.name=sites."""

import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from federated.configuration.load import load_experiment
from federated.errors import ConsiliumError
from federated.exchange import kinds
from federated.exchange.enrolment import Enrolment
from federated.exchange.folder import EVERYONE
from federated.exchange.identity import COORDINATOR, Identity
from federated.exchange.plan import RunPlan
from federated.exchange.policy import PERMISSIVE
from federated.files import OTHERS, read_json, write_json
from federated.run.coordinator_home import CoordinatorHome
from federated.site.approvals import decide, proposals
from federated.stages import secagg_relay
from federated.stages.asking import MOST_NAMES
from flows import site_flow
from flows.beginning import with_parties
from flows.coordinator_metrics import CoordinatorMetrics
from flows.describe import result_lines
from flows.site_metrics import SiteMetrics
from tasks.release import CARD, release
from tasks.release_folder import verify_folder
from tests.federated.stages.lies import body_of
from tests.flows.conftest import full_run, weights

pytestmark = pytest.mark.usefixtures("prefect_server")
SITES = "runner.name=sites"


def say_hello(site, ago=0.0):
    """What the exchange leaves of a site's hello, so many seconds ago."""
    path = CoordinatorHome.default().seen_path / f"{site}.json"
    write_json(path, {}, 0o600)
    os.utime(path, (time.time() - ago, time.time() - ago))


def ended(folder, attempt):
    """Whether the coordinator has said that nothing more of an attempt at a run is wanted."""
    root = CoordinatorHome.default().exchange_path / folder.run_id / "round-000"
    return any((root / f"attempt-{attempt}" / EVERYONE / kinds.ENDED / COORDINATOR).glob("*"))


def test_the_model_is_that_of_simulated_sites_with_the_same_cases(consortium, known):
    alone = known(2)
    parties = consortium()
    folder = full_run(overrides=[SITES], register_model=False)
    assert np.array_equal(weights(folder), weights(alone))
    summary, expected = read_json(folder.summary_path), read_json(alone.summary_path)
    assert summary["metrics"] == expected["metrics"]
    assert summary["sites"] == sorted(parties)
    assert not (folder.root / "sites").exists()
    assert ended(folder, 1)
    # What is named as worth a look is there: what validation found, each site keeps for itself.
    named = [line.split()[0] for line in result_lines(folder.root) if f"  {folder.root}/" in line]
    assert [Path(each).name for each in named] == ["report.html", "summary.json"]
    assert all(Path(each).is_file() for each in named)
    assert f"{alone.root}/validation.json " in " ".join(result_lines(alone.root))
    counted = CoordinatorMetrics(CoordinatorHome.default()).text().decode()
    assert 'consilium_rounds_total{experiment="tiny"} 2.0' in counted
    for name, party in parties.items():
        assert f'consilium_site_rounds_total{{outcome="summed",site="{name}"}} 2.0' in counted
        # Keys and masks are put there, and are refused where others can open it.
        assert not party.home.run(folder.run_id).root.stat().st_mode & OTHERS
        done = SiteMetrics(party.home).text().decode()
        assert 'stages_total{outcome="done",stage="local-train"} 2.0' in done


def test_a_trained_model_is_released_by_its_coordinator_who_has_no_case(consortium, tmp_path):
    parties = consortium()
    folder = full_run(rounds=1, overrides=[SITES])
    for party in parties.values():  # what the dossier is made of is at the coordinator alone
        shutil.rmtree(party.data)
    made = release("tiny@champion", tmp_path / "dossier")
    manifest = verify_folder(tmp_path / "dossier", made.manifest.signer.fingerprint)
    assert manifest.run_id == folder.run_id
    assert manifest.signer == CoordinatorHome.default().identity().public
    card = (tmp_path / "dossier" / CARD).read_text(encoding="utf-8")
    assert "The coordinator has no case of any site" in card
    told = read_json(folder.summary_path)["per_site"]
    for name in parties:
        (row,) = [line for line in card.splitlines() if line.startswith(f"| {name} |")]
        assert f"| {told[name]['test']['auc']:.3f} |" in row


def test_a_site_that_is_away_is_left_out_and_comes_back(
    consortium, monkeypatch, in_process, run, failing
):
    parties = consortium()
    from flows import round as flow_round

    real = flow_round.run_round

    def watched(run, number, began):
        say_hello("site-02", ago=0 if number != 2 else 1000)
        return real(run, number, began)

    monkeypatch.setattr(flow_round, "run_round", watched)
    folder = full_run(rounds=3, overrides=[SITES], register_model=False)
    told = [record["sites"] for record in folder.records()]
    assert told == [sorted(parties), ["site-00", "site-01"], sorted(parties)]
    assert "has not said hello for" in folder.records()[1]["dropped"]["site-02"]
    # As with simulated sites of which the same one drops out.
    monkeypatch.setattr(flow_round, "run_round", real)
    failing("protect site-02 2")
    alone = run(rounds=3, overrides=["sites.on_dropout=continue"])
    assert [record["sites"] for record in alone.records()] == told
    assert np.array_equal(weights(folder), weights(alone))


def test_too_few_sites_make_no_round(consortium, monkeypatch):
    consortium()
    say_hello("site-02")
    from flows import round as flow_round

    real = flow_round.run_round

    def watched(run, number, began):
        say_hello("site-02", ago=0 if number == 2 else 1000)
        return real(run, number, began)

    monkeypatch.setattr(flow_round, "run_round", watched)
    folder = full_run(overrides=[SITES, "runner.quorum=3"], register_model=False)
    first, second = folder.records()
    assert first["lost"] == "2 sites have sent something that counts, and runner.quorum is 3"
    assert second["sites"] == ["site-00", "site-01", "site-02"]


def test_a_plan_says_how_many_sites_have_to_be_there_and_how_long_each_is_waited_for(consortium):
    """What a person at a site reads before they approve it."""
    home = consortium()["site-00"].home
    few = [SITES, "runner.quorum=2", "runner.deadline=77"]
    folder = full_run(rounds=1, overrides=few, register_model=False)
    signer = CoordinatorHome.default().identity()
    plan = RunPlan.from_bytes(body_of(home.run(folder.run_id).plan_path, signer))
    assert (plan.quorum, plan.deadline) == (2, 77)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["runner.quorum=3"], "2 sites have sent something that counts, and runner.quorum is 3"),
        (["runner.min_cases=48"], "runner.min_cases is 48"),
        (["protection.name=packed_bfv", "compression.bits=8"], "protection.min_sites=3"),
        (["protection.name=secagg_plus", "compression.bits=8"], "protection.min_sites=3"),
    ],
    ids=["quorum", "cases", "packed_bfv", "secagg_plus"],
)
def test_a_site_of_which_nothing_counts_is_none_of_those_who_are_there_and_is_named(
    consortium, monkeypatch, settings, said
):
    """It says that it has done everything, and sends no payload."""
    consortium()
    real = site_flow._done

    def done(mine, asked):
        lies = (mine.home.name, asked.round, asked.stage) == ("site-01", 1, "protect_site")
        return None if lies else real(mine, asked)

    monkeypatch.setattr(site_flow, "_done", done)
    folder = full_run(overrides=[SITES, *settings], register_model=False)
    first, second = folder.records()
    assert first["sites"] == []
    assert said in first["lost"]
    assert list(first["dropped"]) == ["site-01"]
    assert "no message payload from site-01" in first["dropped"]["site-01"]
    assert second["sites"] == ["site-00", "site-01", "site-02"]


def test_a_coordinator_that_was_stopped_goes_on_to_the_same_model(consortium, known, monkeypatch):
    alone = known(2)
    parties = consortium()
    from flows import graph

    real = graph.checkpoint

    def dies(coordinator, number, record, wait_for):
        if number == 2:
            raise ConsiliumError("The power is gone.")
        return real(coordinator, number, record, wait_for=wait_for)

    monkeypatch.setattr(graph, "checkpoint", dies)
    with pytest.raises(ConsiliumError, match="power"):
        full_run(overrides=[SITES], register_model=False)
    monkeypatch.setattr(graph, "checkpoint", real)
    folder = full_run(resume="latest", register_model=False)
    assert np.array_equal(weights(folder), weights(alone))
    assert ended(folder, 1)
    assert ended(folder, 2)
    assert all("attempt 2: begun" in " ".join(party.said) for party in parties.values())


@pytest.mark.parametrize("settings", [[], ["evaluation.share=sums"]], ids=["statistics", "sums"])
def test_a_sum_stays_what_it_is_where_a_site_of_it_is_away_when_it_is_evaluated(
    consortium, monkeypatch, settings
):
    """The run was stopped between the two, and the site has left it since."""
    parties = consortium()
    from flows import graph

    with monkeypatch.context() as within:
        real = graph.write_summed

        def dies(path, summed, state, *, timed):
            real(path, summed, state, timed=timed)
            if summed.round_number == 2:
                raise ConsiliumError("The power is gone.")

        within.setattr(graph, "write_summed", dies)
        with pytest.raises(ConsiliumError, match="power"):
            full_run(rounds=3, overrides=[SITES, *settings], register_model=False)
    parties["site-02"].home.write_policy(
        PERMISSIVE.replace("experiments: any", "experiments: [another]")
    )
    folder = full_run(resume="latest", register_model=False)
    _, second, third = folder.records()
    assert second["sites"] == ["site-00", "site-01", "site-02"]
    assert second["metrics"]
    assert third["sites"] == ["site-00", "site-01"]


def test_a_round_is_lost_where_a_site_is_away_that_may_have_helped_to_its_sum_before(
    consortium, monkeypatch
):
    """No sum of the others is tried, with which they would have helped to two."""
    parties = consortium()
    say_hello("site-02")

    def dies(*_):
        raise ConsiliumError("The power is gone.")

    masked = [SITES, "protection.name=secagg_plus", "protection.min_sites=2", "compression.bits=8"]
    with monkeypatch.context() as within:
        within.setattr(secagg_relay, "unmask_sum", dies)
        with pytest.raises(ConsiliumError, match="power"):
            full_run(overrides=masked, register_model=False)
    from flows import round as flow_round

    real = flow_round.run_round

    def watched(run, number, began):
        say_hello("site-02", ago=0 if number == 2 else 1000)
        return real(run, number, began)

    monkeypatch.setattr(flow_round, "run_round", watched)
    folder = full_run(resume="latest", register_model=False)
    first, second = folder.records()
    assert first["sites"] == []
    assert "is opened of site-00, site-01, site-02 alone" in first["lost"]
    assert (second["sites"], second["lost"]) == (sorted(parties), None)


def test_a_paused_run_waits_between_two_rounds(consortium, project, monkeypatch):
    from flows import pausing
    from flows import round as flow_round

    monkeypatch.setattr(pausing, "LOOK", 0.01)
    consortium()
    real = flow_round.run_round
    began = {}

    def watched(run, number, clock):
        began[number] = clock.at
        given = [project / "runs", "tiny", run.folder.run_id]
        if number == 1:
            pausing.pause(*given)
        ended = real(run, number, clock)
        began[f"{number} ended"] = time.time()
        if number == 1:
            threading.Timer(0.5, pausing.unpause, given).start()
        return ended

    monkeypatch.setattr(flow_round, "run_round", watched)
    full_run(overrides=[SITES], register_model=False)
    # The time in which it waited for a person is in no round's.
    assert began[2] >= began["1 ended"] + 0.5


def test_a_person_approves_while_the_coordinator_waits(consortium, project):
    parties = consortium()
    home = parties["site-02"].home
    home.write_policy(PERMISSIVE.replace("approval: not-required", "approval: required"))

    def approve():
        while not list((home.root / "runs").glob("*/proposal.json")):
            time.sleep(0.01)
        (run_id,) = proposals(home)
        decide(home, run_id, "approved")

    person = threading.Thread(target=approve, daemon=True)
    person.start()
    folder = full_run(rounds=1, overrides=[SITES], register_model=False)
    person.join()
    assert read_json(folder.summary_path)["sites"] == sorted(parties)
    # Whoever runs the site reads it where they have started it.
    decides = f"`consilium site approve {folder.run_id}`"
    assert any(
        "waits for a decision" in said and decides in said for said in parties["site-02"].said
    )
    assert not any("waits for a decision" in said for said in parties["site-00"].said)


def test_whoever_runs_a_site_reads_why_it_takes_no_part(consortium):
    party = consortium()["site-02"]
    party.home.write_policy(PERMISSIVE.replace("max_rounds: 1000000000", "max_rounds: 1"))
    folder = full_run(rounds=2, overrides=[SITES], register_model=False)
    assert "site-02" not in folder.sites()
    (why,) = (said for said in party.said if "site-policy.yaml" in said)
    assert why.startswith(f"run {folder.run_id}: site-02 does not take part")
    assert "(max_rounds)" in why


def test_more_sites_than_a_run_can_wait_for_are_refused_in_words(project):
    home = CoordinatorHome.default()
    home.make_identity()
    names = [f"clinic-{number:04d}" for number in range(MOST_NAMES + 1)]
    who = [Identity(name, name.encode().ljust(32)).public for name in names]
    Enrolment().enrol(*who).write(home.members_path)
    experiment = load_experiment("tiny")
    with pytest.raises(ConsiliumError, match=r"1001 sites are enrolled.*at most 1000.*Suspend"):
        with_parties(experiment)
    Enrolment().enrol(*who[1:]).write(home.members_path)
    assert with_parties(experiment).sites.count == MOST_NAMES
