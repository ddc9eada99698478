"""Whatever leaves a site is entered first, and no change of the data's files or dealing opens a
ledger without the history and the budget of its records."""

import json
import os
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml

from federated.configuration.load import load_experiment
from federated.data.folders.families import FAMILIES
from federated.data.folders.phantom import write_phantom
from federated.data.load import load, locate
from federated.data.partition import Partition, leave_out
from federated.data.partitioning import partition_dataset
from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.exchange.folder import EVERYONE, Place
from federated.exchange.identity import COORDINATOR
from federated.exchange.policy_checks import refuse_beyond_epsilon
from federated.files import read_json, write_json
from federated.inference.evaluation import evaluate_file
from federated.privacy.accounting import Release, epsilon
from federated.privacy.ledger import Budget, ledger_root
from federated.privacy.patients import most_of_one
from federated.privacy.spending import EVALUATIONS, NO_MECHANISM
from federated.rounds.participation import POOLED
from federated.run.folder import RunFolder
from federated.run.runs import new_run
from federated.site.holder import held_cases, holder_ledger
from federated.stages.coordinator import ask_evaluation, begin_round
from federated.stages.entering import numbers_kept, training_records
from federated.stages.evaluate import evaluate_site
from federated.stages.join import join_site, joining_experiment, offer
from federated.stages.local_train import train_site
from federated.stages.privacy_report import report_site, summarise_privacy
from federated.stages.share_style import share_style
from federated.stages.worker import held_cases as worker_cases
from federated.weights.build import model_header, new_model
from federated.weights.model_file import save_model
from tests.conftest import PROJECT, TINY_PARAMS, tiny_pictures
from tests.federated.staged_run import begin_with, leave_model

DP = {"name": "dp_sgd", "noise_multiplier": 1.0, "delta": 1e-3}


@pytest.fixture
def begin(tmp_path, write_npz, monkeypatch):
    """Runs of a tiny experiment up to their first round, without Prefect."""
    write_npz()
    monkeypatch.chdir(tmp_path)
    document = json.loads(json.dumps(TINY_PARAMS))
    document["defaults"] |= {"model": {"name": "shallow_cnn"}}
    document["defaults"]["sites"] = {"count": 3, "partition": "iid", "min_cases": 2}
    document["defaults"]["training"] |= {"augment": "none", "optimizer": "sgd", "momentum": 0}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))

    def start(privacy=DP, *overrides, dropped=None):
        items = ["strategy={name: fedavg}", f"privacy={json.dumps(privacy)}", *overrides]
        experiment = load_experiment("tiny", items)
        folder = new_run(Path("runs"), experiment)
        located = locate(experiment.data)
        dataset = load(located, experiment.data)
        partition = leave_out(
            partition_dataset(dataset, experiment.sites, experiment.seed), dropped or {}
        )
        return begin_with(folder, experiment, located, dataset, partition)

    return start


NONE = {"name": "none"}


@contextmanager
def refused_by_budget(home):
    """Expect that a site refuses by its budget: what it has spent stands in its own log alone."""
    with pytest.raises(RefusalError, match="has a privacy budget of") as caught:
        yield
    assert "is spent;" not in str(caught.value)
    assert not caught.value.kept
    line = home.audit.lines()[-1]
    assert (line["event"], line["reason"]) == ("refused", "privacy budget")
    assert "would make it inf" in line["said"]


def train(run, site="site-00"):
    begin_round(run.coordinator, 1)
    train_site(run.call(site), 1)


def evaluate_start(run, site="site-00"):
    leave_model(run, 1)
    ask_evaluation(run.coordinator, 1, [])
    evaluate_site(run.call(site), 1)


def told(run, kind, site, recipient=COORDINATOR, number=0):
    """The messages of a kind of a site in a round; 0 for before the first."""
    start = run.coordinator.start
    place = Place(start.run, number, start.attempt, recipient, kind, site)
    return run.coordinator.mailbox.exchange.find(place)


def ledger_of(run):
    return holder_ledger(run.experiment)


