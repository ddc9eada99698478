import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from federated.configuration.experiment import Experiment
from federated.configuration.load import resolve
from federated.data.dataset import SPLITS, Dataset
from federated.data.label_partition import partition_labels
from federated.data.labelling import LABELLINGS
from federated.data.medmnist import files as medmnist
from federated.data.medmnist.phantom import generate
from federated.data.partitioning import partition_dataset
from federated.data.tables import site_tables
from federated.errors import ConsiliumError
from tasks.suites import run_suites
from tasks.validate import validate
from tests.conftest import TINY_PARAMS, tiny_volumes

INFO = medmnist.dataset_info("adrenalmnist3d")


def three_sites(**validation: object) -> Experiment:
    sites = {"count": 3, "partition": "iid", "min_cases": 8}
    sections = {"sites": sites, "validate": validation}
    return resolve("tiny", TINY_PARAMS["defaults"] | sections, "params.yaml")


def check(folder: Path, arrays: dict[str, np.ndarray] | None = None, **settings: object):
    arrays = arrays or tiny_volumes()
    dataset = Dataset(
        INFO,
        {split: arrays[f"{split}_images"][:, None] for split in SPLITS},
        {split: arrays[f"{split}_labels"][:, 0].astype(np.int64) for split in SPLITS},
    )
    sites = {"count": 3, "partition": "iid", "min_cases": 8}
    experiment = resolve(
        "tiny", TINY_PARAMS["defaults"] | {"sites": sites, "validate": settings}, ""
    )
    partition = partition_labels(dataset.labels, experiment.sites, 0)
    return validate.fn(experiment, dataset, partition, folder), partition


def test_good_data_pass_and_leave_data_docs(tmp_path):
    validation, partition = check(tmp_path)
    assert validation.excluded == ()
    assert set(validation.failures) == set(partition.sites)
    assert json.loads((tmp_path / "validation.json").read_text())["failures"] == {}
    index = (tmp_path / "data_docs" / "index.html").read_text()
    assert "site-02" in index


def spoil(fault: str) -> tuple[dict[str, np.ndarray], str]:
    """Arrays with one fault at site-01, whose cases are known from the labels alone."""
    arrays = tiny_volumes()
    labels = {split: arrays[f"{split}_labels"][:, 0].astype(np.int64) for split in SPLITS}
    own = partition_labels(labels, three_sites().sites, 0).sites["site-01"]
    if fault == "constant":
        arrays["train_images"][own["train"][0]] = 7
        return arrays, "not constant: broken by 1 case"
    if fault == "duplicate":
        arrays["train_images"][own["train"][0]] = arrays["train_images"][own["train"][1]]
        return arrays, "no duplicate volume at the site: broken by 2 cases"
    if fault == "leak":
        arrays["test_images"][own["test"][0]] = arrays["train_images"][own["train"][1]]
        return arrays, "no volume in both training and evaluation: broken by 1 case"
    arrays["train_images"] = arrays["train_images"].astype(np.float32)
    arrays["train_images"][own["train"][0], 3, 3, 3] = np.nan
    return arrays, "no NaN: broken by 1 case"


@pytest.mark.parametrize("fault", ["constant", "duplicate", "leak"])
def test_a_fault_is_named_with_its_site_and_rule(tmp_path, fault):
    arrays, said = spoil(fault)
    with pytest.raises(ConsiliumError, match=rf"(?s)1 of 3 sites fail.*\n  site-01: {said}"):
        check(tmp_path, arrays)
    assert (tmp_path / "data_docs" / "index.html").is_file()


def test_a_float_volume_with_nan_breaks_type_and_nan_rules(tmp_path):
    arrays, said = spoil("nan")
    with pytest.raises(ConsiliumError, match=f"site-01: {said}") as caught:
        check(tmp_path, arrays)
    assert "type: " in str(caught.value)


def test_a_failing_site_can_be_excluded(tmp_path):
    validation, _ = check(tmp_path, spoil("constant")[0], on_failure="exclude-site")
    assert validation.excluded == ("site-01",)
    report = json.loads((tmp_path / "validation.json").read_text())
    assert report["excluded_sites"] == ["site-01"]
    assert "not constant" in report["failures"]["site-01"][0]


def test_no_site_left_is_refused(tmp_path):
    arrays = tiny_volumes()
    arrays["train_images"][:] = 7
    with pytest.raises(ConsiliumError, match="no site is left"):
        check(tmp_path, arrays, on_failure="exclude-site")


def test_too_few_cases_of_a_class_are_named(tmp_path):
    with pytest.raises(ConsiliumError, match="at least 30 training cases of each class"):
        check(tmp_path, min_cases_per_class=30)


def of_other_tasks(task: str, spoil) -> list[str]:
    """The rules that a site's cases break, of a set whose labels were changed after reading."""
    name = {"multilabel": "chestmnist", "regression": "retinamnist"}[task]
    info = replace(medmnist.dataset_info(name), cases={"train": 40, "val": 8, "test": 8})
    arrays = generate(info, 28, 0)
    images = {s: arrays[f"{s}_images"] for s in SPLITS}
    images = {s: np.moveaxis(a, -1, 1) if a.ndim == 4 else a[:, None] for s, a in images.items()}
    labels = {
        s: LABELLINGS[info.task].checked(arrays[f"{s}_labels"], len(images[s]), info)
        for s in SPLITS
    }
    dataset = Dataset(info, images, labels)
    partition = partition_dataset(dataset, three_sites().sites, 0)
    table = site_tables(dataset, partition)["site-00"]
    spoil(table)
    experiment = resolve(
        "other",
        TINY_PARAMS["defaults"]
        | {
            "data": {"dataset": name, "source": "files"},
            "sites": {"count": 3, "partition": "iid", "min_cases": 8},
            "selection": {"metric": "val/loss"},
        },
        "",
    )
    with tempfile.TemporaryDirectory() as docs:
        broken = run_suites(experiment, dataset.info, {"site-00": table}, Path(docs) / "docs")
    return [rule.rule for rule in broken["site-00"]]


def put(column, value):
    def spoil(table):
        table[column] = table[column].astype(object if value is None else type(value))
        table.loc[3, column] = value

    return spoil


@pytest.mark.parametrize(
    ("task", "spoil", "rules"),
    [
        ("multilabel", lambda table: None, []),
        ("multilabel", put("unknown_labels", 1), ["labels that are 0 or 1"]),
        ("multilabel", put("class_cases", 0), ["at least 1 training cases of each label it has"]),
        ("regression", lambda table: None, []),
        ("regression", put("label", 4.5), ["a grade within 0..4"]),
        ("regression", put("label", float("nan")), ["a grade for each case"]),
    ],
)
def test_labels_of_every_task_are_validated(task, spoil, rules):
    assert of_other_tasks(task, spoil) == rules
