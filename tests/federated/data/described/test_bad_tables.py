"""What is wrong in a table is refused in one paragraph, with the file, the line and the column."""

import re

import numpy as np
import pytest
import yaml
from PIL import Image

from federated.configuration.description_file import find_description
from federated.configuration.load import load_experiment
from federated.data.folders.families import Listing
from federated.data.folders.prepared_case import prepare_case
from federated.data.folders.table import folder_tables
from federated.data.load import load, locate_local
from federated.errors import ConsiliumError
from federated.settings.sections import DataSettings
from tests.described_sets import CLASSES, PICTURES, describe, picture_set, write_table


def read(root, name="mine"):
    described = find_description(name, root)
    settings = DataSettings(dataset=name, source="files", root=root, described=described)
    return load(locate_local(settings), settings)


def refused(root) -> str:
    with pytest.raises(ConsiliumError) as caught:
        read(root)
    said = str(caught.value)
    assert "\n" not in said
    assert str(root / "mine") in said
    return said


@pytest.fixture
def mine(tmp_path):
    """A folder with twelve pictures, whose rows a test changes and writes again."""
    rows = picture_set(tmp_path / "mine")
    for row in rows:
        del row["label"]
    write_table(tmp_path / "mine", rows)
    describe(tmp_path / "mine", PICTURES)
    return tmp_path, rows


CELLS = {
    "a missing file": (
        "image",
        "images/none.png",
        "line 4, column image: 'images/none.png' is not",
    ),
    "a missing mask": (
        "mask",
        "masks/none.png",
        "line 4, column mask: 'masks/none.png' is not the",
    ),
    "an absolute path": ("image", "/etc/hostname", "is an absolute path"),
    "a drive": ("image", "C:\\images\\a.png", "is an absolute path"),
    "a path that leaves": ("image", "images/../../x.png", "leaves the table's folder"),
    "backslashes that leave": (
        "image",
        "..\\mine\\images\\case_00.png",
        "leaves the table's folder",
    ),
    "the folder above, by a series": ("image", "..#7", "leaves the table's folder"),
    "a name that no file can have": ("image", "x" * 300 + "#7", "xx is not there"),
    "its own folder, by a series": ("image", ".#7", "'.#7' is not there"),
    "a series below a link back": ("image", "images/..#7", "leaves the table's folder"),
    "an empty cell": ("patient", "", "line 4, column patient: the cell is empty. Mend"),
    "a cell that says nothing": ("site", "N/A", "column site: the cell says 'N/A', by"),
    "a site that no folder can have": (
        "site",
        "north/west",
        "line 4, column site: 'north/west' can",
    ),
    "a case that is there twice": ("image", "images/case_00.png", "is the image of line 2 too"),
}


@pytest.mark.parametrize("fault", CELLS)
def test_a_wrong_cell_is_named_with_its_line_and_column(mine, fault):
    root, rows = mine
    column, cell, said = CELLS[fault]
    rows[2][column] = cell
    write_table(root / "mine", rows)
    assert said in refused(root)


def test_a_path_with_backslashes_as_a_spreadsheet_of_windows_has_it_is_read(mine):
    root, rows = mine
    for row in rows:
        row["image"] = row["image"].replace("/", "\\")
    write_table(root / "mine", rows)
    dataset = read(root)
    assert not dataset.unmatched
    assert dataset.cases["train"][0].name.startswith("case_")


def test_all_faults_of_a_table_are_named_at_once(mine):
    root, rows = mine
    rows[0]["image"], rows[5]["site"] = "images/none.png", "a b"
    write_table(root / "mine", rows)
    said = refused(root)
    assert "line 2, column image" in said
    assert "line 7, column site" in said


def test_a_patient_in_two_splits_is_refused_by_line_and_not_by_name(mine):
    root, rows = mine
    for number, row in enumerate(rows):
        row["split"] = ("train", "val", "test")[number % 3]
    rows[1]["patient"] = rows[0]["patient"] = "DOE^JOHN"
    write_table(root / "mine", rows)
    said = refused(root)
    assert (
        "line 3, column split: the patient of this line is in val and, by line 2, in train" in said
    )
    assert "DOE" not in said