def training_records_of(run, site):
    return training_records(run.site(site))


def worst(run, site="site-00"):
    records = training_records_of(run, site)
    return ledger_of(run).histories(records, "record").worst(1e-3, "rdp")


def entered(run, mechanism):
    found = ledger_of(run).spendings(run.folder.run_id)
    return [entry for entry in found if entry.mechanism == mechanism]


def test_a_run_without_privacy_is_entered_and_refused_under_a_budget(begin):
    run = begin(NONE)
    train(run)
    (entry,) = entered(run, NO_MECHANISM)
    assert (entry.site, entry.round_number, entry.noise_multiplier) == ("site-00", 1, 0)
    assert worst(run) == float("inf")
    # And so is a private one from then on.
    ledger_of(run).set_budget(Budget("record", 8.0, 1e-3))
    for privacy in (NONE, DP):
        other = begin(privacy)
        with refused_by_budget(other.home("site-00")):
            train(other)
        assert not other.store("site-00").work_path(1, "update").exists()
        assert not ledger_of(other).spendings(other.folder.run_id)


def test_pooled_cases_are_the_records_of_all_sites(begin):
    run = begin(NONE, "strategy={name: central}")
    train(run, POOLED)
    (entry,) = entered(run, NO_MECHANISM)
    everyone = [r for site in run.sites for r in training_records_of(run, site)]
    assert ledger_of(run).sets.read(entry.records) == set(everyone)
    ledger_of(run).set_budget(Budget("record", 8.0, 1e-3))
    with pytest.raises(ConsiliumError, match="privacy budget"):
        train(run, POOLED)


def _other_container(root):
    path = root / "data" / "medmnist" / "bloodmnist.npz"
    arrays = dict(np.load(path))
    np.savez_compressed(path, **arrays)


def _other_test_image(root):
    path = root / "data" / "medmnist" / "bloodmnist.npz"
    arrays = dict(np.load(path))
    arrays["test_images"][0, 0, 0, 0] ^= 1
    np.savez(path, **arrays)


def _one_case_more(root):
    path = root / "data" / "medmnist" / "bloodmnist.npz"
    arrays, more = dict(np.load(path)), tiny_pictures(seed=9)
    for name in ("train_images", "train_labels"):
        arrays[name] = np.concatenate([arrays[name], more[name][:2]])
    np.savez(path, **arrays)


CHANGES = {
    "another seed": (None, ["seed=1"]),
    "another number of sites": (None, ["sites.count=4"]),
    "another partition": (None, ["sites.partition=dirichlet"]),
    "sites of other sizes": (None, ["sites.partition=quantity"]),
    "scanner profiles": (None, ["sites.scanner_shift=true"]),
    "the same file zipped anew": (_other_container, []),
    "another test image": (_other_test_image, []),
    "two cases more": (_one_case_more, []),
}


@pytest.mark.parametrize("change", CHANGES)
def test_history_and_budget_stay_with_the_records(begin, tmp_path, change):
    first = begin()
    for site in first.sites:
        train(first, site)
    used = worst(first)
    ledger_of(first).set_budget(Budget("record", 0.5 * used, 1e-3))
    happened, overrides = CHANGES[change]
    if happened:
        happened(tmp_path)
    other = begin(DP, *overrides)
    for site in other.sites:
        assert worst(other, site) >= 0.999 * used
        with pytest.raises(ConsiliumError, match="privacy budget"):
            train(other, site)


def test_images_of_another_size_are_other_records(begin):
    """They may be of the same patients: nobody can tell that from the values."""
    run = begin()
    train(run)
    assert ledger_of(run).histories(["of another size"], "record").worst(1e-3, "rdp") == 0


