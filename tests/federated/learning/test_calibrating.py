"""A model's calibration from what sites tell, against what follows from their predictions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from federated.calibration.of_model import ModelCalibration
from federated.calibration.temperature import TEMPERATURES, tempered
from federated.data.partition import CaseCounts
from federated.errors import ConsiliumError
from federated.learning import (
    evaluate_here,
    evaluate_shared,
    evaluate_summed,
    refuse_told,
    shared_arrays,
    summed_bounds,
    summed_vector,
    task_of,
)
from federated.learning.classification_metrics import (
    classification_metrics,
    expected_calibration_error,
)
from federated.learning.quantised_statistics import statistics_bounds
from federated.settings.sections import EvaluationSettings
from tests.federated.learning.test_statistics import CLASSES, ORGANS, classified

ALPHA = 0.2
ASKED = EvaluationSettings.model_validate(
    {"calibration": "temperature", "conformal": {"alpha": ALPHA}}
)
SPLITS = ("val", "test")
Arrays = dict[str, Any]


def settings(**changes: Any) -> EvaluationSettings:
    return ASKED.model_copy(update=changes)


def sites(seed: int = 0, sizes: tuple[int, ...] = (30, 60, 90, 7, 0)) -> dict[str, Any]:
    """What a model that is far too sure predicts at some sites."""
    found = {}
    for number, size in enumerate(sizes):
        by_split = {}
        for at, split in enumerate(SPLITS):
            own = classified(seed + 10 * number + at, size + 20 * at * (size > 0))
            by_split[split] = {**own, "probabilities": tempered(own["probabilities"], 0.4)}
        found[f"site-{number}"] = by_split
    return found


def together(predictions: dict[str, Any], split: str) -> tuple[Any, Any]:
    parts = [by_split[split] for by_split in predictions.values()]
    return tuple(np.concatenate([p[name] for p in parts]) for name in ("labels", "probabilities"))


def test_a_temperature_is_fitted_on_validation_cases_and_judged_on_test_cases():
    predictions = sites()
    found = evaluate_here(task_of(ORGANS, ASKED), predictions, ORGANS, ASKED).calibration
    assert found is not None
    assert found.tempered is not None
    labels, probabilities = together(predictions, "val")
    losses = [
        classification_metrics(labels, tempered(probabilities, t))["loss"] for t in TEMPERATURES
    ]
    best = TEMPERATURES[int(np.argmin(losses))]
    assert found.tempered.temperature == best > 1.5
    assert found.tempered.fitted_on == len(labels) == 187
    labels, probabilities = together(predictions, "test")
    after = tempered(probabilities, best)
    for told, exact in (
        (found.tempered.losses[0], classification_metrics(labels, probabilities)["loss"]),
        (found.tempered.losses[1], classification_metrics(labels, after)["loss"]),
        (found.tempered.ece[0], expected_calibration_error(labels, probabilities)),
        (found.tempered.ece[1], expected_calibration_error(labels, after)),
    ):
        assert told == pytest.approx(exact, rel=1e-9)
    assert found.tempered.losses[1] < found.tempered.losses[0]
    assert found.tempered.ece[1] < found.tempered.ece[0]


def test_the_counts_of_sets_are_those_that_a_models_user_gets_of_the_same_cases():
    """Of all sites, and of each by its own threshold and by that of all."""
    predictions = sites()
    evaluation = evaluate_here(task_of(ORGANS, ASKED), predictions, ORGANS, ASKED)
    found = evaluation.calibration
    of_model = ModelCalibration.of_record(found.to_json())
    labels, probabilities = together(predictions, "test")
    cases = [("pooled", found.pooled, labels, probabilities, None)]
    for site, by_split in predictions.items():
        own = by_split["test"]
        cases += [
            (site, found.sites[site].own, own["labels"], own["probabilities"], site),
            (site, found.sites[site].pooled, own["labels"], own["probabilities"], None),
        ]
    for name, sets, of_case, scores, site in cases:
        there = of_model.sets(scores, site)
        assert sets.cases == len(of_case), name
        assert sets.covered == int(there[np.arange(len(of_case)), of_case].sum()), name
        assert sets.classes == int(there.sum()), name
    assert found.pooled.coverage > 1 - ALPHA - 0.05
    assert 1 <= found.pooled.size < 5
    # So few validation cases allow no other set than that of all classes, and no case none.
    assert found.sites["site-4"].own.threshold == 0
    assert found.sites["site-4"].own.coverage is None


def test_thresholds_are_those_of_the_exact_ranks_but_for_the_width_of_a_step():
    predictions = sites(seed=5)
    found = evaluate_here(task_of(ORGANS, ASKED), predictions, ORGANS, ASKED).calibration
    labels, probabilities = together(predictions, "val")
    true = np.sort(probabilities[np.arange(len(labels)), labels])[::-1]
    exact = true[int(np.ceil((len(labels) + 1) * (1 - ALPHA))) - 1]
    assert found.pooled.threshold <= exact
    # A step is about 0.13 % as wide as it is far from the uniform prediction, in logits.
    odds = [np.log(4 * p / (1 - p)) for p in (found.pooled.threshold, exact)]
    assert odds[1] - odds[0] < max(0.0007, 0.0014 * abs(odds[1]))


def test_test_cases_change_no_temperature_and_no_threshold():
    predictions = sites()
    other = {
        site: {**by_split, "test": classified(1000, 40)} for site, by_split in predictions.items()
    }
    task = task_of(ORGANS, ASKED)
    one, two = (
        ModelCalibration.of_record(evaluate_here(task, each, ORGANS, ASKED).calibration.to_json())
        for each in (predictions, other)
    )
    assert one == two


def test_of_predictions_the_calibration_is_that_of_statistics():
    predictions = sites()
    task = task_of(ORGANS, ASKED)
    one, two = (
        evaluate_here(task, predictions, ORGANS, settings(share=share)).calibration
        for share in ("statistics", "predictions")
    )
    assert one == two


def test_of_a_sum_the_calibration_is_that_of_statistics_without_single_sites():
    predictions, asked = sites(), settings(share="sums")
    task = task_of(ORGANS, asked)
    counts = CaseCounts(
        {
            site: {"train": 1, **{s: len(by_split[s]["labels"]) for s in SPLITS}}
            for site, by_split in predictions.items()
        }
    )
    vectors = [summed_vector(task, by_split, ORGANS) for by_split in predictions.values()]
    bounds = summed_bounds(task, counts, ORGANS)
    assert all(len(vector) == bounds.length for vector in vectors)
    found = evaluate_summed(task, sum(vectors), ORGANS, counts, list(predictions), asked)
    clear = evaluate_here(task_of(ORGANS, ASKED), predictions, ORGANS, ASKED).calibration
    assert found.calibration.sites == {}
    assert found.calibration.pooled == clear.pooled
    assert found.calibration.tempered.temperature == clear.tempered.temperature
    # Sums of reals are rounded to steps.
    assert found.calibration.tempered.losses == pytest.approx(clear.tempered.losses, abs=1e-5)
    here = evaluate_here(task, predictions, ORGANS, asked).calibration
    assert here.sites == {}


def test_a_sum_has_room_for_the_largest_numbers_that_cases_can_have():
    """Every case as wrong as it can be, at every temperature."""
    wrong = {"labels": np.zeros(50, int), "probabilities": np.tile([0.0, 1, 0, 0, 0], (50, 1))}
    task = task_of(ORGANS, ASKED)
    form = task.statistics.form(ORGANS)
    vector = summed_vector(task, dict.fromkeys(SPLITS, wrong), ORGANS)
    half = vector[: len(vector) // 2]
    limits = np.concatenate(
        [np.full(count, most) for count, most in statistics_bounds(form, 50).parts]
    )
    assert (half <= limits).all()


def test_without_being_asked_nothing_more_is_sent_and_nothing_said():
    predictions = sites()["site-2"]["test"]
    usual, asked = EvaluationSettings(), ASKED
    one = shared_arrays(task_of(ORGANS, usual), predictions, ORGANS, usual)
    two = shared_arrays(task_of(ORGANS, asked), predictions, ORGANS, asked)
    assert two.keys() - one.keys() == {
        "tempered_loss",
        "tempered_reliability",
        "tempered_confidence",
        "true_steps",
        "every_step",
    }
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name])
    conformal = EvaluationSettings.model_validate({"conformal": {}})
    alone = shared_arrays(task_of(ORGANS, conformal), predictions, ORGANS, conformal)
    assert alone.keys() - one.keys() == {"true_steps", "every_step"}
    assert evaluate_here(task_of(ORGANS), sites(), ORGANS, usual).calibration is None
    # Plans, and so their digests, are what they were.
    assert usual.model_dump() == {"share": "statistics", "min_count": 0}


def test_no_prediction_of_a_case_is_in_what_is_sent():
    """The same whatever the order of cases, and of a fixed size."""
    own = sites()["site-2"]["test"]
    turned = {name: array[::-1] for name, array in own.items()}
    task = task_of(ORGANS, ASKED)
    one, two = (shared_arrays(task, each, ORGANS, ASKED) for each in (own, turned))
    for name, array in one.items():
        np.testing.assert_allclose(array, two[name], rtol=1e-12, atol=1e-12)
        assert array.shape == task.statistics.form(ORGANS)[name].shape
        assert len(own["labels"]) not in array.shape


@pytest.mark.parametrize("minimum", [3, 5])
def test_with_a_minimum_of_cases_what_tells_them_apart_is_withheld(minimum):
    task, own = task_of(ORGANS, ASKED), sites()["site-2"]["test"]
    asked = settings(min_count=minimum)
    sent = shared_arrays(task, own, ORGANS, asked)
    assert not {"true_steps", "every_step"} & sent.keys()
    assert not any(name.startswith("tempered") for name in sent)
    assert evaluate_here(task, sites(), ORGANS, asked).calibration is None
    # Cases that are predicted alike are no longer told apart.
    alike = {
        "labels": np.arange(20) % 2,
        "probabilities": np.tile([0.6, 0.1, 0.1, 0.1, 0.1], (20, 1)),
    }
    assert "tempered_loss" in shared_arrays(task, alike, ORGANS, asked)
    one_more = {
        "labels": np.append(alike["labels"], 1),
        "probabilities": np.vstack([alike["probabilities"], [0.5, 0.2, 0.1, 0.1, 0.1]]),
    }
    assert "tempered_loss" not in shared_arrays(task, one_more, ORGANS, asked)
    empty = {name: array[:0] for name, array in alike.items()}
    assert "tempered_loss" in shared_arrays(task, empty, ORGANS, asked)


def changed(name: str, change: Callable[[Any], Any]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {**arrays, name: change(arrays[name].copy())}


def at(place: Any, value: Any) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array[place] = value
        return array

    return change


LIES = {
    "a loss above all": changed("tempered_loss", at(3, 1e6)),
    "a loss below none": changed("tempered_loss", at(0, -1.0)),
    "a loss that is no number": changed("tempered_loss", at(3, np.nan)),
    "a loss at 1 that is not the loss": changed("tempered_loss", at(24, 1.0)),
    "fewer losses": changed("tempered_loss", lambda a: a[:-1]),
    "losses of another type": changed("tempered_loss", lambda a: a.astype(np.float32)),
    "no losses": lambda arrays: {n: a for n, a in arrays.items() if n != "tempered_loss"},
    "a case more at a temperature": changed("tempered_reliability", at((5, 14, 1), 200)),
    "a negative count": changed("tempered_reliability", at((5, 0, 0), -1)),
    "wrong as right": changed("tempered_reliability", lambda a: a[:, :, ::-1].copy()),
    "other right ones at a temperature": changed(
        "tempered_reliability", lambda a: np.concatenate([a[:1, :, ::-1], a[1:]])
    ),
    "the bins of 1 turned": changed("tempered_reliability", lambda a: a[:, ::-1].copy()),
    "confidence beyond its bin": changed("tempered_confidence", lambda a: a + 1),
    "a true class more": changed("true_steps", lambda a: a + (np.arange(8192) == 4000)),
    "true classes elsewhere": changed("true_steps", lambda a: np.roll(a, 1)),
    "true classes that are likelier": changed("true_steps", lambda a: np.sort(a)),
    "fewer classes": changed("every_step", lambda a: a - (np.arange(8192) == a.argmax())),
    "classes elsewhere": changed("every_step", lambda a: np.roll(a, 16)),
    "all probabilities elsewhere": lambda arrays: {
        **arrays,
        **{name: np.roll(arrays[name], 16) for name in ("true_steps", "every_step")},
    },
    "no classes": lambda arrays: {n: a for n, a in arrays.items() if n != "every_step"},
    "confidence that is infinite": changed("tempered_confidence", at((0, 0), np.inf)),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("size", [1, 60])
def test_what_no_cases_can_have_is_refused_before_it_is_added(lie, size):
    own = sites(sizes=(size,))["site-0"]
    task = task_of(ORGANS, ASKED)
    sent = {split: dict(shared_arrays(task, own[split], ORGANS, ASKED)) for split in SPLITS}
    cases = {split: len(own[split]["labels"]) for split in SPLITS}
    refuse_told(task, sent, ORGANS, ASKED, cases, "site-0")
    sent["val"] = LIES[lie](sent["val"])
    with pytest.raises(ConsiliumError, match="site-0 has told of its evaluation on val is refused"):
        refuse_told(task, sent, ORGANS, ASKED, cases, "site-0")


def test_a_site_that_leaves_out_what_was_asked_for_is_refused_and_so_is_one_that_adds_to_it():
    own = sites(sizes=(40,))["site-0"]
    cases = {split: len(own[split]["labels"]) for split in SPLITS}
    usual = EvaluationSettings()
    for told_with, asked in ((usual, ASKED), (ASKED, usual)):
        sent = {
            split: shared_arrays(task_of(ORGANS, told_with), own[split], ORGANS, told_with)
            for split in SPLITS
        }
        with pytest.raises(ConsiliumError, match=r"tempered_|every_step|true_steps"):
            refuse_told(task_of(ORGANS, asked), sent, ORGANS, asked, cases, "site-0")


def test_one_site_without_a_case_changes_nothing_and_none_at_all_gives_no_temperature():
    task = task_of(ORGANS, ASKED)
    empty = {name: array[:0] for name, array in classified(0, 4).items()}
    none = {"site-0": {"val": empty, "test": empty}}
    found = evaluate_here(task, none, ORGANS, ASKED).calibration
    assert found.tempered is None
    assert found.pooled.threshold == 0
    assert len(CLASSES) == 5


def test_shared_statistics_of_sites_are_read_as_those_that_are_at_hand():
    predictions, task = sites(), task_of(ORGANS, ASKED)
    sent = {
        site: {s: shared_arrays(task, own[s], ORGANS, ASKED) for s in SPLITS}
        for site, own in predictions.items()
    }
    assert (
        evaluate_shared(task, sent, ORGANS, ASKED).calibration
        == evaluate_here(task, predictions, ORGANS, ASKED).calibration
    )