def test_a_split_that_is_none_and_a_split_without_cases_are_refused(mine):
    root, rows = mine
    for number, row in enumerate(rows):
        row["split"] = "train" if number else "training"
    write_table(root / "mine", rows)
    assert "'training' is no split; there are train, val, test" in refused(root)
    rows[0]["split"] = "val"
    write_table(root / "mine", rows)
    assert "puts no case into test" in refused(root)


def test_stated_splits_are_taken_as_they_are(mine):
    root, rows = mine
    for number, row in enumerate(rows):
        row["split"] = ("train", "train", "VAL", "test")[number % 4]
    write_table(root / "mine", rows)
    dataset = read(root)
    assert [case.name for case in dataset.cases["val"]] == ["case_02", "case_06", "case_10"]
    assert dataset.info.cases == {"train": 6, "val": 3, "test": 3}


def test_a_column_whose_meaning_nobody_has_said_is_refused(mine):
    root, rows = mine
    for row in rows:
        row["grade"] = "3"
    write_table(root / "mine", rows)
    assert "columns whose meaning nobody has said: grade" in refused(root)
    describe(root / "mine", {**PICTURES, "columns": {"attributes": ["Grade"]}})
    assert read(root).info.cases["train"] == 8


def test_a_column_that_is_there_twice_is_refused_with_what_can_be_done(mine):
    root, rows = mine
    lines = [",".join(["elsewhere", *row.values()]) for row in rows]
    for header, said in (
        ("Site", "has the columns site more than once (line 1)"),
        ("", "whose meaning nobody has said: one without a name (line 1)"),
    ):
        text = "\n".join([",".join([header, *rows[0]]), *lines])
        (root / "mine" / "cases.csv").write_text(text + "\n")
        assert said in refused(root)
        assert ("Give each a name of its own, or delete one." in refused(root)) is bool(header)


def test_a_column_that_is_described_and_not_there_is_refused(mine):
    root, _ = mine
    describe(root / "mine", {**PICTURES, "columns": {"site": "hospital"}})
    said = refused(root)
    assert "does not have the columns hospital" in said
    assert "which is 'patient, image, mask, site': hospital is missing. dataset.yaml" in said
    assert "dataset.yaml names hospital under `columns:`: write there the name" in said
    assert "columns: {" not in said


def test_a_column_that_was_renamed_can_be_named_in_the_description(mine):
    root, rows = mine
    renamed = [{"segmentation" if k == "mask" else k: v for k, v in row.items()} for row in rows]
    write_table(root / "mine", renamed)
    said = refused(root)
    assert "which is 'patient, image, segmentation, site': mask is missing." in said
    (advice,) = re.findall(r"say in dataset.yaml which column it is, as (columns: \{.*\})\.", said)
    assert advice == "columns: {mask: segmentation}"
    describe(root / "mine", {**PICTURES, **yaml.safe_load(advice)})
    assert read(root).cases["train"][0].mask is not None


def test_a_mask_with_a_value_that_no_label_has_is_refused_even_if_it_is_small(mine):
    root, rows = mine
    mask = np.zeros((24, 36), np.uint8)
    mask[3:9, 3:9] = 1  # which a family with 255 for its first label would take for it
    Image.fromarray(mask).save(root / "mine" / rows[0]["mask"])
    dataset = read(root)
    (case,) = [c for cases in dataset.cases.values() for c in cases if c.name == "case_00"]
    with pytest.raises(ConsiliumError, match="has the label 1, which mine does not know"):
        prepare_case(dataset.family, case)


def test_values_that_a_description_knows_are_said_with_where_it_says_so(mine):
    root, _ = mine
    describe(root / "mine", {**PICTURES, "labels": {"background": [0, 7], "lesion": 254}})
    family = read(root).family
    known = "known are 0 (background), 7 (background), 254 (lesion), by `labels` of dataset.yaml"
    assert family.values_known() == known
    listing = Listing(family.find(root / "mine").cases[:2], ())
    table = folder_tables(family, {"all": listing})["all"]
    assert list(table["labels"]) == [f"255, where {known}"] * 2


def test_a_mask_on_another_grid_is_refused(mine):
    root, rows = mine
    Image.fromarray(np.full((20, 20), 255, np.uint8)).save(root / "mine" / rows[0]["mask"])
    dataset = read(root)
    (case,) = [c for cases in dataset.cases.values() for c in cases if c.name == "case_00"]
    with pytest.raises(ConsiliumError, match="different shapes"):
        prepare_case(dataset.family, case)