def test_a_case_that_validation_drops_changes_nothing_for_the_others(begin):
    first = begin()
    train(first)
    used, experiment = worst(first), first.experiment
    held = held_cases(experiment, load(locate(experiment.data), experiment.data))
    # As the command line does it.
    ledger_of(first).set_budget(
        Budget("record", 0.5 * used, 1e-3), held.records(["site-00"], "train")
    )
    case = first.store("site-00").data()[1]["site-00"]["train"][0]
    other = begin(dropped={"site-00": {"train": [case]}})
    assert len(training_records_of(other, "site-00")) == len(held.records(["site-00"], "train")) - 1
    assert worst(other) == used
    with pytest.raises(ConsiliumError, match="privacy budget"):
        train(other)


def test_the_ledger_lies_in_the_home_whatever_the_working_directory(
    begin, tmp_path, consilium_home
):
    run = begin()
    train(run)
    assert ledger_root() == consilium_home.resolve() / "ledger"
    os.chdir("/")
    assert ledger_root() == consilium_home.resolve() / "ledger"


def test_what_is_told_of_cases_is_entered_and_under_a_budget_of_untrained_ones_alone(begin):
    run = begin()
    ledger_of(run).set_budget(Budget("record", 100.0, 1e-3))
    train(run)
    evaluate_start(run)
    (entry,) = entered(run, EVALUATIONS["statistics"])
    cases = worker_cases(run.site("site-00"))
    shown = {*cases.records(["site-00"], "val"), *cases.records(["site-00"], "test")}
    assert ledger_of(run).sets.read(entry.records) == shown
    assert ledger_of(run).evaluated_only() == shown
    assert worst(run) < float("inf")
    (message,) = told(run, kinds.EVALUATION, "site-00", number=1)
    message.unlink()
    ledger_of(run).set_budget(Budget("record", 100.0, 1e-3, evaluation="refuse"))
    with pytest.raises(ConsiliumError, match="refuses that any case is evaluated"):
        evaluate_start(run)
    assert not told(run, kinds.EVALUATION, "site-00", number=1)
    # A run that evaluates is not begun.
    with pytest.raises(ConsiliumError, match="refuses that any case is evaluated"):
        begin()


def test_scores_of_a_model_file_are_entered(begin, tmp_path):
    run = begin(NONE)
    experiment = run.experiment
    located = locate(experiment.data)
    dataset = load(located, experiment.data)
    dealt = partition_dataset(dataset, experiment.sites, experiment.seed)
    header = model_header(experiment, dataset.info, located.source)
    model = tmp_path / "model.safetensors"
    save_model(model, new_model(experiment, dataset.info), header, {})
    evaluate_file(experiment, dataset, dealt, (), model)
    found = ledger_of(run).spendings()
    told = EVALUATIONS["statistics"]
    assert [(e.site, e.mechanism) for e in found] == [(s, told) for s in run.sites]


RESFIM = ["strategy={name: resfim}"]
NOISED = ["strategy={name: resfim, style_noise: {clip: 10, noise_multiplier: 4}}"]


@pytest.mark.parametrize(("overrides", "noise"), [(RESFIM, 0.0), (NOISED, 4.0)])
def test_styles_are_entered_with_noise_and_without(begin, overrides, noise):
    run = begin(NONE, *overrides)
    share_style(run.call("site-00"))
    (entry,) = ledger_of(run).spendings()
    assert (entry.round_number, entry.noise_multiplier) == (0, noise)
    assert worst(run) == (epsilon([entry.release], 1e-3, "rdp") if noise else float("inf"))
    ledger_of(run).set_budget(Budget("record", 0.01, 1e-3))
    with pytest.raises(ConsiliumError, match="privacy budget"):
        share_style(run.call("site-01"))
    assert told(run, kinds.STYLE, "site-00", EVERYONE)
    assert not told(run, kinds.STYLE, "site-01", EVERYONE)


