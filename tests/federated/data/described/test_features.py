"""Columns of derived features: what they are and their ranges is said, and nothing is guessed."""

import pytest

from federated.configuration.description_file import find_description
from federated.configuration.load import load_experiment
from federated.data.folders.described.case_table import find_cases
from federated.errors import ConsiliumError
from federated.settings.description import Description
from tests.conftest import PROJECT
from tests.described_sets import PICTURES, describe, picture_set, write_table

FEATURES = {
    "harmonise": "combat",
    "columns": {"Volume": [0, 500], "mean": [-1, 1]},
    "covariates": {"age": [0, 120]},
}
COLUMNS = {"attributes": ["age"], "ignored": ["label"]}


def own_set(root, features=FEATURES, columns=COLUMNS, **cells):
    rows = picture_set(root / "mine")
    for place, row in enumerate(rows):
        row |= {"volume": f"{10.5 + place}", "mean": "0,25", "age": str(40 + place)}
    rows[2] |= cells
    write_table(root / "mine", rows)
    describe(root / "mine", PICTURES | {"features": features, "columns": columns})
    return root / "mine"


def test_the_columns_of_features_and_covariates_come_with_each_case(tmp_path):
    folder = own_set(tmp_path)
    described = find_description("mine", tmp_path)
    found = find_cases(folder, described).cases
    assert [case.features for case in found] == [(10.5 + n, 0.25, 40 + n) for n in range(12)]
    assert described.of_model().features is None


def test_a_description_without_features_is_what_it_was():
    plain = Description.model_validate(PICTURES)
    assert "features" not in plain.model_dump(mode="json")


@pytest.mark.parametrize("cell", ["", "NA", "none"])
def test_a_feature_that_is_missing_is_refused_as_an_empty_cell(tmp_path, cell):
    folder = own_set(tmp_path, volume=cell)
    said = f"says '{cell}', by which nothing is known" if cell else "is empty"
    with pytest.raises(ConsiliumError, match=f"line 4, column volume: the cell {said}[.] Mend"):
        find_cases(folder, find_description("mine", tmp_path))


@pytest.mark.parametrize("cell", ["-1", "501", "much", "inf", "0x10"])
def test_a_feature_out_of_its_range_is_named_with_its_line_and_column(tmp_path, cell):
    folder = own_set(tmp_path, volume=cell)
    with pytest.raises(ConsiliumError, match=r"line 4, column Volume: .* no number from 0 to 500"):
        find_cases(folder, find_description("mine", tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"columns": {"volume": [5, 5]}}, "from a number to a larger one"),
        ({"columns": {"volume": [5, 1]}}, "from a number to a larger one"),
        ({"columns": {"volume": [0, float("nan")]}}, "nan"),
        ({"columns": {}}, "columns"),
        ({"columns": {"image": [0, 1]}}, "image"),
        ({"columns": {"label": [0, 1]}}, "another meaning"),
        ({"columns": {"age": [0, 120]}}, "two meanings to the column 'age'"),
        ({"harmonise": "zscore"}, "combat"),
        ({"columns": {"texture": [0, 1]}}, "texture"),
    ],
)
def test_features_that_cannot_be_are_refused(tmp_path, change, said):
    folder = own_set(tmp_path, FEATURES | change)
    with pytest.raises(ConsiliumError, match=said):
        find_cases(folder, find_description("mine", tmp_path))


def test_features_are_columns_of_a_table():
    with pytest.raises(ValueError, match="layout=nnunet has none"):
        Description.model_validate(PICTURES | {"features": FEATURES, "layout": "nnunet"})


def test_generated_images_have_no_features(tmp_path, monkeypatch):
    own_set(tmp_path)
    monkeypatch.setenv("CONSILIUM_DATA", str(tmp_path))
    sets = ["data.dataset=mine", "data.source=phantom"]
    with pytest.raises(ConsiliumError, match=r"has features.*data.source=files"):
        load_experiment("retina", sets, PROJECT / "params.yaml")
