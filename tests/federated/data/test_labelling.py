"""What images are labelled with: what is read, refused, and dealt to sites."""

from dataclasses import replace

import numpy as np
import pytest

from federated.data.dataset import Dataset, DatasetInfo
from federated.data.labelling import LABELLINGS
from federated.data.medmnist.files import dataset_info, read
from federated.data.medmnist.phantom import generate
from federated.data.medmnist.table import case_tables
from federated.data.partitioning import case_counts, counted_labels, partition_dataset
from federated.errors import ConsiliumError
from federated.settings.sections import SitesSettings
from federated.settings.target import Target

CASES = {"train": 60, "val": 12, "test": 24}
CHEST = replace(dataset_info("chestmnist"), cases=CASES)
AGE = DatasetInfo(
    "age", ("age",), 2, 1, CASES, "", "regression", Target(0, 120, mean=55, sd=18, unit="years")
)


def arrays_of(info, seed=0):
    return generate(info, 28, seed)


def read_back(path, info, arrays):
    np.savez(path, **arrays)
    return read(path, info, 28)


def test_the_sets_of_medmnist_say_what_they_are_for():
    tasks = {n: dataset_info(n).task for n in ("bloodmnist", "chestmnist", "retinamnist")}
    assert tasks == {
        "bloodmnist": "classification",
        "chestmnist": "multilabel",
        "retinamnist": "regression",
    }
    grade = dataset_info("retinamnist")
    assert (grade.classes, grade.target) == (("grade",), Target(0, 4, whole=True))
    assert len(dataset_info("chestmnist").classes) == 14


def test_several_labels_are_read_as_a_row_for_each_case(tmp_path):
    arrays = arrays_of(CHEST)
    dataset = read_back(tmp_path / "c.npz", CHEST, arrays)
    for split, count in CASES.items():
        labels = dataset.labels[split]
        assert (labels.shape, labels.dtype) == ((count, 14), np.int64)
        np.testing.assert_array_equal(labels, arrays[f"{split}_labels"])


@pytest.mark.parametrize("shape", [(60,), (60, 1)])
def test_numbers_of_a_file_of_ones_own_are_read_as_they_are(tmp_path, shape):
    arrays = arrays_of(AGE)
    told = arrays["train_labels"].astype(np.float32).reshape(shape)
    dataset = read_back(tmp_path / "a.npz", AGE, arrays | {"train_labels": told})
    labels = dataset.labels["train"]
    assert (labels.shape, labels.dtype) == ((60,), np.float64)
    np.testing.assert_array_equal(labels, told.reshape(-1))


def spoiled(info, change):
    arrays = arrays_of(info)
    labels = arrays["val_labels"].copy()
    arrays["val_labels"] = change(labels)
    return arrays


def put(value, row=3):
    def change(labels):
        labels = labels.astype(np.asarray(value).dtype if np.asarray(value).dtype != int else int)
        labels[row, -1] = value
        return labels

    return change


@pytest.mark.parametrize(
    ("info", "change", "said"),
    [
        (CHEST, put(2), r"val_labels holds 2 in 1 of 12 cases, the first number 3"),
        (CHEST, put(-1), r"holds -1 in 1 of 12 cases"),
        (CHEST, lambda y: y[:, :13], r"has shape \(12, 13\).*needs \(12, 14\)"),
        (CHEST, lambda y: y.astype(float), r"type float64; it needs"),
        (AGE, put(float("nan")), r"holds nan in 1 of 12 cases, the first number 3"),
        (AGE, put(float("inf")), r"holds inf in 1 of 12 cases"),
        (AGE, put(121.0), r"holds 121 .*age lies in 0\.\.120"),
        (AGE, put(-0.5), r"holds -0\.5 .*age lies in 0\.\.120"),
        (AGE, lambda y: y.astype(str), r"it needs \(12, 1\) of numbers"),
        (AGE, lambda y: y[:5], r"has shape \(5, 1\)"),
        (replace(AGE, target=Target(0, 120, whole=True)), put(7.5), r"is a whole number"),
    ],
)
def test_labels_that_cannot_be_are_refused_with_the_case(tmp_path, info, change, said):
    with pytest.raises(ConsiliumError, match=said):
        read_back(tmp_path / "x.npz", info, spoiled(info, change))


@pytest.mark.parametrize(
    "given",
    [
        {"low": 1, "high": 1},
        {"low": 2, "high": 1},
        {"low": 0, "high": float("inf")},
        {"low": float("nan"), "high": 1},
        {"low": 0, "high": 1, "sd": 0},
        {"low": 0, "high": 1, "mean": float("nan")},
    ],
)
def test_a_range_that_is_none_is_refused(given):
    with pytest.raises(ValueError, match=r"no range|not above 0"):
        Target(**given)