def test_what_a_run_would_spend_beyond_the_policy_stands_in_the_sites_log_alone(begin):
    site = begin().site("site-00")
    permissive = site.home.policy_path.read_text()
    site.home.write_policy(permissive.replace("max_epsilon: unbounded", "max_epsilon: 1.25"))
    releases = [Release(1.0, 0.5, 10)] * 50
    refused = pytest.raises(RefusalError, match=r"larger than is allowed, by line \d+ of")
    with refused as caught, numbers_kept(site):
        refuse_beyond_epsilon(site.home.policy(), site.name, releases, 1e-3)
    line = site.home.audit.lines()[-1]
    assert (line["event"], line["reason"]) == ("refused", "privacy budget")
    (number,) = re.findall(r"would be ([0-9.]+);", line["said"])
    assert f"{epsilon(releases, 1e-3, 'rdp'):.3g}" == number
    assert number not in str(caught.value)
    assert not caught.value.kept


def test_a_site_that_joins_is_entered_before_it_trains(begin):
    federation = begin(NONE)
    write_json(federation.folder.summary_path, {})
    folder = RunFolder(federation.folder.root / "joined" / "clinic")
    experiment = joining_experiment(federation.folder, "clinic", Path("data"))
    located = locate(experiment.data)
    dataset = load(located, experiment.data)
    (cases,) = partition_dataset(dataset, experiment.sites, experiment.seed).sites.values()
    clinic = begin_with(folder, experiment, located, dataset, Partition({"clinic": cases}, 1, 0))
    offer(clinic.coordinator, federation.folder, "clinic")
    ledger_of(federation).set_budget(Budget("record", 8.0, 1e-3))
    with refused_by_budget(clinic.home("clinic")):
        join_site(clinic.call("clinic"), 1)
    assert not ledger_of(federation).spendings()
    assert not clinic.store("clinic").memory_paths()


def test_the_summary_of_a_run_without_privacy_says_what_the_ledger_has(begin):
    run = begin(NONE)
    train(run)
    report = report_site(run.call("site-00"))
    assert [entry["mechanism"] for entry in report["releases"]] == [NO_MECHANISM]
    assert report["head"]["count"] == 1
    said = summarise_privacy(run.experiment, {"site-00": report})
    assert (said["name"], said["mechanism"]) == ("none", NO_MECHANISM)
    assert "no guarantee" in said["guarantee"]
    assert said["epsilon"] is None
    assert said["epsilon_ledger"] is None


def test_noise_from_the_seed_bounds_nothing_in_the_ledger(begin):
    run = begin({**DP, "noise": "seeded"})
    train(run)
    assert worst(run) == float("inf")
    report = report_site(run.call("site-00"))
    assert report["epsilon"] > 0  # of the simulation
    assert report["epsilon_ledger"] is None
    ledger_of(run).set_budget(Budget("record", 1e6, 1e-3))
    with refused_by_budget(run.home("site-01")):
        train(run, "site-01")


def test_epsilon_of_the_ledger_is_that_of_the_worst_record(begin):
    first = begin()
    train(first)
    other = begin(DP, "seed=1")
    own = {*training_records_of(other, "site-01")} & {*training_records_of(first, "site-00")}
    assert own
    train(other, "site-01")
    report = report_site(other.call("site-01"))
    both = [entry.release for entry in ledger_of(other).spendings()]
    assert report["epsilon_ledger"] == epsilon(both, 1e-3, "prv")
    assert report["epsilon_ledger"] > report["epsilon"]
    assert report["cases_of_one_patient"] is None
    # MedMNIST has no patients.
    (warning,) = read_json(other.folder.privacy_path)["site-01"]["warnings"]
    assert "does not say which cases are of one patient" in warning


def test_the_patients_of_a_folder_are_known(tmp_path):
    write_phantom(FAMILIES["retina"], tmp_path / "retina", 24, seed=0, shape=(100, 100))
    experiment = load_experiment("retina", [f"data.root={tmp_path}"], PROJECT / "params.yaml")
    cases = held_cases(experiment, load(locate(experiment.data), experiment.data))
    most = [most_of_one(cases.patients(site, "train")) for site in cases.partition.sites]
    assert sorted(most) == [1, 2]  # both eyes of a patient, in one of the two sets
    for site in cases.partition.sites:
        assert len(cases.patients(site, "train")) == len(cases.records([site], "train"))
