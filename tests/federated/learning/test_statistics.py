"""What sites send of an evaluation, and that the metrics of it are those of their predictions."""

import json
import weakref

import numpy as np
import pytest
import torch

from federated.data.dataset import DatasetInfo
from federated.errors import ConsiliumError
from federated.learning import (
    CLASSIFICATION,
    MULTILABEL,
    REGRESSION,
    SEGMENTATION,
    evaluate_here,
    evaluate_shared,
    shared_arrays,
)
from federated.learning.score_histogram import BINS
from federated.learning.statistics import from_wire, to_wire
from federated.settings.sections import EvaluationSettings
from federated.settings.target import Target

CLASSES = ("liver", "kidney", "femur", "bladder", "heart")
ORGANS = DatasetInfo("organmnist3d", CLASSES, 3, 1, {}, "")
SCANS = DatasetInfo(
    "kidney", ("background", "kidney", "tumour", "cyst"), 3, 1, {}, "", "segmentation"
)
CHEST = DatasetInfo("chestmnist", ("mass", "nodule", "hernia"), 2, 1, {}, "", "multilabel")
AGES = DatasetInfo("ages", ("age",), 2, 1, {}, "", "regression", Target(0, 120))
STATISTICS, METRICS = EvaluationSettings(), EvaluationSettings(share="metrics")
PREDICTIONS = EvaluationSettings(share="predictions")
# A site without a case, one with a case, one with a single class, and others.
SIZES = (0, 1, 7, 40, 64)


def classified(seed, size, classes=5, of=None):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size) if of is None else np.full(size, of)
    logits = 2 * (rng.normal(size=(size, classes)) + np.eye(classes)[labels])
    return {
        "labels": labels,
        "probabilities": torch.from_numpy(logits).softmax(dim=1).numpy(),
    }


def segmented(seed, size, absent=()):
    rng = np.random.default_rng(seed)
    patients = np.sort(rng.integers(0, max(1, size - 2), size))
    gone = np.zeros((size, 3), bool)
    gone[:, list(absent)] = True
    gone |= rng.random((size, 3)) < 0.1
    dice = np.where(gone, rng.integers(0, 2, (size, 3)), rng.random((size, 3)))
    return {
        "dice": dice.astype(float),
        "hd95": 90 * rng.random((size, 3)),
        "assd": 30 * rng.random((size, 3)),
        "absent": gone,
        "loss": rng.random(size),
        "patients": patients,
    }


def labelled(seed, size):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (size, 3))
    # Nobody has the last label.
    labels[:, 2] = 0
    logits = 2 * (rng.normal(size=(size, 3)) + labels)
    return {"labels": labels, "probabilities": torch.from_numpy(logits).sigmoid().numpy()}


def numbered(seed, size):
    rng = np.random.default_rng(seed)
    labels = rng.uniform(0, 120, size)
    return {"labels": labels, "predicted": (labels + 20 * rng.normal(size=size)).clip(0, 120)}


def sites_of(task, seed=0):
    for other, info, drawn in ((MULTILABEL, CHEST, labelled), (REGRESSION, AGES, numbered)):
        if task is other:
            splits = (("val", 0), ("test", 1))
            return {
                f"site-{k}": {split: drawn(seed + 10 * k + j, size) for split, j in splits}
                for k, size in enumerate(SIZES)
            }, info
    if task is CLASSIFICATION:
        found = {
            f"site-{k}": {
                split: classified(seed + 10 * k + j, size, of=3 if k == 2 else None)
                for j, split in enumerate(("val", "test"))
            }
            for k, size in enumerate(SIZES)
        }
        return found, ORGANS
    found = {
        f"site-{k}": {
            # No site has a cyst, and one has no tumour.
            split: segmented(seed + 10 * k + j, size, absent=(1, 2) if k == 3 else (2,))
            for j, split in enumerate(("val", "test"))
        }
        for k, size in enumerate(SIZES)
    }
    return found, SCANS


