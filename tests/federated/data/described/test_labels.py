"""Several labels and numbers in a table: read as they are, dealt evenly, refused where wrong."""

import numpy as np
import pytest

from federated.configuration.description_file import find_description
from federated.data.folders.dataset import split_patients
from federated.data.folders.described.phantom import materialise_described
from federated.data.folders.described.proposal import propose
from federated.data.folders.families import CaseFiles
from federated.data.folders.families.side_table import known_number
from federated.data.load import known_info, load, locate, locate_local
from federated.data.partitioning import case_counts, partition_dataset
from federated.errors import ConsiliumError
from federated.settings.sections import DataSettings, SitesSettings
from federated.settings.target import Target
from tests.described_sets import (
    FINDINGS,
    SIDES,
    describe,
    labelled_pictures,
    picture_set,
    write_table,
)

SETS = {"multilabel": FINDINGS, "regression": SIDES}


def settings_of(root, source="files"):
    described = find_description("mine", root)
    return DataSettings(dataset="mine", source=source, root=root, described=described)


def read(root):
    settings = settings_of(root)
    return load(locate_local(settings), settings)


def test_labels_are_those_of_the_table(tmp_path):
    rows = labelled_pictures(tmp_path / "mine", FINDINGS)
    found = read(tmp_path)
    assert found.info.classes == ("large", "dark (1/2)")
    told = {
        origin.name: tuple(label)
        for split, origins in found.origins.items()
        for origin, label in zip(origins, found.labels[split].tolist(), strict=True)
    }
    assert told == {
        f"case_{number:02d}": (int(row["large"]), int(row["dark (1/2)"]))
        for number, row in enumerate(rows)
    }


def test_numbers_are_those_of_the_table_to_the_last_digit(tmp_path):
    rows = labelled_pictures(tmp_path / "mine", SIDES)
    rows[0]["side"], rows[1]["side"] = "6,0625", "7.123456789012345"
    write_table(tmp_path / "mine", rows)
    found = read(tmp_path)
    assert found.info.classes == ("side",)
    assert found.info.target == Target(0, 20, unit="mm")
    every = np.concatenate([*found.labels.values()])
    assert every.dtype == np.float64
    assert sorted(every) == sorted(float(row["side"].replace(",", ".")) for row in rows)


@pytest.mark.parametrize("task", SETS)
def test_what_is_known_without_the_images_is_what_is_read(tmp_path, task):
    labelled_pictures(tmp_path / "mine", SETS[task])
    known, found = known_info(settings_of(tmp_path)), read(tmp_path).info
    assert (known.task, known.classes, known.target) == (task, found.classes, found.target)


@pytest.mark.parametrize("task", SETS)
def test_generated_images_have_the_same_form(tmp_path, task):
    labelled_pictures(tmp_path / "mine", SETS[task])
    settings = settings_of(tmp_path, "phantom")
    found = load(locate(settings), settings)
    assert (found.info.task, found.info.target) == (task, settings.described.target)
    assert len(np.unique(found.labels["train"], axis=0)) > 3
    again = materialise_described("mine", settings.described, settings.phantom_seed, tmp_path)
    assert again.md5 == locate(settings).md5


CELLS = {
    "a word": (
        SIDES,
        "side",
        "large",
        "line 4, column side: 'large' is no label of the set; a num",
    ),
    "not a number": (SIDES, "side", "NaN", "line 4, column side"),
    "infinite": (SIDES, "side", "inf", "a number from 0 to 20 is expected"),
    "beyond the range": (SIDES, "side", "20.5", "'20.5' is no label of the set"),
    "a comma that could mean a thousand": (SIDES, "side", "1,500", "a number from 0 to 20"),
    "no cell": (SIDES, "side", "", "line 4, column side: the cell is empty"),
    "two": (FINDINGS, "large", "2", "'2' is no label of the set; 1 where the finding is there"),
    "a word as finding": (FINDINGS, "dark (1/2)", "yes", "line 4, column dark (1/2): 'yes'"),
    "half a finding": (FINDINGS, "dark (1/2)", "0.5", "line 4, column dark (1/2): '0.5'"),
    "an unknown finding": (FINDINGS, "dark (1/2)", "N/A", "line 4, column dark (1/2)"),
}


