"""The cases of one site, as a described set of its own."""

import csv
import shutil

import pytest

from federated.data.dataset import SPLITS
from federated.data.folders.dataset import found_cases, read_family, split_cases
from federated.data.folders.described.case_table import find_cases
from federated.data.folders.described.dealing import deal_cases
from federated.data.folders.described.family import described_family
from federated.data.folders.described.labelled import read_labelled
from federated.data.folders.dicom.objects import objects_in
from federated.data.folders.dicom.rules import DicomRules
from federated.data.folders.dicom.series import read_series
from federated.data.folders.dicom.series_path import split_series
from federated.errors import ConsiliumError
from federated.settings.description import Description
from tests.described_sets import CLASSES, PICTURES, describe, picture_set, write_table
from tests.federated.data.dicom_files import saved, slices_of, voxels


def dealt(folder, description, site, chosen):
    """What a site has of the cases of a folder that it is dealt, by their names and splits."""
    settled = Description.model_validate(description)
    known = find_cases(folder, settled).cases
    own = {s: [case for case in known if chosen.get(case.name) == s] for s in SPLITS}
    deal_cases(folder, settled, own, site, folder.parent / site)
    return settled, folder.parent / site


@pytest.mark.parametrize("stated", [False, True], ids=["drawn", "of the table"])
def test_a_site_has_its_own_cases_in_the_splits_that_they_had(tmp_path, stated):
    folder = tmp_path / "whole"
    rows = picture_set(folder, 12)
    for number, row in enumerate(rows):
        del row["label"]
        if stated:
            row["split"] = ("train", "train", "val", "test")[number % 4]
    write_table(folder, rows)
    describe(folder, PICTURES)
    family = described_family("mine", Description.model_validate(PICTURES))
    whole = split_cases(folder, "mine", found_cases(folder, family).cases)
    chosen = {case.name: split for split, cases in whole.items() for case in cases[::2]}
    _, place = dealt(folder, PICTURES, "clinic", chosen)
    own = read_family(place, family)
    assert {c.name: split for split, cases in own.cases.items() for c in cases} == chosen
    for cases, before in zip(own.cases.values(), whole.values(), strict=True):
        for case, same in zip(cases, before[::2], strict=True):
            assert case.site == "clinic"
            assert case.images[0].read_bytes() == same.images[0].read_bytes()
            assert case.mask.read_bytes() == same.mask.read_bytes()
    # Nothing of the others is there.
    assert not own.unmatched
    assert len(list(place.rglob("*.png"))) == 2 * len(chosen)
    with (place / "cases.csv").open() as file:
        assert len(list(csv.reader(file))) == 1 + len(chosen)


def test_labels_and_attributes_are_kept(tmp_path):
    folder = tmp_path / "whole"
    rows = [row | {"Age": str(30 + n)} for n, row in enumerate(picture_set(folder, 12))]
    write_table(folder, rows)
    describe(folder, CLASSES)
    chosen = {f"case_{n:02d}": ("train", "val", "test")[n % 3] for n in range(6)}
    settled, place = dealt(folder, CLASSES, "clinic", chosen)
    own = read_labelled(place, described_family("mine", settled), settled)
    assert own.labels["test"].tolist() == [int(rows[n]["label"]) for n in (2, 5)]
    assert [dict(each.attributes)["age"] for each in own.origins["test"]] == ["32", "35"]


def test_a_series_is_copied_with_all_its_files_and_a_column_called_split_stays_what_it_is(tmp_path):
    folder = tmp_path / "whole"
    rows = picture_set(folder, 4)
    for number, row in enumerate(rows):
        series = folder / "series" / str(number)
        series.mkdir(parents=True)
        shutil.copyfile(folder / row["image"], series / "1.dcm")
        shutil.copyfile(folder / row["image"], series / "2.dcm")
        row |= {"image": f"series/{number}", "split": "left"}
    write_table(folder, rows)
    description = {**CLASSES, "columns": {"ignored": ["mask", "split"]}}
    describe(folder, description)
    settled = Description.model_validate(description)
    names = [case.name for case in find_cases(folder, settled).cases]
    _, place = dealt(folder, description, "clinic", {names[1]: "train"})
    assert sorted(path.name for path in place.rglob("*.dcm")) == ["1.dcm", "2.dcm"]
    with (place / "cases.csv").open() as file:
        (line,) = csv.DictReader(file)
    assert line["split"] == "left"


def dicom_set(folder, numbers, names):
    """A set of series of one folder, each of another patient; by a series' name its case's."""
    rows = picture_set(folder, len(numbers))
    made = []
    for at, (row, number, name) in enumerate(zip(rows, numbers, names, strict=True)):
        slices = slices_of(voxels(3, seed=at), series=f"2.25.{100 + at}")
        for one in slices:
            one.SeriesNumber = number
        made += slices
        row["image"] = f"exam#{name}"
    saved(folder / "exam", made)
    write_table(folder, rows)
    describe(folder, CLASSES)
    cases = find_cases(folder, Description.model_validate(CLASSES)).cases
    return {case.images[0].name.partition("#")[2]: case.name for case in cases}


def test_of_a_folder_with_several_series_a_site_has_its_own_alone(tmp_path):
    folder = tmp_path / "whole"
    names = dicom_set(folder, [4, 7, 9], ["4", "7", "2.25.102"])
    for name, own in (("7", "2.25.101"), ("2.25.102", "2.25.102")):
        place = tmp_path / f"clinic-{name}"
        dealt(folder, CLASSES, place.name, {names[name]: "train"})
        (cell,) = [row["image"] for row in csv.DictReader((place / "cases.csv").open())]
        there, series = split_series(place / cell)
        assert {found.text("SeriesInstanceUID") for found in objects_in(there)} == {own}
        assert len(list(there.iterdir())) == 3
        read = read_series(there, DicomRules(series=series))
        assert (read.values == read_series(folder / "exam", DicomRules(series=series)).values).all()


def test_a_series_that_is_named_by_its_place_among_others_is_not_dealt(tmp_path):
    folder = tmp_path / "whole"
    names = dicom_set(folder, [4, 4], ["@1", "@2"])
    with pytest.raises(ConsiliumError, match=r"Series @2 of .*exam is named by its place"):
        dealt(folder, CLASSES, "clinic", {names["@2"]: "train"})


def test_a_folder_of_series_is_whole_where_a_mask_in_it_was_copied_before(tmp_path):
    folder = tmp_path / "whole"
    rows = picture_set(folder, 3)
    saved(folder / "series", slices_of(voxels(2)), names=["1.dcm", "2.dcm"])
    shutil.move(folder / rows[0]["mask"], folder / "series" / "mask.png")
    rows[0]["mask"], rows[1]["image"] = "series/mask.png", "series#3"
    rows[2]["image"] = "series"
    for row in rows:
        del row["label"]
    write_table(folder, rows)
    describe(folder, PICTURES)
    names = [c.name for c in find_cases(folder, Description.model_validate(PICTURES)).cases]
    for chosen in (names, names[:2]):
        _, place = dealt(folder, PICTURES, f"clinic-{len(chosen)}", dict.fromkeys(chosen, "train"))
        there = sorted(path.name for path in (place / "series").iterdir())
        assert there == ["1.dcm", "2.dcm", "mask.png"]