def close(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        # Standard deviations come from sums of squares.
        near = 1e-6 if name.endswith("_sd") else 1e-12
        if value is None:
            assert found[name] is None, name
        elif name == "micro_auc":
            # The scores of all labels lie more closely than those of one.
            assert found[name] == pytest.approx(value, abs=1e-2)
        elif name.startswith("auc"):
            # Of so few cases one pair in a bin counts much; the bounds are tested by themselves.
            assert found[name] == pytest.approx(value, abs=5e-3)
        else:
            assert found[name] == pytest.approx(value, rel=1e-9, abs=near), name


EACH = pytest.mark.parametrize(
    "task",
    [CLASSIFICATION, SEGMENTATION, MULTILABEL, REGRESSION],
    ids=["classes", "masks", "labels", "numbers"],
)


@EACH
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_metrics_are_those_of_the_predictions_over_all_sites_and_at_each(task, seed):
    predictions, info = sites_of(task, seed)
    exact = task.score(predictions, info)
    found = evaluate_here(task, predictions, info, STATISTICS)
    for split in ("val", "test"):
        close(found.overall[split], exact.overall[split])
        for site in predictions:
            close(found.per_site[site][split], exact.per_site[site][split])
        for name, spread in exact.site_spread[split].items():
            tolerance = 5e-3 if name == "auc" else 1e-9
            assert found.site_spread[split][name] == pytest.approx(spread, abs=tolerance)
    assert found.confusion == exact.confusion
    assert found.classes_absent == exact.classes_absent
    assert found.absent_at == exact.absent_at
    json.dumps([found.overall, found.confusion, found.intervals])


@EACH
def test_predictions_are_sent_and_scored_as_they_are(task):
    predictions, info = sites_of(task)
    one = predictions["site-3"]["val"]
    assert shared_arrays(task, one, info, PREDICTIONS) is one
    assert evaluate_here(task, predictions, info, PREDICTIONS) == task.score(predictions, info)


def test_the_area_comes_with_its_bounds_unless_it_is_exact():
    predictions, info = sites_of(CLASSIFICATION)
    exact = CLASSIFICATION.score(predictions, info)
    found = evaluate_here(CLASSIFICATION, predictions, info, STATISTICS)
    for split in ("val", "test"):
        low, high = found.intervals[split]["auc"]
        assert low <= exact.overall[split]["auc"] <= high
        assert low <= found.overall[split]["auc"] <= high
    assert exact.intervals == {}
    assert evaluate_here(CLASSIFICATION, predictions, info, METRICS).intervals == {}


def test_each_labels_area_their_mean_and_that_of_all_have_bounds():
    predictions, info = sites_of(MULTILABEL)
    exact = MULTILABEL.score(predictions, info)
    found = evaluate_here(MULTILABEL, predictions, info, STATISTICS)
    for split in ("val", "test"):
        # Nobody has the last label.
        assert set(found.intervals[split]) == {"auc", "micro_auc", "auc_mass", "auc_nodule"}
        for name, (low, high) in found.intervals[split].items():
            assert low <= exact.overall[split][name] <= high
            assert low <= found.overall[split][name] <= high


@EACH
def test_what_is_sent_has_the_same_form_whatever_the_cases(task):
    predictions, info = sites_of(task)
    form = task.statistics.form(info)
    for by_split in predictions.values():
        for found in by_split.values():
            sent = shared_arrays(task, found, info, STATISTICS)
            assert {name: array.shape for name, array in sent.items()} == {
                name: part.shape for name, part in form.items()
            }
            reals = {name for name, array in sent.items() if array.dtype == np.float64}
            assert reals == {name for name, part in form.items() if part.real}
            assert all(a.dtype == np.int32 for n, a in sent.items() if n not in reals)
    if task is CLASSIFICATION:
        assert form["scores"].shape == (len(CLASSES), 2, BINS) == (5, 2, 1024)
        assert form["places"].shape == (5, 2, 512)


@EACH
@pytest.mark.parametrize("settings", [STATISTICS, METRICS], ids=["statistics", "metrics"])
def test_the_order_of_cases_is_not_in_what_is_sent(task, settings):
    """Nor, in classification, which class's score goes with which: no row of a case is."""
    predictions, info = sites_of(task)
    one = predictions["site-4"]["test"]
    turned = {name: array[::-1] for name, array in one.items()}
    sent, again = (shared_arrays(task, each, info, settings) for each in (one, turned))
    for name, array in sent.items():
        np.testing.assert_allclose(array, again[name], rtol=1e-12, atol=1e-12)
    assert not any(
        len(one["loss" if task is SEGMENTATION else "labels"]) in a.shape for a in sent.values()
    )


@EACH
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_of_metrics_alone_an_overall_value_is_exact_or_is_not_there(task, seed):
    predictions, info = sites_of(task, seed)
    exact = task.score(predictions, info)
    found = evaluate_here(task, predictions, info, METRICS)
    for split in ("val", "test"):
        there = {name for name, value in found.overall[split].items() if value is not None}
        for name in there:
            assert found.overall[split][name] == pytest.approx(exact.overall[split][name])
        for site in predictions:
            close(found.per_site[site][split], exact.per_site[site][split])
        if task in (CLASSIFICATION, MULTILABEL):
            assert there == {"accuracy", "loss"}
        elif task is REGRESSION:
            assert there == {"mae", "bias", "loss"}
        else:
            # A site without a tumour has no mean over the classes that the others' is over.
            assert {"loss", "dice_kidney"} <= there
            assert found.overall[split]["dice"] is None
            assert found.overall[split]["dice_tumour"] is None
    assert found.confusion == {}
    assert found.classes_absent == {}


def test_mean_dice_is_that_over_all_patients_where_every_site_has_every_class():
    predictions = {
        f"site-{k}": {s: segmented(k + j, 20, absent=(2,)) for j, s in enumerate(("val", "test"))}
        for k in range(3)
    }
    exact = SEGMENTATION.score(predictions, SCANS)
    found = evaluate_here(SEGMENTATION, predictions, SCANS, METRICS)
    for name in ("dice", "hd95", "assd", "dice_kidney", "loss"):
        assert found.overall["val"][name] == pytest.approx(exact.overall["val"][name])
    assert found.overall["val"]["dice_cyst"] is None
    assert found.overall["val"]["dice_sd"] is None


@EACH
def test_metrics_of_a_single_site_are_the_overall_ones(task):
    predictions, info = sites_of(task)
    alone = {"site-0": predictions["site-0"], "site-4": predictions["site-4"]}
    found = evaluate_here(task, alone, info, METRICS)
    assert found.overall["test"] == found.per_site["site-4"]["test"]


def test_metrics_are_single_numbers_and_how_many_cases_they_are_of():
    predictions, info = sites_of(CLASSIFICATION)
    sent = shared_arrays(CLASSIFICATION, predictions["site-4"]["val"], info, METRICS)
    names = {known.name for known in CLASSIFICATION.metrics}
    assert set(sent) == {"cases", *(f"metric {name}" for name in names)}
    assert all(array.shape == (1,) for array in sent.values())
    predictions, info = sites_of(SEGMENTATION)
    sent = shared_arrays(SEGMENTATION, predictions["site-4"]["val"], info, METRICS)
    assert {"cases", "patients", "metric dice", "metric dice_cyst"} <= set(sent)
    assert all(array.shape == (1,) for array in sent.values())


def test_what_one_site_withholds_is_in_no_sum_and_its_own_stays_where_it_is():
    predictions = {
        "large": dict.fromkeys(("val", "test"), classified(0, 4000, classes=2)),
        "small": dict.fromkeys(("val", "test"), classified(1, 6, classes=2)),
    }
    info = DatasetInfo("adrenalmnist3d", ("normal", "hyperplasia"), 3, 1, {}, "")
    settings = EvaluationSettings(min_count=5)
    found = evaluate_here(CLASSIFICATION, predictions, info, settings)
    exact = CLASSIFICATION.score(predictions, info)
    large = found.per_site["large"]["val"]
    for name in ("accuracy", "balanced_accuracy", "f1", "loss"):
        assert large[name] == pytest.approx(exact.per_site["large"]["val"][name])
    assert large["auc"] is None  # some score of 4000 is nearly alone in its bin
    assert set(found.per_site["small"]["val"].values()) == {None}
    assert set(found.overall["val"].values()) == {None}
    assert found.confusion == {}
    assert "val" not in found.classes_absent
    assert found.absent_at["large"] == {"val": (), "test": ()}
    assert found.absent_at["small"] == {}
    same = evaluate_here(
        CLASSIFICATION, predictions, info, EvaluationSettings(share="metrics", min_count=5)
    )
    assert same.per_site == found.per_site


def test_a_site_without_cases_withholds_nothing():
    predictions = {
        "large": dict.fromkeys(("val", "test"), segmented(0, 60)),
        "none": dict.fromkeys(("val", "test"), segmented(0, 0)),
    }
    found = evaluate_here(SEGMENTATION, predictions, SCANS, STATISTICS)
    assert found.overall["val"]["dice"] == found.per_site["large"]["val"]["dice"] is not None
    settings = EvaluationSettings(min_count=3)
    assert shared_arrays(SEGMENTATION, segmented(0, 0), SCANS, settings).keys() == (
        shared_arrays(SEGMENTATION, segmented(0, 0), SCANS, STATISTICS).keys()
    )


def changed(task, info, change, settings=STATISTICS):
    predictions, _ = sites_of(task)
    sent = dict(shared_arrays(task, predictions["site-4"]["val"], info, settings))
    change(sent)
    by_split = {"val": sent, "test": sent}
    return lambda: evaluate_shared(task, {"site-4": by_split}, info, settings)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda sent: sent.update(extra=np.zeros(1)), "'extra' is not known"),
        (lambda sent: sent.pop("cases"), "'cases' is missing"),
        (
            lambda sent: sent.update(loss=np.zeros(2)),
            r"'loss' is float64 \(2,\), not float64 \(1,\)",
        ),
        (lambda sent: sent.update(loss=np.zeros(1, np.int32)), "'loss' is int32"),
        (lambda sent: sent.update(loss=np.array([np.nan])), "'loss' has what is no number"),
        (
            lambda sent: sent.update(outcomes=np.array([-1, 3], np.int32)),
            "'outcomes' has what is no count",
        ),
    ],
)
def test_statistics_of_another_form_are_refused(change, said):
    with pytest.raises(ConsiliumError, match=f"(?s)statistics of site-4 are refused: .*{said}"):
        changed(CLASSIFICATION, ORGANS, change)()