@pytest.mark.parametrize("fault", CELLS)
def test_a_cell_that_is_no_label_is_refused_with_its_line_and_column(tmp_path, fault):
    description, column, cell, said = CELLS[fault]
    rows = labelled_pictures(tmp_path / "mine", description)
    rows[2][column] = cell
    write_table(tmp_path / "mine", rows)
    with pytest.raises(ConsiliumError) as caught:
        read(tmp_path)
    assert said in str(caught.value)
    assert str(tmp_path / "mine" / "cases.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("task", SETS)
def test_labels_that_are_all_the_same_leave_nothing_to_learn(tmp_path, task):
    rows = labelled_pictures(tmp_path / "mine", SETS[task])
    for row in rows:
        row |= {"large": "1", "dark (1/2)": "0"} if task == "multilabel" else {"side": "6"}
    write_table(tmp_path / "mine", rows)
    dataset = read(tmp_path)
    with pytest.raises(ConsiliumError, match=r"nothing to learn of mine: its \d+ training cases"):
        partition_dataset(dataset, SitesSettings(count=2, partition="iid", min_cases=2), 0)
    # One hospital of several may have them so.
    assert partition_dataset(dataset, SitesSettings(count=1, partition="iid", min_cases=2), 0)


def test_a_number_that_has_to_be_whole_is_refused_where_it_is_not(tmp_path):
    labelled_pictures(tmp_path / "mine", SIDES)
    describe(tmp_path / "mine", {**SIDES, "target": {"low": 0, "high": 20, "whole": True}})
    with pytest.raises(ConsiliumError, match="a whole number from 0 to 20 is expected"):
        read(tmp_path)


DESCRIPTIONS = {
    "no range": (SIDES, {"target": None}, "task=regression needs the range of its number"),
    "an empty range": (SIDES, {"target": {"low": 5, "high": 5}}, "has no range"),
    "no spread": (SIDES, {"target": {"low": 0, "high": 5, "sd": 0}}, "not above 0"),
    "an unknown key": (SIDES, {"target": {"low": 0, "high": 5, "from": 1}}, "from"),
    "classes of a number": (SIDES, {"labels": {"a": 0, "b": 1}}, "Leave it out"),
    "a range of labels": (FINDINGS, {"target": {"low": 0, "high": 1}}, "number of a regression"),
    "one finding": (FINDINGS, {"columns": {"label": ["large"]}}, "a column for each finding"),
    "two numbers": (SIDES, {"columns": {"label": ["side", "label"]}}, "has one label"),
}


@pytest.mark.parametrize("fault", DESCRIPTIONS)
def test_a_description_that_contradicts_its_task_is_refused(tmp_path, fault):
    description, changes, said = DESCRIPTIONS[fault]
    labelled_pictures(tmp_path / "mine", description)
    changed = {key: value for key, value in {**description, **changes}.items() if value is not None}
    describe(tmp_path / "mine", changed)
    with pytest.raises(ConsiliumError, match=said) as caught:
        find_description("mine", tmp_path)
    assert str(tmp_path / "mine" / "dataset.yaml") in str(caught.value)


@pytest.mark.parametrize("task", SETS)
def test_cases_are_dealt_by_patient_and_by_what_is_learned_of_them(tmp_path, task):
    rows = labelled_pictures(tmp_path / "mine", SETS[task], 48)
    for row in rows:
        row["split"] = "train" if int(row["patient"][1:]) < 36 else "val"
    rows[-1]["split"] = "test"
    write_table(tmp_path / "mine", rows)
    dataset = read(tmp_path)
    partition = partition_dataset(dataset, SitesSettings(count=2, partition="iid", min_cases=2), 0)
    counts = case_counts(dataset, partition)
    means = []
    for site, splits in partition.sites.items():
        own = dataset.labels["train"][list(splits["train"])]
        means.append(own.mean(axis=0))
        expected = own.sum(axis=0).tolist() if task == "multilabel" else [len(own)]
        assert counts[site]["train"] == expected
    np.testing.assert_allclose(*means, atol=0.12 if task == "multilabel" else 0.8)


@pytest.mark.parametrize("first", range(0, 30, 3))
def test_a_rare_finding_is_in_every_split_where_the_table_has_none(first):
    cases = [
        CaseFiles(f"c{n}", (), None, f"p{n}", "north", target=(1, int(first <= n < first + 6)))
        for n in range(36)
    ]
    for held in split_patients(cases).values():
        assert any(case.target[1] for case in held)


def test_findings_too_rare_to_be_in_every_split_are_dealt_with_the_others():
    cases = [CaseFiles(f"c{n}", (), None, f"p{n}", None, target=(n % 2, 0)) for n in range(6)]
    found = split_patients(cases)
    assert {split: len(held) for split, held in found.items()} == {"train": 4, "val": 1, "test": 1}


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("1.5", 1.5),
        ("-1,5", -1.5),
        ("0,125", 0.125),
        ("1e2", 100.0),
        ("7.0", 7.0),
        ("1,500", None),
        ("1,000", None),
        ("1,0", 1.0),
        ("1.500,0", None),
        ("1_000", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("12 mm", None),
        ("", None),
    ],
)
def test_a_cell_is_a_number_only_where_it_can_be_no_other(cell, number):
    assert known_number(cell) == number


def test_columns_of_0_and_1_are_proposed_as_labels(tmp_path):
    rows = picture_set(tmp_path / "mine")
    for number, row in enumerate(rows):
        del row["mask"]
        row |= {"oedema": row.pop("label"), "hernia": str(int(number % 3 == 0))}
    write_table(tmp_path / "mine", rows)
    found = propose(tmp_path / "mine")
    assert found.description["task"] == "multilabel"
    assert found.description["columns"]["label"] == ["oedema", "hernia"]
    assert any("oedema, hernia hold 0 and 1" in doubt for doubt in found.doubts)


def test_a_column_of_numbers_is_proposed_with_a_range_that_holds_them(tmp_path):
    rows = picture_set(tmp_path / "mine")
    for number, row in enumerate(rows):
        del row["mask"], row["label"]
        row["weight"] = f"{51.5 + 2.5 * number}"
    write_table(tmp_path / "mine", rows)
    found = propose(tmp_path / "mine")
    assert found.description["task"] == "regression"
    assert found.description["columns"]["label"] == "weight"
    assert found.description["target"] == {"low": 50, "high": 80, "whole": False}
    assert any("range of weight is that of the labels here" in doubt for doubt in found.doubts)
