"""Rounds in which sites train in one call of a worker."""

from dataclasses import replace

import numpy as np
import pytest

import flows.graph
import flows.site_stages
from federated.errors import ConsiliumError
from federated.stages import local_train
from tests.flows.conftest import weights

pytestmark = pytest.mark.usefixtures("plainly")

# Kinks and signs of next to nothing, which rounding decides, move no value far by SGD.
OWN = ("training.optimizer=sgd", "training.lr=0.01", "runner.name=processes", "runner.workers=1")
STACKED = (*OWN, "runner.stacked_sites=2")
TOLD = ("sites", "dropped", "bytes", "unreported")


def near(found, expected):
    moved = np.linalg.norm(expected)
    return np.linalg.norm(found - expected) <= 1e-4 * moved


@pytest.mark.usefixtures("prefect_server")
def test_a_round_comes_to_the_weights_and_records_of_one_in_which_each_trains_alone(
    run, known, titles
):
    folder = run(rounds=2, overrides=STACKED)
    assert [title.partition("[")[2] for title in titles] == [
        f"{many} sites: {first}, …] round {number}"
        for number in (1, 2)
        for many, first in ((2, _largest(folder, 0)), (1, _largest(folder, 2)))
    ]
    alone = known(2, *OWN)
    assert near(weights(folder), weights(alone))
    for found, expected in zip(folder.records(), alone.records(), strict=True):
        assert {key: found[key] for key in TOLD} == {key: expected[key] for key in TOLD}
        for site, own in expected["per_site"].items():
            loss = found["per_site"][site]["train_loss"]
            assert loss == pytest.approx(own["train_loss"], rel=1e-4)
        seconds = found["seconds"]
        assert 0 <= seconds["idle"] <= seconds["total"]


def _largest(folder, place):
    """The site that is in this place by its training cases."""
    counts = folder.case_counts().sites
    return sorted(counts, key=lambda site: -counts[site]["train"])[place]


def test_any_number_of_workers_comes_to_the_very_weights(run, known):
    two = run(rounds=1, overrides=[*STACKED, "runner.workers=2"])
    np.testing.assert_array_equal(weights(two), weights(known(1, *STACKED)))


def test_sites_in_groups_train_in_one_call_too(run, known, titles, monkeypatch):
    monkeypatch.setattr(flows.site_stages, "MOST_RUNS", 1)
    monkeypatch.setattr(flows.site_stages, "GROUPS", 1)
    folder = run(rounds=1, overrides=STACKED)
    assert [title.partition(":")[0] for title in titles] == [
        "train and send[3 sites",
        "evaluate[3 sites",
    ]
    np.testing.assert_array_equal(weights(folder), weights(known(1, *STACKED)))


def test_masked_updates_of_sites_that_train_in_one_call_are_summed(run, known):
    masked = [*STACKED, "protection.name=secagg_plus", "compression.bits=16"]
    assert near(weights(run(rounds=1, overrides=masked)), weights(known(1, *STACKED)))


@pytest.mark.usefixtures("in_process")
def test_a_site_that_fails_drops_out_alone(run, monkeypatch):
    cases_of = local_train.site_cases

    def without_power(site, split):
        if site.name == "site-01" and split == "train":
            raise ConsiliumError("site-01 has no power.")
        return cases_of(site, split)

    def alone(call, round_number):
        raise ConsiliumError(f"{call.site} trains alone.")

    monkeypatch.setattr(local_train, "site_cases", without_power)
    stages = (alone, *flows.graph.TRAINING.stages[1:])
    monkeypatch.setattr(flows.graph, "TRAINING", replace(flows.graph.TRAINING, stages=stages))
    folder = run(rounds=1, overrides=[*STACKED, "sites.on_dropout=continue"])
    (record,) = folder.records()
    assert record["dropped"] == {"site-01": "site-01 has no power."}
    assert record["sites"] == ["site-00", "site-02"]
