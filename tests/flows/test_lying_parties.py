"""Parties of a consortium that lie, or fail: who is harmed, and who goes on."""

import json

import numpy as np
import pytest

from federated.exchange import kinds
from federated.exchange.message import Topic, sign
from federated.exchange.policy import PERMISSIVE
from federated.files import read_json
from federated.run.coordinator_home import CoordinatorHome
from flows import round as flow_round
from flows import site_flow
from flows.site_metrics import SiteMetrics
from tests.flows.conftest import full_run, weights
from tests.flows.killing import site_02_in_round_2

pytestmark = pytest.mark.usefixtures("prefect_server")
# On a busy machine too.
SITES = ("runner.name=sites", "runner.joining=900")


@pytest.fixture
def before_round(monkeypatch):
    """Has something done before rounds, by their numbers."""

    def do(**what):
        real = flow_round.run_round

        def watched(run, number, began):
            what.get(f"round_{number}", lambda run: None)(run)
            return real(run, number, began)

        monkeypatch.setattr(flow_round, "run_round", watched)

    return do


def post(run, sender, number, stage, arguments, round_number):
    """What a party puts into the exchange for site-00, as if it were asked something."""
    start = run.coordinator.start
    topic = Topic(start.consortium, start.run, start.attempt, round_number)
    body = json.dumps({"stage": stage, "arguments": arguments}).encode()
    exchange = run.coordinator.mailbox.exchange
    exchange.post(sign(sender, topic, f"{kinds.ASK}{number}", "site-00", body))


def test_what_is_asked_falsely_changes_nothing(consortium, known, before_round):
    alone = known(2)
    parties = consortium()

    def lie(run):
        coordinator, other = (
            CoordinatorHome.default().identity(),
            parties["site-01"].home.identity(),
        )
        post(run, other, 50, "train_site", [1], 1)
        post(run, coordinator, 60, "train_site", [1], 1)
        post(run, coordinator, 61, "train_site", [1], 0)
        post(run, coordinator, 62, "evaluate_site", [9], 0)
        post(run, coordinator, 63, "train_site", [10**15], 10**15)
        post(run, coordinator, "9" * 96, "train_site", [1], 1)
        post(run, coordinator, 65, "decrypt_site", [1, ["site-00"], "../../x"], 1)
        post(run, coordinator, 66, "os.system", ["rm"], 0)
        post(run, coordinator, 67, "vouch_site", ["a", "b", "c", "d", "e"], 0)

    before_round(round_2=lie)
    folder = full_run(overrides=[*SITES], register_model=False)
    # A round of a far future would make all of this one too late.
    told = parties["site-00"].home.audit.lines()
    reasons = [line["reason"] for line in told if line["event"] == "refused"]
    assert reasons.count("bad signature") == 1
    assert reasons.count("too much") == 1
    assert reasons.count("no ask") >= 4
    assert np.array_equal(weights(folder), weights(alone))


def test_a_plan_weaker_than_a_sites_policy_is_refused_by_name(consortium):
    parties = consortium()
    home = parties["site-02"].home
    home.write_policy(PERMISSIVE.replace("protections: any", "protections: [secagg_plus]"))
    folder = full_run(rounds=1, overrides=[*SITES], register_model=False)
    summary = read_json(folder.summary_path)
    assert summary["sites"] == ["site-00", "site-01"]
    assert "it does not allow plain as the protection" in summary["absent"]["site-02"]
    assert str(home.root) not in summary["absent"]["site-02"]
    (line,) = [x for x in home.audit.lines() if x["event"] == "does not take part"]
    assert "(protections)" in line["said"]
    assert not (home.run(folder.run_id).root / "memory").exists()


def test_a_site_drops_out_of_the_round_that_it_lies_or_fails_in(
    consortium, before_round, monkeypatch
):
    """It says done and sends nothing; its worker is killed; its data are gone; all is well."""
    parties = consortium()
    real, lying = site_flow._done, set()

    def done(mine, asked):
        if mine.home.name in lying and asked.round == 1 and asked.stage != "evaluate_site":
            return None
        return real(mine, asked)

    monkeypatch.setattr(site_flow, "_done", done)
    monkeypatch.setattr(site_flow, "run_and_report", site_02_in_round_2)
    data, elsewhere = parties["site-02"].data, parties["site-02"].data.with_name("elsewhere")

    def unplugged(_run):
        data.rename(elsewhere)
        # The worker that is there has read them already.
        service = parties["site-02"].service
        pool, service._pool = service._pool, None
        pool.shutdown(wait=False)

    def plugged_in(_run):
        elsewhere.rename(data)

    lying.add("site-01")
    before_round(round_3=unplugged, round_4=plugged_in)
    folder = full_run(rounds=4, overrides=[*SITES], register_model=False)
    first, second, third, fourth = folder.records()
    assert [record["sites"] for record in (first, second, third, fourth)] == [
        ["site-00", "site-02"],
        ["site-00", "site-01"],
        ["site-00", "site-01"],
        sorted(parties),
    ]
    assert "no message payload from site-01" in first["dropped"]["site-01"]
    assert "The worker of site-02 died" in second["dropped"]["site-02"]
    assert "could not finish its part" in third["dropped"]["site-02"]
    assert str(elsewhere.parent) not in third["dropped"]["site-02"]
    reason = parties["site-02"].home.run(folder.run_id).error_path.read_text()
    assert str(data) in reason
    # What it was asked along with a training that failed it has left out.
    counted = SiteMetrics(parties["site-02"].home).text().decode()
    assert 'outcome="failed",stage="local-train"} 2.0' in counted
    assert 'outcome="failed",stage="compress"' not in counted
    assert 'outcome="done",stage="compress"} 2.0' in counted
