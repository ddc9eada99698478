"""Rounds after which the model predicts no numbers, and rounds whose sum no training gives."""

import dataclasses
from collections.abc import Callable, Collection

import numpy as np
import pytest

import federated.stages.evaluate
import tasks.aggregate
from federated.errors import ConsiliumError
from federated.files import read_json
from federated.learning.evaluation import PREDICTS_NONE
from federated.run.update_files import read_payload, read_state, write_payload
from federated.stages.aggregate import add_payloads
from federated.stages.evaluate import NoNumbersError

pytestmark = pytest.mark.usefixtures("prefect_server", "in_process")


SITES = ["site-00", "site-01", "site-02"]
SUMS = [
    *("evaluation.share=sums", "compression.bits=8", "protection.name=secagg_plus"),
    *("runner.name=processes", "runner.workers=1"),
]


@pytest.fixture
def numberless(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the model of some rounds predict no numbers at some sites."""
    predicted = federated.stages.evaluate._predicted

    def spoil(rounds: Collection[int], sites: Collection[str] = SITES) -> None:
        def predict(site, round_number, state):
            if round_number in rounds and site.name in sites:
                raise NoNumbersError("it predicts none")
            return predicted(site, round_number, state)

        monkeypatch.setattr(federated.stages.evaluate, "_predicted", predict)

    return spoil


@pytest.mark.parametrize("settings", [[], SUMS], ids=["statistics", "sums"])
def test_a_model_that_predicts_no_numbers_ends_no_run_and_is_not_kept(run, numberless, settings):
    numberless([2])
    folder = run(rounds=2, overrides=[*settings, "selection.keep=last"])
    first, second = folder.records()
    assert first["metrics"]["val"]["accuracy"] is not None
    assert second["metrics"] == {}
    assert second["not_evaluated"] == dict.fromkeys(SITES, PREDICTS_NONE)
    assert read_json(folder.summary_path)["kept_round"] == 1


def test_a_site_that_says_so_falsely_is_in_no_sum_and_spoils_it_for_nobody(run, numberless):
    numberless([1], ["site-01"])
    settings = [*SUMS, "protection.min_sites=2", "protection.corrupted=0", "protection.dropout=0.3"]
    folder = run(rounds=1, overrides=settings)
    (record,) = folder.records()
    assert record["metrics"]["val"]["accuracy"] is not None
    assert record["not_evaluated"] == {"site-01": PREDICTS_NONE}


def test_a_run_of_which_no_model_predicts_numbers_ends_with_an_error_that_says_why(run, numberless):
    numberless([1])
    with pytest.raises(ConsiliumError, match=r"After no round .*training diverged.*training\.lr"):
        run(rounds=1)


def test_a_round_whose_sum_no_training_gives_is_lost_and_the_next_starts_from_the_same_model(
    run, monkeypatch
):
    """Whatever made it so, here where the coordinator has added what was masked or in the clear."""

    def add(coordinator, topic, *others):
        added = add_payloads(coordinator, topic, *others)
        path = coordinator.folder.sum_path(topic.round)
        if topic.round == 1:
            total = read_payload(path)
            numbers = np.full(total.length, 1e30, np.float32)
            write_payload(path, dataclasses.replace(total, body=numbers.view(np.uint8)))
        return added

    monkeypatch.setattr(tasks.aggregate, "add_payloads", add)
    folder = run(rounds=2)
    first, second = folder.records()
    assert "no training gives more than" in first["lost"]
    assert (second["sites"], second["lost"]) == (SITES, None)
    lost, summed = (read_state(folder.state_path(number)).weights for number in (1, 2))
    assert np.abs(lost).max() < 10
    assert (lost != summed).any()
