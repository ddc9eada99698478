"""A run of each task on phantoms, by the stages themselves: from images to a model and a table."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

from federated.configuration.load import resolve
from federated.data.load import load, locate
from federated.data.medmnist.files import dataset_info
from federated.data.medmnist.phantom import generate
from federated.errors import ConsiliumError
from federated.inference.prediction import predict_files
from federated.learning import TASKS
from federated.rounds.statistics import groups_of
from federated.stages.coordinator import ask_evaluation
from federated.stages.evaluate import evaluate, evaluate_site
from federated.stages.worker import worker_context
from federated.training.objective import Objective, gradients_of_cases
from federated.update import Layout
from federated.weights.build import model_header, new_model
from federated.weights.model_file import ModelHeader, load_model, read_header, save_model
from tests.federated.staged_run import begin, leave_model, play_round, read_state
from tests.federated.stages.counting import begin_with_experiment, counted
from tests.federated.stages.summing import summed

CASES = {"train": 96, "val": 24, "test": 36}
SETS = {"multilabel": "chestmnist", "regression": "retinamnist"}
SECAGG = {
    "protection": {"name": "secagg_plus", "min_sites": 2},
    "compression": {"name": "none", "bits": 16},
}
DP = {"privacy": {"name": "dp_sgd", "clip": 1.0, "noise_multiplier": 0.5}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A few generated cases of each set, where the published files would lie."""
    root = tmp_path_factory.mktemp("data")
    (root / "medmnist").mkdir()
    for name in SETS.values():
        info = replace(dataset_info(name), cases=CASES)
        np.savez(root / "medmnist" / f"{name}.npz", **generate(info, 28, 0))
    return root


def experiment_of(data, task, **sections):
    value = {
        "rounds": 3,
        "data": {"dataset": SETS[task], "source": "files", "root": str(data)},
        "sites": {"count": 2, "partition": "dirichlet", "beta": 1.0, "min_cases": 20},
        "training": {"lr": 3e-3, "batch_size": 8, "local_epochs": 3, "device": "cpu"},
        "selection": {"metric": f"val/{TASKS[task].primary_metric}"},
        "compression": {"name": "none"},
        "protection": {"name": "plain"},
        "privacy": {"name": "none"},
        "strategy": {"name": "fedavg"},
        "runner": {"name": "processes"},
    }
    return resolve("small", value | sections, "a test")


def evaluated(run, round_number):
    topic = ask_evaluation(run.coordinator, round_number, [])
    for site in run.sites:
        evaluate_site(run.call(site), round_number)
    info = worker_context(run.site(run.sites[0])).info
    return evaluate(run.coordinator, topic, run.sites, info)


@pytest.mark.parametrize("task", SETS)
def test_a_federation_learns_and_its_model_predicts_files(data, tmp_path, task):
    experiment = experiment_of(data, task)
    run = begin(experiment, tmp_path / "runs")
    play_round(run, 1)
    before = evaluated(run, 1).overall["test"]
    for number in (2, 3):
        play_round(run, number)
    after = evaluated(run, 3)
    assert after.overall["test"]["loss"] < before["loss"]
    primary = TASKS[task].primary_metric
    # A phantom's number is its size and brightness; its labels are bodies that overlap.
    least = {"multilabel": 0.5, "regression": 0.3}[task]
    assert after.overall["test"][primary] > least
    assert set(after.site_spread["test"]) == set(TASKS[task].metrics_in("site_spread"))

    info = dataset_info(SETS[task])
    model, state = new_model(experiment, info), read_state(run.folder.state_path(3))
    Layout.of(model).load(model, state.weights)
    path = tmp_path / "model.safetensors"
    save_model(path, model, model_header(experiment, info, "phantom"))
    assert read_header(path).goal() == task
    table, _ = predict_files(path, [data / "medmnist" / f"{info.name}.npz"], tmp_path / "out")
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(CASES.values())
    assert list(rows[0]) == ["file", "array", "index", *info.classes]
    values = np.array([[float(row[name]) for name in info.classes] for row in rows])
    if task == "regression":
        assert table.name == "numbers.csv"
        assert values.min() >= 0
        assert values.max() <= 4
        assert np.ptp(values) > 0.5
    else:
        assert table.name == "probabilities.csv"
        assert ((values > 0) & (values < 1)).all()
        # They do not exclude one another.
        assert not np.allclose(values.sum(axis=1), 1, atol=0.05)


@pytest.mark.parametrize("task", SETS)
@pytest.mark.parametrize("sections", [SECAGG, DP], ids=["secagg", "dp"])
def test_a_round_is_protected_and_private_as_any_other(data, tmp_path, task, sections):
    run = begin(experiment_of(data, task, **sections), tmp_path / "runs")
    before = read_state(run.folder.state_path(0)).weights
    play_round(run, 1)
    after = read_state(run.folder.state_path(1)).weights
    assert np.isfinite(after).all()
    assert not np.array_equal(before, after)


@pytest.mark.parametrize("task", SETS)
def test_a_sum_over_sites_gives_the_metrics_of_their_statistics_and_of_no_site_any(
    data, tmp_path, task
):
    sites = {"sites": {"count": 3, "partition": "iid", "min_cases": 2}}
    masked = {"protection": {"name": "secagg_plus"}, "compression": {"name": "none", "bits": 8}}
    sums = {"evaluation": {"share": "sums"}, **masked, **sites}
    run = begin(experiment_of(data, task, **sums), tmp_path / "sums")
    leave_model(run, 1)
    found = summed(run)
    told = begin(experiment_of(data, task, **sites), tmp_path / "runs")
    leave_model(told, 1)
    expected = evaluated(told, 1)
    for split in ("val", "test"):
        assert found.overall[split] == pytest.approx(expected.overall[split], abs=1e-4)
    for site in run.sites:
        assert set(found.per_site[site]["test"].values()) == {None}
        assert found.per_site[site]["test"].keys() == expected.per_site[site]["test"].keys()