@pytest.mark.parametrize(
    "change",
    [
        lambda sent: sent.update(extra=np.zeros(1)),
        lambda sent: sent.pop("cases"),
        lambda sent: sent.pop("metric auc"),
        lambda sent: sent.update({"metric auc": np.zeros((8, 5))}),
    ],
)
def test_metrics_of_another_form_are_refused(change):
    with pytest.raises(ConsiliumError, match="metrics of site-4 are refused"):
        changed(CLASSIFICATION, ORGANS, change, METRICS)()


def test_predictions_are_refused_where_statistics_are_to_be_sent():
    predictions, info = sites_of(CLASSIFICATION)
    with pytest.raises(ConsiliumError, match=r"another evaluation\.share"):
        evaluate_shared(CLASSIFICATION, predictions, info, STATISTICS)


def test_what_one_site_tells_is_gone_before_the_one_after_the_next_is_read():
    predictions, info = sites_of(CLASSIFICATION)
    told = {
        site: {
            s: shared_arrays(CLASSIFICATION, found, info, STATISTICS) for s, found in own.items()
        }
        for site, own in predictions.items()
    }
    read: list[weakref.ref[np.ndarray]] = []
    most = 0

    def sent():
        nonlocal most
        for site, own in told.items():
            copies = {s: {name: array.copy() for name, array in a.items()} for s, a in own.items()}
            read.extend(weakref.ref(array) for array in copies["val"].values())
            yield site, copies
            del copies
            most = max(most, sum(array() is not None for array in read))

    found = evaluate_shared(CLASSIFICATION, sent(), info, STATISTICS)
    assert found == evaluate_shared(CLASSIFICATION, told, info, STATISTICS)
    assert len(read) == 5 * len(next(iter(told.values()))["val"])
    assert most <= 2 * len(next(iter(told.values()))["val"])


def test_counts_come_back_from_the_wire_as_they_were():
    predictions, info = sites_of(CLASSIFICATION)
    kind = CLASSIFICATION.statistics
    statistics = kind.of(predictions["site-4"]["val"], info).without(["scores"])
    back = from_wire(to_wire(statistics), kind.form(info), "site-4")
    assert back.withheld == {"scores"}
    for name, array in statistics.arrays.items():
        np.testing.assert_array_equal(back.arrays[name], array)
        assert back.arrays[name].dtype == array.dtype
