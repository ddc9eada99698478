"""Runs of so many sites that several of them do their stages in one task run."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import flows.graph
import flows.site_stages
from federated.errors import ConsiliumError
from tests.flows.conftest import weights
from tests.flows.test_private_round import SITE as PRIVATE
from tests.flows.test_private_round import released

pytestmark = pytest.mark.usefixtures("plainly")


@pytest.fixture
def few(monkeypatch, titles):
    """Two groups as soon as there are two sites; returns the titles of their task runs."""
    monkeypatch.setattr(flows.site_stages, "MOST_RUNS", 1)
    monkeypatch.setattr(flows.site_stages, "GROUPS", 2)
    return titles


@pytest.mark.usefixtures("prefect_server")
def test_groups_come_to_the_very_weights_and_records_of_sites_of_their_own(
    run, known, few, monkeypatch
):
    folder = run(rounds=1)
    assert len(few) == 4
    assert few[0].startswith("train and send[2 sites: ")
    assert few[3].startswith("evaluate[1 sites: ")
    monkeypatch.setattr(flows.site_stages, "MOST_RUNS", 50)
    alone = known(1)
    np.testing.assert_array_equal(weights(folder), weights(alone))
    (grouped,), (single,) = folder.records(), alone.records()
    told = ("sites", "dropped", "metrics", "per_site", "bytes", "unreported")
    assert {key: grouped[key] for key in told} == {key: single[key] for key in told}


def test_groups_open_a_masked_sum(run, known, few, monkeypatch):
    levels = ["compression.bits=8"]
    secagg = ["protection.name=secagg_plus", "runner.name=processes", "runner.workers=2"]
    masked = run(rounds=1, overrides=[*levels, *secagg])
    assert {title.split("[")[0] for title in few} == {
        "advertise", "share", "train and send", "agree", "answer", "evaluate",
    }  # fmt: skip
    monkeypatch.setattr(flows.site_stages, "MOST_RUNS", 50)
    np.testing.assert_array_equal(weights(masked), weights(known(1, *levels)))


@pytest.fixture
def without_power(monkeypatch, in_process):
    """Protecting fails at site-01."""
    train, compress, protect = flows.graph.TRAINING.stages

    def fails(call, *given):
        if call.site == "site-01":
            raise ConsiliumError("site-01 has no power.")
        protect(call, *given)

    changed = replace(flows.graph.TRAINING, stages=(train, compress, fails))
    monkeypatch.setattr(flows.graph, "TRAINING", changed)


@pytest.mark.usefixtures("few", "without_power")
def test_of_a_group_only_the_site_that_fails_drops_out(run):
    folder = run(rounds=1, overrides=["sites.on_dropout=continue"])
    (record,) = folder.records()
    assert record["dropped"] == {"site-01": "site-01 has no power."}
    assert record["sites"] == ["site-00", "site-02"]


@pytest.mark.usefixtures("few", "without_power")
def test_a_site_of_a_group_that_fails_stops_the_run_unless_told_otherwise(run):
    with pytest.raises(ConsiliumError, match="site-01 has no power"):
        run(rounds=1)


class Power(BaseException):
    """The machine stops: nothing that comes after is done, and nobody is told."""


@pytest.fixture
def power_cut(monkeypatch, in_process):
    """Once, the machine stops at site-02 in round 2, when its group has done the first site.

    It is told before which stage that is; the first one of a group is site-00's.
    """

    def cut(module, name, number):
        does, stopped = getattr(module, name), []
        stage = does.stages[number]

        def stops(call, *given):
            if (call.site, given[0]) == ("site-02", 2) and not stopped:
                stopped.append(call.site)
                raise Power
            stage(call, *given)

        stages = (*does.stages[:number], stops, *does.stages[number + 1 :])
        monkeypatch.setattr(module, name, replace(does, stages=stages))
        return stopped

    return cut


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("where", "stage"),
    [("TRAINING", 0), ("TRAINING", 1), ("TRAINING", 2), ("EVALUATING", 0)],
    ids=["before training", "before compressing", "before sending", "before evaluating"],
)
def test_a_run_that_stops_within_a_group_goes_on_to_the_very_weights(
    run, known, power_cut, where, stage
):
    seeded = [*PRIVATE, "privacy.noise=seeded"]
    whole = known(2, *seeded)
    stopped = power_cut(flows.graph, where, stage)
    with pytest.raises(Power):
        run(rounds=2, overrides=seeded, runs="stopped")
    assert stopped == ["site-02"]
    folder = run(resume="latest", runs="stopped")
    np.testing.assert_array_equal(weights(folder), weights(whole))
    # Before the cut site-00 has entered its release of round 2, and it is sent again as it was.
    for site in folder.sites():
        entered = Counter(entry.round_number for entry in released(site, folder.run_id))
        assert entered == {1: 1, 2: 1}
    told = ("sites", "dropped", "metrics", "bytes", "unreported")
    assert [{key: record[key] for key in told} for record in folder.records()] == [
        {key: record[key] for key in told} for record in whole.records()
    ]