def test_numbers_are_standardised_by_the_description_alone():
    told, untold = Target(0, 120, mean=55, sd=18), Target(0, 120)
    assert (told.centre, told.scale) == (55, 18)
    even = np.linspace(0, 120, 100_001)
    assert untold.centre == pytest.approx(even.mean())
    assert untold.scale == pytest.approx(even.std(), rel=1e-4)
    assert untold.share(np.array([0.0, 30.0, 120.0])).tolist() == [0, 0.25, 1]


def test_cases_of_several_labels_are_dealt_by_the_rarest():
    labels = {
        # The third label is the rarest, the second the most frequent; nobody has the fourth.
        "train": np.array([[1, 1, 0, 0], [0, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]]),
        "val": np.array([[0, 1, 1, 0]]),
        "test": np.zeros((0, 4), int),
    }
    found = LABELLINGS["multilabel"].strata(labels)
    assert found["train"].tolist() == [0, 1, 2, 3, 1]
    assert found["val"].tolist() == [2]
    assert found["test"].tolist() == []


def test_numbers_are_dealt_by_tenths_and_grades_by_grade():
    strata = LABELLINGS["regression"].strata
    numbers = np.random.default_rng(0).lognormal(size=1000)
    found = strata({"train": numbers, "val": np.array([-9.0, 1e9]), "test": np.zeros(0)})
    assert np.bincount(found["train"]).tolist() == pytest.approx([100] * 10, abs=1)
    assert found["val"].tolist() == [0, 9]
    assert np.all(np.diff(found["train"][np.argsort(numbers)]) >= 0)
    grades = np.repeat([0.0, 1, 2, 3, 4], [50, 10, 20, 10, 10])
    found = strata({"train": grades, "val": grades[:3], "test": grades[-2:]})
    assert np.array_equal(found["train"], grades)


@pytest.mark.parametrize("info", [CHEST, AGE], ids=["labels", "number"])
@pytest.mark.parametrize("how", ["iid", "dirichlet", "pathological", "quantity"])
def test_every_case_goes_to_one_site_however_it_is_dealt(info, how):
    dataset = dataset_of(info)
    sites = SitesSettings(count=3, partition=how, min_cases=4, classes_per_site=6)
    partition = partition_dataset(dataset, sites, 0)
    for split, count in CASES.items():
        dealt = sorted(i for splits in partition.sites.values() for i in splits[split])
        assert dealt == list(range(count))
    assert partition == partition_dataset(dataset, sites, 0)


def dataset_of(info):
    arrays = arrays_of(info)
    checked = LABELLINGS[info.task].checked
    return Dataset(
        info,
        {split: arrays[f"{split}_images"][:, np.newaxis] for split in CASES},
        {split: checked(arrays[f"{split}_labels"], n, info) for split, n in CASES.items()},
    )


def test_dirichlet_skews_numbers_and_iid_does_not():
    info = replace(AGE, cases={"train": 600, "val": 20, "test": 20})
    arrays = arrays_of(info)
    labels = {s: arrays[f"{s}_labels"].reshape(-1) for s in CASES}
    dataset = Dataset(info, {}, labels)

    def spread(how):
        sites = SitesSettings(count=4, partition=how, beta=0.1, min_cases=5)
        splits = partition_dataset(dataset, sites, 0).sites.values()
        return np.std([labels["train"][list(s["train"])].mean() for s in splits])

    assert spread("dirichlet") > 10 * spread("iid")


def test_sites_are_shown_with_how_many_cases_have_each_label():
    dataset = dataset_of(CHEST)
    partition = partition_dataset(dataset, SitesSettings(count=2, partition="iid"), 0)
    counts = case_counts(dataset, partition)
    assert counted_labels(dataset) == CHEST.classes
    total = sum(np.array(counts[site]["train"]) for site in partition.sites)
    np.testing.assert_array_equal(total, dataset.labels["train"].sum(axis=0))
    ages = dataset_of(AGE)
    assert counted_labels(ages) == ()
    assert case_counts(ages, partition)["site-00"]["train"] == [30]


def test_the_table_of_cases_says_what_their_labels_are():
    dataset = dataset_of(CHEST)
    partition = partition_dataset(dataset, SitesSettings(count=2, partition="iid"), 0)
    for site, table in case_tables(dataset, partition).items():
        train = list(partition.sites[site]["train"])
        own = dataset.labels["train"][train]
        assert table["label"][0] == " ".join(map(str, np.flatnonzero(own[0])))
        assert table["unknown_labels"].sum() == 0
        with_some = np.flatnonzero(own.any(axis=1))[0]
        having = own.sum(axis=0)[own[with_some] == 1]
        assert table["class_cases"][with_some] == having.min()
    ages = dataset_of(AGE)
    table = case_tables(ages, partition)["site-00"]
    first = ages.labels["train"][partition.sites["site-00"]["train"][0]]
    assert table["label"][0] == first
    assert "class_cases" not in table
