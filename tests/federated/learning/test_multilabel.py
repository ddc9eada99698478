"""Several labels for each image: loss, metrics and statistics."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from federated.data.cases import LabelledImages
from federated.data.dataset import DatasetInfo
from federated.learning import MULTILABEL, evaluate_here
from federated.learning.multilabel import readout
from federated.learning.multilabel_metrics import multilabel_metrics
from federated.learning.quantised_statistics import summed_statistics, whole_statistics
from federated.settings.sections import EvaluationSettings, TrainingSettings

NAMES = ("oedema", "nodule", "hernia", "fracture")
INFO = DatasetInfo("chest", NAMES, 2, 1, {}, "", "multilabel")
CPU = torch.device("cpu")


def predicted(seed, size, labels=4):
    rng = np.random.default_rng(seed)
    found = (rng.random((size, labels)) < np.linspace(0.5, 0.2, labels)).astype(np.int64)
    logits = 1.5 * (rng.normal(size=found.shape) + 2 * found - 1)
    return {"labels": found, "probabilities": 1 / (1 + np.exp(-logits))}


def metrics_of(part):
    return multilabel_metrics(part["labels"], part["probabilities"], NAMES)


def test_metrics_are_those_of_scikit_learn():
    part = predicted(0, 200)
    labels, scores = part["labels"], part["probabilities"]
    found, answers = metrics_of(part), (scores > 0.5).astype(int)
    for number, name in enumerate(NAMES):
        area = roc_auc_score(labels[:, number], scores[:, number])
        assert found[f"auc_{name}"] == pytest.approx(area)
    assert found["auc"] == pytest.approx(roc_auc_score(labels, scores, average="macro"))
    assert found["accuracy"] == pytest.approx((answers == labels).mean())
    for name, score in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        assert found[name] == pytest.approx(score(labels, answers, average="macro"))
    loss = torch.nn.functional.binary_cross_entropy(
        torch.from_numpy(scores), torch.from_numpy(labels).double()
    )
    assert found["loss"] == pytest.approx(float(loss))
    assert found["labels_rated"] == 4


def test_area_and_accuracy_are_those_that_medmnist_computes():
    part = predicted(1, 100)
    labels, scores = part["labels"], part["probabilities"]
    # medmnist.evaluator.getAUC and getACC for its task "multi-label, binary-class".
    auc = np.mean([roc_auc_score(labels[:, i], scores[:, i]) for i in range(4)])
    acc = np.mean([((scores[:, i] > 0.5) == labels[:, i]).mean() for i in range(4)])
    found = metrics_of(part)
    assert (found["auc"], found["accuracy"]) == (pytest.approx(auc), pytest.approx(acc))


@pytest.mark.parametrize("share", ["statistics", "predictions"])
def test_a_label_that_nobody_has_is_named_and_is_in_no_mean(share):
    part = predicted(2, 60)
    part["labels"][:, 2] = 0
    sites = {"site-00": {"val": part, "test": part}, "site-01": {"val": part, "test": part}}
    found = evaluate_here(MULTILABEL, sites, INFO, EvaluationSettings(share=share))
    metrics = found.overall["test"]
    assert metrics["auc_hernia"] is None
    assert metrics["labels_rated"] == 3
    areas = [metrics[f"auc_{name}"] for name in NAMES if name != "hernia"]
    assert metrics["auc"] == pytest.approx(np.mean(areas))
    assert found.classes_absent["test"] == ("hernia",)
    assert found.absent_at["site-01"]["val"] == ("hernia",)
    kept = [0, 1, 3]
    answers = part["probabilities"][:, kept] > 0.5
    f1 = f1_score(part["labels"][:, kept], answers, average="macro")
    assert metrics["f1"] == pytest.approx(f1)


def test_a_label_that_everybody_has_has_no_area_but_is_not_absent():
    part = predicted(3, 30)
    part["labels"][:, 0] = 1
    found = MULTILABEL.score({"site": {"val": part, "test": part}}, INFO)
    assert found.overall["val"]["auc_oedema"] is None
    assert found.overall["val"]["labels_rated"] == 3
    assert found.classes_absent["val"] == ()


def test_a_site_without_a_case_has_no_metric():
    found = metrics_of({"labels": np.zeros((0, 4), int), "probabilities": np.zeros((0, 4))})
    assert set(found.values()) == {None}
    assert {"auc", "auc_hernia", "loss"} <= set(found)


def test_a_perfectly_calibrated_label_has_no_error_and_a_sure_wrong_one_all():
    labels = np.array([[1], [0], [1], [0]])
    half = multilabel_metrics(labels, np.full((4, 1), 0.5), ("a",))
    assert half["ece"] == 0
    assert multilabel_metrics(labels, 1.0 - labels, ("a",))["ece"] == 1


def test_statistics_add_up_under_protections_to_those_of_all_cases():
    parts = [predicted(seed, size) for seed, size in ((0, 50), (1, 1), (2, 0), (3, 33))]
    form, of = MULTILABEL.statistics.form(INFO), MULTILABEL.statistics.of
    total = sum(whole_statistics(of(part, INFO), form) for part in parts)
    found = summed_statistics(total, form)
    together = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
    for name, value in of(together, INFO).arrays.items():
        if form[name].real:
            np.testing.assert_allclose(found.arrays[name], value, atol=4 * 2**-20)
        else:
            np.testing.assert_array_equal(found.arrays[name], value)
    exact = metrics_of(together)
    metrics = MULTILABEL.statistics.measure(found, INFO).metrics
    assert metrics["f1"] == exact["f1"]
    assert metrics["ece"] == pytest.approx(exact["ece"], abs=1e-5)
    assert metrics["loss"] == pytest.approx(exact["loss"], abs=1e-6)


def loss_of(labels, weights="none"):
    cases = LabelledImages(np.zeros((len(labels), 1, 2, 2), np.uint8), labels)
    settings = TrainingSettings(class_weights=weights)
    return MULTILABEL.make_loss(cases, settings, INFO, CPU)


def test_the_loss_of_a_batch_is_the_mean_of_its_cases_losses():
    labels = torch.from_numpy(predicted(0, 6)["labels"])
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = loss_of(labels.numpy())
    each = loss(logits, labels, "none")
    assert each.shape == (6,)
    torch.testing.assert_close(loss(logits, labels, "mean"), each.mean())
    by_hand = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.double())
    torch.testing.assert_close(each.mean(), by_hand)


def test_balanced_weights_give_cases_with_a_label_as_much_as_those_without():
    labels = np.array([[1, 0, 1, 0]] + [[0, 0, 1, 0]] * 3)
    loss = loss_of(labels, "balanced")
    logits = torch.zeros(4, 4, requires_grad=True)
    loss(logits, torch.from_numpy(labels), "mean").backward()
    gradient = logits.grad.sum(dim=0)
    # One case of four against three; the others have one side alone, and no weight.
    assert float(gradient[0]) == pytest.approx(0, abs=1e-7)
    unweighted = torch.zeros(4, 4, requires_grad=True)
    loss_of(labels)(unweighted, torch.from_numpy(labels), "mean").backward()
    torch.testing.assert_close(gradient[1:], unweighted.grad.sum(dim=0)[1:])


def test_a_network_that_has_diverged_gives_no_numbers():
    """An infinite logit would be a probability of one: the run would go on as if all were well."""
    found = readout(torch.tensor([[torch.inf, 0.0], [torch.nan, -torch.inf]]))
    assert found.isnan().tolist() == [[True, False], [True, True]]
