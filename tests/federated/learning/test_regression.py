"""A number for each image: loss, metrics and statistics."""

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from federated.data.cases import LabelledImages
from federated.data.dataset import DatasetInfo
from federated.errors import ConsiliumError
from federated.learning import REGRESSION, evaluate_here, smaller_is_better
from federated.learning.quantised_statistics import summed_statistics, whole_statistics
from federated.learning.regression import readout
from federated.learning.statistics import from_wire
from federated.settings.sections import EvaluationSettings, TrainingSettings
from federated.settings.target import Target

AGE = DatasetInfo("age", ("age",), 2, 1, {}, "", "regression", Target(-20, 120, mean=55, sd=18))
CPU = torch.device("cpu")


def predicted(seed, size):
    rng = np.random.default_rng(seed)
    labels = rng.uniform(10, 90, size)
    return {"labels": labels, "predicted": (labels + rng.normal(3, 9, size)).clip(-20, 120)}


def metrics_of(part):
    return REGRESSION.exact(part, AGE)


def test_metrics_are_those_of_scikit_learn_in_the_numbers_own_unit():
    part = predicted(0, 300)
    labels, found = part["labels"], part["predicted"]
    metrics = metrics_of(part)
    assert metrics["r2"] == pytest.approx(r2_score(labels, found))
    assert metrics["mae"] == pytest.approx(mean_absolute_error(labels, found))
    assert metrics["rmse"] == pytest.approx(mean_squared_error(labels, found) ** 0.5)
    assert metrics["bias"] == pytest.approx((found - labels).mean())
    standardised = [(values - 55) / 18 for values in (labels, found)]
    assert metrics["loss"] == pytest.approx(mean_squared_error(*standardised))


@pytest.mark.parametrize("share", ["statistics", "predictions", "metrics"])
@pytest.mark.parametrize("label", [-20.0, 41.3, 120.0])
def test_of_labels_that_are_all_the_same_nothing_is_explained(share, label):
    part = {"labels": np.full(7, label), "predicted": np.full(7, 40.0)}
    sites = {f"site-0{k}": {"val": part, "test": part} for k in range(3)}
    found = evaluate_here(REGRESSION, sites, AGE, EvaluationSettings(share=share))
    assert found.overall["test"]["r2"] is None
    assert found.overall["test"]["mae"] == pytest.approx(abs(label - 40))
    assert found.site_spread["test"]["r2"] == {"worst": None, "mean": None, "sd": None}


def test_under_protections_constant_labels_are_still_told_from_others():
    """Sums in steps of 2^-20 would leave a variance of rounding, and an R² of minus thousands."""
    form, of = REGRESSION.statistics.form(AGE), REGRESSION.statistics.of
    for label in np.linspace(-20, 120, 97):
        for cases in (1, 2, 5):
            part = {"labels": np.full(cases, label), "predicted": np.full(cases, 40.0)}
            total = 3 * whole_statistics(of(part, AGE), form)
            told = summed_statistics(total, form)
            assert REGRESSION.statistics.measure(told, AGE).metrics["r2"] is None


def test_statistics_add_up_under_protections_to_those_of_all_cases():
    parts = [predicted(seed, size) for seed, size in ((0, 50), (1, 1), (2, 0), (3, 33))]
    form, of = REGRESSION.statistics.form(AGE), REGRESSION.statistics.of
    total = sum(whole_statistics(of(part, AGE), form) for part in parts)
    found = summed_statistics(total, form)
    together = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
    for name, value in of(together, AGE).arrays.items():
        np.testing.assert_allclose(found.arrays[name], value, atol=4 * 2**-20)
        assert (value >= 0).all()
        assert (value <= 84).all()
    metrics = REGRESSION.statistics.measure(found, AGE).metrics
    exact = metrics_of(together)
    assert metrics == {name: pytest.approx(value, abs=1e-4) for name, value in exact.items()}


def test_of_metrics_alone_a_mean_error_is_exact_and_the_rest_is_not_there():
    sites = {
        f"site-{k}": {"val": predicted(k, 9 + k), "test": predicted(50 + k, 9)} for k in range(3)
    }
    exact = REGRESSION.score(sites, AGE).overall["val"]
    found = evaluate_here(REGRESSION, sites, AGE, EvaluationSettings(share="metrics"))
    there = {name for name, value in found.overall["val"].items() if value is not None}
    assert there == {"mae", "bias", "loss"}
    for name in there:
        assert found.overall["val"][name] == pytest.approx(exact[name])


def test_statistics_that_are_no_numbers_are_refused():
    form = REGRESSION.statistics.form(AGE)
    sent = dict(REGRESSION.statistics.of(predicted(0, 5), AGE).arrays)
    sent = {n: a if form[n].real else a.astype(np.int32) for n, a in sent.items()}
    from_wire(sent, form, "site-00")
    with pytest.raises(ConsiliumError, match=r"squared_errors.*no number"):
        from_wire({**sent, "squared_errors": np.array([np.nan])}, form, "site-00")


def loss_of():
    cases = LabelledImages(np.zeros((3, 1, 2, 2), np.uint8), np.zeros(3))
    return REGRESSION.make_loss(cases, TrainingSettings(), AGE, CPU)


def test_the_loss_is_hubers_of_standardised_numbers():
    labels = torch.tensor([55.0, 55 + 18, 55 - 5 * 18], dtype=torch.float64)
    outputs = torch.zeros(3, 1, dtype=torch.float64)
    each = loss_of()(outputs, labels, "none")
    assert each.tolist() == pytest.approx([0, 0.5, 5 - 0.5])
    torch.testing.assert_close(loss_of()(outputs, labels, "mean"), each.mean())
    assert loss_of()(outputs.float(), labels, "none").dtype == torch.float32


def test_a_site_standardises_by_the_description_and_not_by_its_labels():
    others = LabelledImages(np.zeros((3, 1, 2, 2), np.uint8), np.array([90.0, 95.0, 100.0]))
    loss = REGRESSION.make_loss(others, TrainingSettings(), AGE, CPU)
    outputs, labels = torch.randn(3, 1), torch.tensor([20.0, 55.0, 91.0])
    torch.testing.assert_close(loss(outputs, labels, "none"), loss_of()(outputs, labels, "none"))


def test_predictions_are_kept_within_the_range_and_are_no_numbers_where_outputs_are_none():
    found = readout(torch.tensor([[0.0], [9.0], [-9.0], [torch.inf], [torch.nan]]), AGE.target)
    assert found[:3, 0].tolist() == [55, 120, -20]
    assert found[3:].isnan().all()


def test_what_a_person_compares_by_is_the_larger_the_better():
    assert REGRESSION.primary_metric == "r2"
    assert not smaller_is_better("r2")
    assert not smaller_is_better("auc")
    assert all(smaller_is_better(name) for name in ("mae", "rmse", "loss", "hd95"))
    for name in REGRESSION.metrics_in("site_spread"):
        assert not smaller_is_better(name)
