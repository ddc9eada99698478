"""What leaves a site when a model is evaluated there, and what the ledger says of it."""

import numpy as np
import pytest
from safetensors.numpy import load

from federated.configuration.description_file import find_description
from federated.exchange import kinds
from federated.learning import task_of
from federated.learning.statistics import CASES
from federated.privacy.spending import EVALUATIONS
from federated.site.holder import holder_ledger
from federated.stages.coordinator import ask_evaluation
from federated.stages.evaluate import evaluate, evaluate_site, read_shared
from federated.stages.worker import site_cases, worker_context
from tests.described_sets import PICTURES, describe, picture_set, write_table
from tests.federated.staged_run import begin, leave_model, small_experiment, small_images

SHARES = ("predictions", "statistics", "metrics")


@pytest.fixture
def start(tmp_path):
    data = small_images(tmp_path)

    def begun(name="run", **evaluation):
        run = begin(small_experiment(data, evaluation=evaluation), tmp_path / name)
        leave_model(run, 1)
        return run

    return begun


def message_of(run, site):
    """What a site sends where it is asked to evaluate the initial model."""
    topic = ask_evaluation(run.coordinator, 1, [])
    evaluate_site(run.call(site), 1)
    most = kinds.MOST_EVALUATION
    return run.coordinator.mailbox.receive(topic, kinds.EVALUATION, site, most)


def sent_by(run, site):
    return load(message_of(run, site).body)


def shared_by(run, site):
    return read_shared(message_of(run, site).body, site)


def evaluated(run):
    """The metrics of the initial model over all sites."""
    topic = ask_evaluation(run.coordinator, 1, [])
    for site in run.sites:
        evaluate_site(run.call(site), 1)
    info = worker_context(run.site(run.sites[0])).info
    return evaluate(run.coordinator, topic, run.sites, info)


@pytest.mark.parametrize("share", SHARES)
def test_the_ledger_says_what_was_shared_of_which_cases(start, share):
    run = start(share=share)
    sent_by(run, "site-00")
    ledger = holder_ledger(run.experiment)
    (entry,) = ledger.spendings()
    assert entry.mechanism == EVALUATIONS[share]
    assert (share in entry.mechanism) == (share != "predictions")
    assert entry.noise_multiplier == 0
    site = run.site("site-00")
    told = {r for split in ("val", "test") for r in site_cases(site, split).records}
    assert ledger.sets.read(entry.records) == told == ledger.evaluated_only()


def test_labels_and_probabilities_leave_a_site_with_predictions_alone(start):
    for share in SHARES:
        run = start(share, share=share)
        sent = sent_by(run, "site-00")
        names = {name.partition(".")[2] for name in sent}
        assert ({"labels", "probabilities"} <= names) == (share == "predictions")
        # Nor do they lie anywhere else in the run's folder, or in the site's home.
        written = [p.name for p in run.folder.root.rglob("*") if "predictions" in p.name]
        assert written == []
        if share != "predictions":
            count = len(site_cases(run.site("site-00"), "test"))
            assert sent[f"test.{CASES}"] == count == 5
            assert not any(count in array.shape for array in sent.values())


def test_what_is_sent_as_statistics_is_as_large_at_every_site(start):
    run = start()
    assert len({message_of(run, site).size for site in run.sites}) == 1


def test_metrics_are_the_same_whatever_is_shared_as_far_as_they_are_there(start):
    found = {}
    for share in SHARES:
        found[share] = evaluated(start(share, share=share))
    exact = found["predictions"].overall["test"]
    for share in SHARES:
        for name, value in found[share].overall["test"].items():
            if name == "auc" and share == "statistics":
                # The network was not trained, so some scores share a bin.
                low, high = found[share].intervals["test"]["auc"]
                assert low <= exact[name] <= high
                assert value == pytest.approx((low + high) / 2)
            elif value is not None:
                assert value == pytest.approx(exact[name], abs=1e-9)
    there = {
        share: {n for n, v in found[share].overall["test"].items() if v is not None}
        for share in SHARES
    }
    assert there["statistics"] == there["predictions"] == set(exact)
    assert there["metrics"] == {"accuracy", "loss"}


@pytest.mark.parametrize("protection", ["secagg_plus", "packed_bfv"])
def test_no_protection_hides_a_sites_statistics(tmp_path, protection):
    """The coordinator reads those of each site, as it reads predictions."""
    sections = {
        "protection": {"name": protection, "min_sites": 2},
        "compression": {"name": "none", "bits": 16},
    }
    run = begin(small_experiment(small_images(tmp_path), **sections), tmp_path / "run")
    leave_model(run, 1)
    assert shared_by(run, "site-00")["test"]["confusion"].sum() == 5
    assert run.experiment.evaluation.share == "statistics"


def test_a_small_site_sends_how_many_cases_it_has_and_nothing_more(start):
    run = start(min_count=6)
    assert {name: int(value[0]) for name, value in sent_by(run, "site-00").items()} == {
        "val.cases": 2,
        "test.cases": 5,
    }
    found = evaluated(run)
    assert set(found.overall["val"].values()) == {None}
    assert found.confusion == {}


def test_what_a_site_predicts_is_what_its_statistics_are_of(start):
    exact = shared_by(start("p", share="predictions"), "site-01")["test"]
    statistics = start("s")
    told = shared_by(statistics, "site-01")["test"]
    info = worker_context(statistics.site("site-01")).info
    for name, value in task_of(info).statistics.of(exact, info).arrays.items():
        np.testing.assert_allclose(told[name], value, rtol=1e-12)


@pytest.mark.parametrize("protection", ["plain", "packed_bfv", "secagg_plus"])
def test_of_a_segmentation_sums_are_sent_and_no_case_and_no_mask(tmp_path, protection):
    """Dice and distances of cases, and which are of one patient, go with predictions alone."""
    folder = tmp_path / "data" / "mine"
    rows = picture_set(folder, 48)
    for row in rows:
        del row["label"]
    write_table(folder, rows)
    describe(folder, PICTURES)
    sections = {
        "data": {
            "dataset": "mine",
            "source": "files",
            "root": str(folder.parent),
            "described": find_description("mine", folder.parent),
        },
        "sites": {"count": 3, "partition": "iid", "min_cases": 1},
        "model": {"name": "unet", "width": 8},
        "selection": {"metric": "val/dice"},
        "protection": {"name": protection},
        "compression": {"name": "none", "bits": 8},
    }
    run = begin(small_experiment(folder.parent, **sections), tmp_path / "runs")
    leave_model(run, 1)
    messages = [message_of(run, site) for site in run.sites]
    assert len({message.size for message in messages}) == 1
    site = run.site(run.sites[0])
    info = worker_context(site).info
    form = task_of(info).statistics.form(info)
    assert load(messages[0].body).keys() == {f"{s}.{n}" for s in ("val", "test") for n in form}
    for split in ("val", "test"):
        cases = site_cases(site, split)
        count = len(cases)
        sent = {n: a for n, a in load(messages[0].body).items() if n.startswith(split)}
        assert sent[f"{split}.{CASES}"] == count
        assert {n: a.shape for n, a in sent.items()} == {
            f"{split}.{n}": part.shape for n, part in form.items()
        }
