"""What a site tells of its evaluation counts if it could be of so many cases, and not otherwise."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.learning import CLASSIFICATION, TASKS, refuse_told, shared_arrays
from federated.settings.sections import EvaluationSettings
from tests.federated.learning.test_statistics import sites_of

SPLITS = ("val", "test")
SETTINGS = {
    share: EvaluationSettings(share=share) for share in ("statistics", "metrics", "predictions")
} | {
    f"{share}, small counts withheld": EvaluationSettings(share=share, min_count=5)
    for share in ("statistics", "metrics")
}
# Of sites_of: it has 40 cases.
SITE = "site-3"

Arrays = dict[str, Any]


def cases_of(predictions: Mapping[str, Any]) -> int:
    return len(predictions["loss"] if "loss" in predictions else predictions["labels"])


def told_by(task: Any, settings: EvaluationSettings, site: str) -> tuple[dict[str, Arrays], Any]:
    found, info = sites_of(task)
    sent = {s: dict(shared_arrays(task, found[site][s], info, settings)) for s in SPLITS}
    return sent, info


@pytest.mark.parametrize("what", SETTINGS)
@pytest.mark.parametrize("name", TASKS)
def test_what_an_honest_site_tells_counts_whatever_cases_it_has(name: str, what: str) -> None:
    task, settings = TASKS[name], SETTINGS[what]
    found, info = sites_of(task)
    for site, by_split in found.items():
        sent = {s: shared_arrays(task, by_split[s], info, settings) for s in SPLITS}
        cases = {s: cases_of(by_split[s]) for s in SPLITS}
        refuse_told(task, sent, info, settings, cases, site)


def scaled(name: str, change: Callable[[Any], Any]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {**arrays, name: change(arrays[name])}


def less(name: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {other: array for other, array in arrays.items() if other != name}


def one(value: float) -> Callable[[Any], Any]:
    return lambda array: np.full_like(array, value)


def first(value: float) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array = array.copy()
        array.flat[0] = value
        return array

    return change


LIES: list[tuple[str, str, Callable[[Arrays], Arrays]]] = [
    ("segmentation", "statistics", scaled("cases", one(41))),
    ("segmentation", "statistics", scaled("patients", one(41))),
    ("segmentation", "statistics", scaled("patients", one(0))),
    ("segmentation", "statistics", scaled("with_class", one(41))),
    ("segmentation", "statistics", scaled("sums", lambda a: -a)),
    ("segmentation", "statistics", scaled("sums", lambda a: a * 1000)),
    ("segmentation", "statistics", scaled("products", lambda a: a * 0)),
    ("segmentation", "statistics", scaled("products", first(1e6))),
    ("segmentation", "statistics", scaled("loss", lambda a: -a)),
    ("segmentation", "statistics", scaled("loss", lambda a: a * np.nan)),
    ("segmentation", "statistics", less("loss")),
    ("segmentation", "metrics", scaled("cases", one(41))),
    ("segmentation", "metrics", scaled("patients", one(41))),
    ("segmentation", "metrics", less("patients")),
    ("segmentation", "metrics", scaled("metric dice", one(1.5))),
    ("segmentation", "metrics", scaled("metric hd95", one(-1))),
    ("segmentation", "metrics", scaled("metric loss", one(np.nan))),
    ("segmentation", "predictions", scaled("dice", first(1.5))),
    ("segmentation", "predictions", scaled("dice", first(np.nan))),
    ("segmentation", "predictions", scaled("hd95", first(np.inf))),
    ("segmentation", "predictions", scaled("assd", first(-1))),
    ("segmentation", "predictions", scaled("patients", first(40))),
    ("segmentation", "predictions", scaled("absent", lambda a: a.astype(np.int64))),
    ("segmentation", "predictions", scaled("loss", lambda a: a[:-1])),
    ("segmentation", "predictions", less("absent")),
    ("classification", "metrics", scaled("cases", one(41))),
    ("classification", "metrics", scaled("metric accuracy", one(np.nan))),
    ("classification", "metrics", scaled("metric accuracy", one(1.1))),
    ("classification", "metrics", scaled("metric auc", one(-0.1))),
    ("classification", "metrics", scaled("metric loss", one(np.inf))),
    ("classification", "metrics", scaled("metric loss", lambda a: a.astype(np.float32))),
    ("classification", "metrics", scaled("metric loss", lambda a: a.repeat(2))),
    ("classification", "metrics", less("metric ece")),
    ("classification", "metrics", lambda a: {**a, "metric more": a["metric loss"]}),
    ("classification", "predictions", scaled("labels", first(5))),
    ("classification", "predictions", scaled("labels", lambda a: a.astype(float))),
    ("classification", "predictions", scaled("labels", lambda a: a[:-1])),
    ("classification", "predictions", scaled("probabilities", first(np.nan))),
    ("classification", "predictions", scaled("probabilities", first(-0.1))),
    ("classification", "predictions", scaled("probabilities", lambda a: a / 2)),
    ("classification", "predictions", scaled("probabilities", lambda a: a[:, :-1])),
    ("classification", "predictions", lambda a: {**a, "more": a["labels"]}),
    ("classification", "predictions", lambda a: {}),
    ("multilabel", "statistics", scaled("cases", one(41))),
    ("multilabel", "statistics", scaled("outcomes", lambda a: a + 1)),
    ("multilabel", "statistics", scaled("outcomes", lambda a: a[::-1].copy())),
    ("multilabel", "statistics", scaled("confusion", lambda a: a + 1)),
    ("multilabel", "statistics", scaled("confusion", lambda a: a[:, ::-1].copy())),
    ("multilabel", "statistics", scaled("reliability", lambda a: a + 1)),
    ("multilabel", "statistics", scaled("reliability", lambda a: a[..., ::-1].copy())),
    ("multilabel", "statistics", scaled("scores", lambda a: a * 0)),
    ("multilabel", "statistics", scaled("scores", lambda a: a[:, ::-1].copy())),
    ("multilabel", "statistics", scaled("scores", lambda a: a[:, :, ::-1].copy())),
    ("multilabel", "statistics", scaled("places", lambda a: a + 1)),
    ("multilabel", "statistics", scaled("confidence", lambda a: a + 1)),
    ("multilabel", "statistics", scaled("loss", one(40 * 37))),
    ("multilabel", "statistics", scaled("loss", one(-1))),
    ("multilabel", "statistics", less("confusion")),
    ("multilabel", "metrics", scaled("metric auc", one(1.1))),
    ("multilabel", "metrics", scaled("metric auc_mass", one(1.1))),
    ("multilabel", "metrics", scaled("metric accuracy", one(np.nan))),
    ("multilabel", "metrics", scaled("metric labels_rated", one(-1))),
    ("multilabel", "metrics", less("metric micro_auc")),
    ("multilabel", "predictions", scaled("labels", first(2))),
    ("multilabel", "predictions", scaled("labels", lambda a: a[:, :-1])),
    ("multilabel", "predictions", scaled("probabilities", first(1.1))),
    ("multilabel", "predictions", scaled("probabilities", first(np.nan))),
    ("regression", "statistics", scaled("cases", one(41))),
    ("regression", "statistics", scaled("labels", one(41))),
    ("regression", "statistics", scaled("labels", one(-1))),
    ("regression", "statistics", scaled("labels", one(np.nan))),
    ("regression", "statistics", scaled("label_squares", lambda a: a / 2)),
    ("regression", "statistics", scaled("label_squares", lambda a: a * 2)),
    ("regression", "statistics", scaled("predictions", lambda a: a / 2)),
    ("regression", "statistics", scaled("prediction_squares", lambda a: a / 2)),
    ("regression", "statistics", scaled("absolute_errors", lambda a: a / 100)),
    ("regression", "statistics", scaled("squared_errors", lambda a: a * 0)),
    ("regression", "statistics", less("squared_errors")),
    ("regression", "metrics", scaled("metric r2", one(1.1))),
    ("regression", "metrics", scaled("metric pearson", one(-1.1))),
    ("regression", "metrics", scaled("metric mae", one(-1))),
    ("regression", "metrics", scaled("metric mae", one(np.nan))),
    ("regression", "metrics", scaled("metric rmse", one(np.inf))),
    ("regression", "metrics", scaled("metric bias", one(np.inf))),
    ("regression", "predictions", scaled("labels", first(121))),
    ("regression", "predictions", scaled("predicted", first(np.nan))),
    ("regression", "predictions", scaled("predicted", first(-0.1))),
    ("regression", "predictions", scaled("predicted", lambda a: a[:-1])),
]


@pytest.mark.parametrize(("name", "share", "lie"), LIES)
def test_what_no_such_cases_have_is_refused_and_names_the_site(
    name: str, share: str, lie: Callable[[Arrays], Arrays]
) -> None:
    task, settings = TASKS[name], SETTINGS[share]
    found, info = sites_of(task)
    sent, _ = told_by(task, settings, SITE)
    cases = {s: cases_of(found[SITE][s]) for s in SPLITS}
    refuse_told(task, sent, info, settings, cases, SITE)
    sent["test"] = lie(sent["test"])
    with pytest.raises(ConsiliumError, match=f"{SITE} has told of its evaluation on test"):
        refuse_told(task, sent, info, settings, cases, SITE)


def test_a_split_that_is_missing_is_refused() -> None:
    found, info = sites_of(CLASSIFICATION)
    sent, _ = told_by(CLASSIFICATION, SETTINGS["statistics"], SITE)
    cases = {s: cases_of(found[SITE][s]) for s in SPLITS}
    del sent["test"]
    with pytest.raises(ConsiliumError):
        refuse_told(CLASSIFICATION, sent, info, SETTINGS["statistics"], cases, SITE)