@pytest.mark.parametrize("task", ["classification", *SETS])
@pytest.mark.parametrize("vectorised", [True, False])
def test_the_gradients_of_cases_add_up_to_that_of_their_batch(data, task, vectorised):
    name = SETS.get(task, "bloodmnist")
    experiment = experiment_of(data, task) if task in SETS else None
    info = dataset_info(name)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(5, info.channels, 28, 28, generator=generator).double()
    targets = {
        "classification": torch.tensor([0, 1, 2, 3, 7]),
        "multilabel": torch.randint(0, 2, (5, 14), generator=generator),
        "regression": torch.tensor([0.0, 1, 2, 3, 4], dtype=torch.float64),
    }[task]
    from federated.data.cases import LabelledImages
    from federated.settings.networks import SmallCNN
    from federated.settings.sections import TrainingSettings

    settings = experiment.training if experiment else TrainingSettings()
    cases = LabelledImages(np.zeros((5, info.channels, 28, 28), np.uint8), targets.numpy())
    loss = TASKS[task].make_loss(cases, settings, info, torch.device("cpu"))
    model = SmallCNN().build(info.channels, len(info.classes), 2, 0).double()
    trained = dict(model.named_parameters())

    def of_cases(network, some_images, some_targets):
        return loss(network(some_images), some_targets, "mean")

    each = gradients_of_cases(model, trained, of_cases, vectorised)(images, targets)
    whole = loss(model(images), targets, "mean")
    for (key, found), expected in zip(
        each.items(), torch.autograd.grad(whole, trained.values()), strict=True
    ):
        torch.testing.assert_close(found.mean(dim=0), expected, msg=key)
    objective = Objective(lambda indices: (images[indices], targets[indices]), loss)
    assert objective.of(model, images, targets, "none").shape == (5,)


def test_settings_of_other_tasks_are_refused(data):
    for task, sections, said in [
        ("regression", {"selection": {"metric": "val/auc"}}, "is for regression, where a model"),
        ("multilabel", {"selection": {"metric": "val/dice"}}, "is for multi-label classification"),
        ("regression", {"model": {"name": "unet"}}, "model.name=unet is for segmentation"),
        ("regression", {"evaluation": {"share": "metrics"}}, "val/mae or val/loss"),
    ]:
        with pytest.raises(ConsiliumError, match=said):
            experiment_of(data, task, **sections)
    training = {"lr": 0.1, "class_weights": "balanced"}
    assert experiment_of(data, "multilabel", training=training)
    for task, setting in [
        ("regression", "class_weights"),
        ("regression", "sampling"),
        ("multilabel", "sampling"),
    ]:
        with pytest.raises(ConsiliumError, match=f"training.{setting}=balanced is for classes"):
            experiment_of(data, task, training={"lr": 0.1, setting: "balanced"})


def header_of(data, task):
    experiment = experiment_of(data, task)
    return model_header(experiment, dataset_info(SETS[task]), "files")


@pytest.mark.parametrize("task", SETS)
def test_a_models_file_says_what_it_predicts(data, task):
    header = header_of(data, task)
    assert ModelHeader.from_text(header.to_text()) == header
    assert header.goal() == task
    assert header.class_names() == dataset_info(SETS[task]).classes
    assert header.target() == dataset_info(SETS[task]).target


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": 2}, "2 outputs, which regression has not"),
        ({"dataset": "chestmnist"}, "1 outputs, which multilabel has not"),
        ({"dataset": "bloodmnist"}, "1 outputs, which classification has not"),
        ({"task": "detection"}, "task"),
    ],
)
def test_a_file_that_contradicts_itself_is_no_model(data, changes, said):
    import json

    told = json.loads(header_of(data, "regression").to_text()) | changes
    with pytest.raises(ValueError, match=said):
        ModelHeader.from_text(json.dumps(told))


def test_a_model_that_predicts_no_numbers_is_refused(data, tmp_path):
    experiment, info = experiment_of(data, "regression"), dataset_info("retinamnist")
    model = new_model(experiment, info)
    with torch.no_grad():
        model.head.bias.fill_(torch.inf)
    path = tmp_path / "model.safetensors"
    save_model(path, model, model_header(experiment, info, "files"))
    with pytest.raises(ConsiliumError, match="predicts no numbers"):
        predict_files(path, [data / "medmnist" / "retinamnist.npz"], tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    assert load_model(path).head.bias.isinf().all()


@pytest.mark.parametrize("task", SETS)
def test_statistics_count_each_label_and_the_tenths_of_a_numbers_range(data, tmp_path, task):
    experiment = experiment_of(data, task)
    dataset = load(locate(experiment.data), experiment.data)
    labels, target = dataset.labels["train"], dataset.info.target
    expected = labels.sum(axis=0)
    if target is not None:
        expected = np.histogram(labels, 10, (target.low, target.high))[0]
        assert len(groups_of(dataset.info)) == 10
    found = counted(begin_with_experiment(tmp_path / "runs", experiment))
    np.testing.assert_array_equal(found.counts["with_class"], expected)
    assert found.cases == CASES["train"]