def test_an_unknown_class_is_refused_with_the_classes_that_there_are(tmp_path):
    rows = picture_set(tmp_path / "mine")
    rows[3]["label"] = "2"
    write_table(tmp_path / "mine", rows)
    describe(tmp_path / "mine", CLASSES)
    said = refused(tmp_path)
    assert "line 5, column label: '2' is no label of the set; there are normal (0), ill (1)" in said


def test_a_table_as_a_spreadsheet_saves_it_is_the_same_table(mine):
    root, rows = mine
    before = read(root)
    lines = [";".join(rows[0]), *(";".join(row.values()) for row in rows), "", ";;;"]
    (root / "mine" / "cases.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert read(root).cases == before.cases


def test_a_folder_with_a_table_and_no_description_says_how_to_make_one(mine):
    root, _ = mine
    (root / "mine" / "dataset.yaml").unlink()
    assert "consilium data init" in refused(root)


def test_a_stray_file_is_unmatched_and_what_ignored_columns_name_is_not(mine):
    root, rows = mine
    (root / "mine" / "images" / "stray.png").write_bytes(b"x")
    assert [path.name for path in read(root).unmatched] == ["stray.png"]
    for row, other in zip(rows, ["images/stray.png"] * len(rows), strict=True):
        row["preview"] = other
    write_table(root / "mine", rows)
    describe(root / "mine", {**PICTURES, "columns": {"ignored": ["preview"]}})
    assert read(root).unmatched == ()


DESCRIPTIONS = {
    "an unknown key": ({"labls": {}}, "labls is not a known key"),
    "an impossible task": ({"task": "detection"}, "task='detection' is not possible"),
    "one class": ({"labels": {"background": 0}}, "at least two classes"),
    "no background": ({"labels": {"a": 1, "b": 2}}, "no class with the value 0"),
    "a value twice": ({"labels": {"a": 0, "b": 1, "c": 1}}, "the value '1' to two classes"),
    "a truth value": ({"labels": {"a": 0, "b": True}}, "labels has True"),
    "an odd shape": ({"shape": [17, 24]}, "multiples of 8"),
    "axes of a volume": ({"shape": [16, 24, 8]}, "multiples of 8"),
    "a window of pictures": ({"window": [0, 1]}, "window is in Hounsfield units"),
    "a spacing of pictures": ({"spacing": [1, 1]}, "spacing is in mm"),
    "a folder elsewhere": ({"folder": "../x"}, "folder='../x' has to be the name of a folder"),
    "two meanings": ({"columns": {"site": "a", "mask": "A"}}, "two meanings to the column 'a'"),
    "patches of classes": ({"task": "classification", "whole": False}, "whole=false draws patches"),
}


@pytest.mark.parametrize("fault", DESCRIPTIONS)
def test_a_wrong_description_is_refused_with_its_file_and_line(mine, fault):
    root, _ = mine
    change, said = DESCRIPTIONS[fault]
    describe(root / "mine", {**PICTURES, **change})
    with pytest.raises(ConsiliumError, match=r"dataset\.yaml \(line \d") as caught:
        find_description("mine", root)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_description_that_is_no_yaml_or_has_a_key_twice_is_refused(mine):
    root, _ = mine
    for text, said in (
        ("task: [", "line 1"),
        ("task: a\ntask: b\n", "again in line 2"),
        ("", "empty"),
    ):
        (root / "mine" / "dataset.yaml").write_text(text)
        with pytest.raises(ConsiliumError, match=said):
            find_description("mine", root)


def test_a_description_cannot_be_set_in_params(tmp_path):
    with pytest.raises(ConsiliumError, match=r"data\.described is not a key to set"):
        load_experiment("demo", ["data.described.task=segmentation"])


def test_a_name_that_leaves_the_root_describes_nothing(mine):
    root, _ = mine
    (root / "below").mkdir()
    assert find_description("../mine", root / "below") is None
    with pytest.raises(ConsiliumError, match="is not known"):
        load_experiment("demo", ["data.dataset=../mine", f"data.root={root / 'below'}"])
