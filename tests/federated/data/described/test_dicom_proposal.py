"""What is proposed for a folder of DICOM, with a table and without one."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from federated.configuration.description_file import find_description
from federated.data.folders.described.case_table import find_cases
from federated.data.folders.described.family import described_family
from federated.data.folders.described.proposal import Proposal, propose
from federated.data.folders.described.text import description_text, table_text
from federated.data.folders.read_case import read_case
from federated.data.folders.read_volume import read_volume
from federated.errors import ConsiliumError
from federated.secrets.pseudonyms import pseudonym
from flows.own_data import facts, identifiers, look
from tests.federated.data.dicom_files import (
    NAME,
    box,
    saved,
    segmentation,
    slices_of,
    structure_set,
    voxels,
)

SECRET = bytes(range(32))


def secret() -> bytes:
    return SECRET


def no_secret() -> bytes:
    raise AssertionError("nobody is to be named, so that no secret is needed")


def series(number: int, patient: str, modality: str = "MR", positions=None):
    """A series of its own, frame of reference and all, of a patient."""
    made = slices_of(
        voxels(seed=number), modality, positions, series=f"2.25.{number}11", signed=False
    )
    for one in made:
        one.PatientID, one.FrameOfReferenceUID = patient, f"2.25.{number}22"
    return made


def contours(number: int, patient: str, *names: str):
    drawn = [(name, [box(1, 5, 2, 6, level) for level in (1, 2, 3)]) for name in names]
    made = structure_set(drawn, frame=f"2.25.{number}22")
    made.PatientID = patient
    return made


def exam(folder: Path, number: int, patient: str, *names: str, modality: str = "MR") -> None:
    """A series with a structure set in a folder that is named after its patient."""
    saved(folder / f"DOE_JOHN_{number}" / "T1", series(number, patient, modality))
    saved(folder / f"DOE_JOHN_{number}" / "RS", [contours(number, patient, *names)], ["RS.dcm"])


def written(folder: Path, found: Proposal) -> Proposal:
    (folder / "dataset.yaml").write_text(description_text(found.description, found.doubts))
    if found.table is not None:
        (folder / "cases.csv").write_text(table_text(found.table))
    return found


def test_series_and_structure_sets_become_a_table_that_can_be_checked(tmp_path: Path) -> None:
    for number in (1, 2, 3, 4):
        exam(tmp_path / "mine", number, f"MRN-{number}", "GTV")
    found = written(tmp_path / "mine", propose(tmp_path / "mine", secret))
    assert found.description["labels"] == {"background": 0, "GTV": 1}
    assert (found.description["task"], found.description["kind"]) == ("segmentation", "volumes")
    assert [(row["image"], row["mask"]) for row in found.table] == [
        (f"DOE_JOHN_{number}/T1", f"DOE_JOHN_{number}/RS/RS.dcm") for number in (1, 2, 3, 4)
    ]
    looked = look(tmp_path / "mine")
    (said,) = facts(looked)
    assert "GTV in 4 cases with a median of 48 voxels" in said
    assert "spacing 0.7 x 0.5 x 3 mm" in said


def test_patients_have_names_that_only_the_site_can_connect_with_them(tmp_path: Path) -> None:
    """Two series of one patient are of one patient, and no cell but those of paths names one."""
    for number, patient in ((1, "MRN-1"), (2, "MRN-1"), (3, "MRN-3")):
        exam(tmp_path / "mine", number, patient, "GTV")
    found = propose(tmp_path / "mine", secret)
    one, other = pseudonym("MRN-1", SECRET), pseudonym("MRN-3", SECRET)
    assert [row["patient"] for row in found.table] == [one, one, other]
    assert [row["case"] for row in found.table] == [f"{one}-1", f"{one}-2", f"{other}-1"]
    told = "\n".join([*found.doubts, description_text(found.description, found.doubts)])
    assert not any(word in told for word in ("MRN", "DOE", NAME))
    assert "patients are told apart by PatientID: 2 of 3 series" in told


def test_series_of_nobody_are_each_of_another_patient_and_it_is_said(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        exam(tmp_path / "mine", number, "ANON", "GTV")
    found = propose(tmp_path / "mine", no_secret)
    assert [row["patient"] for row in found.table] == ["patient-1", "patient-2", "patient-3"]
    assert any("the same PatientID, or none, as anonymous ones do" in d for d in found.doubts)


def test_names_of_structures_are_proposed_in_order_of_how_many_have_them(tmp_path: Path) -> None:
    exam(tmp_path / "mine", 1, "MRN-1", "liver", "Tumour")
    exam(tmp_path / "mine", 2, "MRN-2", "Liver")
    found = propose(tmp_path / "mine", secret)
    assert found.description["dicom"] == {"structures": {"liver": 1, "Tumour": 2}}
    assert any("liver (2), Tumour (1) in 2 files" in doubt for doubt in found.doubts)


def test_a_segmentation_is_of_the_series_that_it_names_wherever_it_lies(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    for number in (1, 2):
        saved(folder / str(number), series(number, f"MRN-{number}", "CT"))
    mask = np.zeros((6, 10, 8, 1), np.uint8)
    mask[2:4, 3:6, 2:5] = 1
    made = segmentation(series(2, "MRN-2", "CT"), mask, ["lesion"])
    saved(folder / "masks", [made], ["a.dcm"])
    found = propose(folder, secret)
    assert [(row["image"], row["mask"]) for row in found.table] == [("2", "masks/a.dcm")]
    assert found.description["modalities"] == ["CT"]
    assert found.description["window"][0] < found.description["window"][1]
    said = " ".join(found.doubts)
    assert "1 series have no segmentation or structure set and are left out, as 1" in said


def test_a_structure_set_that_names_a_series_that_is_nowhere_is_of_its_frame(tmp_path) -> None:
    """As sets are that were moved; one in nobody's frame is left out and counted."""
    exam(tmp_path / "mine", 1, "MRN-1", "GTV")
    saved(tmp_path / "mine" / "other", [contours(9, "MRN-9", "GTV")], ["RS.dcm"])
    found = propose(tmp_path / "mine", secret)
    assert [row["mask"] for row in found.table] == ["DOE_JOHN_1/RS/RS.dcm"]
    assert any("of no series that is here" in doubt for doubt in found.doubts)


def test_a_structure_set_in_the_frame_of_two_series_is_of_neither(tmp_path: Path) -> None:
    """Another sequence of the same exam: nothing tells which one it was drawn on."""
    exam(tmp_path / "mine", 1, "MRN-1", "GTV")
    exam(tmp_path / "mine", 2, "MRN-2", "GTV")
    other = series(3, "MRN-1")
    for one in other:
        one.FrameOfReferenceUID = "2.25.122"
    saved(tmp_path / "mine" / "DOE_JOHN_1" / "T2", other)
    found = propose(tmp_path / "mine", secret)
    assert [row["image"] for row in found.table] == ["DOE_JOHN_2/T1"]
    assert any("or of several, and are left out" in doubt for doubt in found.doubts)


def test_series_of_another_modality_are_left_out_and_counted(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        exam(tmp_path / "mine", number, f"MRN-{number}", "GTV", modality="MR")
    exam(tmp_path / "mine", 4, "MRN-4", "GTV", modality="CT")
    found = propose(tmp_path / "mine", secret)
    assert [row["image"] for row in found.table] == [f"DOE_JOHN_{n}/T1" for n in (1, 2, 3)]
    assert "series of MR are taken, and those of CT (1) are left out" in found.doubts


def test_of_several_segmentations_a_person_has_to_say_which(tmp_path: Path) -> None:
    exam(tmp_path / "mine", 1, "MRN-1", "GTV")
    saved(tmp_path / "mine" / "again", [contours(1, "MRN-1", "GTV")], ["RS.dcm"])
    with pytest.raises(ConsiliumError, match=r"nothing tells which is meant.* has 2.*cases.csv"):
        propose(tmp_path / "mine", secret)
    exam(tmp_path / "mine", 2, "MRN-2", "GTV")
    found = propose(tmp_path / "mine", secret)
    assert [row["image"] for row in found.table] == ["DOE_JOHN_2/T1"]
    assert any("1 series have several segmentations" in doubt for doubt in found.doubts)


def exported(folder: Path, *numbers: int) -> None:
    """Series of one patient in one folder with their structure sets, as an archive exports them."""
    slices = [each for number in numbers for each in series(number, "MRN-2")]
    for each in slices:
        each.SeriesNumber = each.SeriesInstanceUID.removeprefix("2.25.").removesuffix("11")
    saved(folder, slices, [f"{n}.dcm" for n in range(len(slices))])
    marks = [contours(number, "MRN-2", "GTV") for number in numbers]
    saved(folder, marks, [f"RS{number}.dcm" for number in numbers])


def test_series_that_share_a_folder_are_named_by_their_number_and_read_each_by_itself(
    tmp_path: Path,
) -> None:
    for number in (1, 4):
        exam(tmp_path / "mine", number, f"MRN-{number}", "GTV")
    exported(tmp_path / "mine" / "both", 2, 3)
    found = written(tmp_path / "mine", propose(tmp_path / "mine", secret))
    assert [(row["image"], row["mask"]) for row in found.table] == [
        ("DOE_JOHN_1/T1", "DOE_JOHN_1/RS/RS.dcm"),
        ("DOE_JOHN_4/T1", "DOE_JOHN_4/RS/RS.dcm"),
        ("both#2", "both/RS2.dcm"),
        ("both#3", "both/RS3.dcm"),
    ]
    assert "2 series share a folder with others" in " ".join(found.doubts)
    assert len({row["patient"] for row in found.table}) == 3
    description = find_description("mine", tmp_path)
    assert description is not None
    listing = find_cases(tmp_path / "mine", description)
    assert listing.unmatched == ()
    cases = {case.images[0].name: case for case in listing.cases}
    for number, name in ((2, "both#2"), (3, "both#3")):
        (image,), mask = read_case(cases[name])
        alone = tmp_path / f"alone-{number}"
        saved(alone, series(number, "MRN"))
        assert np.array_equal(image.values, read_volume(alone).values)
        assert mask is not None
        assert int((mask.values == 1).sum()) == 48
    assert "4 cases" in facts(look(tmp_path / "mine"))[0]


def test_a_series_that_a_folder_does_not_hold_is_refused_with_those_that_it_does(
    tmp_path: Path,
) -> None:
    exported(tmp_path / "both", 2, 3)
    for wanted in ("7", "2#1"):
        with pytest.raises(ConsiliumError, match=r"no series or stack.*There are 2 \(MR.*; 3 \(MR"):
            read_volume(tmp_path / f"both#{wanted}")
    with pytest.raises(ConsiliumError, match=r"in cases\.csv as FOLDER#NUMBER"):
        read_volume(tmp_path / "both")
    # A folder may be called so, and is then meant as it is.
    saved(tmp_path / "both#2", series(5, "MRN"))
    assert read_volume(tmp_path / "both#2").values.max() == voxels(seed=5).max()


def test_what_lies_beside_a_volume_or_below_it_is_left_out_by_name(tmp_path: Path) -> None:
    exam(tmp_path / "mine", 1, "MRN-1", "GTV")
    saved(tmp_path / "mine" / "over", series(2, "MRN-2"))
    saved(tmp_path / "mine" / "over" / "below", series(3, "MRN-2"))
    found = propose(tmp_path / "mine", secret)
    assert [row["image"] for row in found.table] == ["DOE_JOHN_1/T1"]
    assert "1 folders or series are left out, as over" in " ".join(found.doubts)


def test_folders_of_series_are_classes_where_nothing_is_marked(tmp_path: Path) -> None:
    for number, kind in ((1, "ill"), (2, "ill"), (3, "well"), (4, "well")):
        saved(tmp_path / "mine" / kind / str(number), series(number, f"MRN-{number}"))
    found = propose(tmp_path / "mine", secret)
    assert [(row["image"], row["label"]) for row in found.table] == [
        ("ill/1", "ill"),
        ("ill/2", "ill"),
        ("well/3", "well"),
        ("well/4", "well"),
    ]
    assert (found.description["task"], found.description["kind"]) == ("classification", "volumes")


def test_series_of_which_nothing_can_be_learned_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "mine" / "T1", series(1, "MRN-1"))
    with pytest.raises(ConsiliumError, match=r"no segmentation \(SEG\) and no structure set"):
        propose(tmp_path / "mine", no_secret)


def test_a_table_of_series_and_contours_is_described(tmp_path: Path) -> None:
    exam(tmp_path / "mine", 1, "MRN-1", "GTV")
    exam(tmp_path / "mine", 2, "MRN-2", "GTV")
    table = "patient,image,mask\n"
    for number in (1, 2):
        table += f"p{number},DOE_JOHN_{number}/T1,DOE_JOHN_{number}/RS/RS.dcm\n"
    (tmp_path / "mine" / "cases.csv").write_text(table)
    found = written(tmp_path / "mine", propose(tmp_path / "mine", no_secret))
    assert found.table is None
    assert found.description["labels"] == {"background": 0, "GTV": 1}
    assert (found.description["kind"], found.description["modalities"]) == ("volumes", ["MR"])
    description = find_description("mine", tmp_path)
    assert description is not None
    cases = find_cases(tmp_path / "mine", description).cases
    masks = [read_case(case)[1] for case in cases]
    assert [int((mask.values == 1).sum()) for mask in masks if mask] == [48, 48]
    assert described_family("mine", description).labels == ("background", "GTV")


def test_what_is_resampled_by_the_description_has_a_grid_and_a_spacing(tmp_path: Path) -> None:
    """`spacing: auto` and `data check` read series by the rules that the description has."""
    folder = tmp_path / "mine"
    for number in (1, 2, 3):
        exam(folder, number, f"MRN-{number}", "GTV")
        # A slice is missing at level 4.
        made = [one for one in series(number, f"MRN-{number}") if one.InstanceNumber != 5]
        for file in (folder / f"DOE_JOHN_{number}" / "T1").iterdir():
            file.unlink()
        saved(folder / f"DOE_JOHN_{number}" / "T1", made)
    written(folder, propose(folder, secret))
    with pytest.raises(ConsiliumError, match="missing"):
        look(folder)
    text = yaml.safe_load((folder / "dataset.yaml").read_text())
    text["dicom"]["uneven"] = "resample"
    (folder / "dataset.yaml").write_text(yaml.safe_dump(text))
    (said,) = facts(look(folder))
    assert "spacing 0.7 x 0.5 x 3 mm" in said


def test_what_identifies_patients_is_counted_once_for_series_that_share_a_folder(
    tmp_path: Path,
) -> None:
    for number in (1, 4):
        exam(tmp_path / "mine", number, f"MRN-{number}", "GTV")
    exported(tmp_path / "mine" / "both", 2, 3)
    written(tmp_path / "mine", propose(tmp_path / "mine", secret))
    (said,) = identifiers(look(tmp_path / "mine"))
    # Two series of six slices and, in the shared folder, twice six with two structure sets.
    assert "26 DICOM files" in said
    assert "PatientID (26)" in said


def test_a_series_whose_cell_would_name_another_folder_is_left_out(tmp_path: Path) -> None:
    """`both#2` is the folder of this name where there is one: its image would be taken."""
    exported(tmp_path / "mine" / "both", 2, 3)
    saved(tmp_path / "mine" / "both#2", series(5, "MRN-5"))
    found = propose(tmp_path / "mine", secret)
    assert [(row["image"], row["mask"]) for row in found.table] == [("both#3", "both/RS3.dcm")]
    assert any("left out, as both#2" in doubt for doubt in found.doubts)


def test_folders_of_one_patient_each_are_no_classes(tmp_path: Path) -> None:
    """Labels leave a site, and these would be the names of patients."""
    for number in (1, 2):
        exported(tmp_path / "mine" / f"DOE_{number}" / "exam", 2 * number, 2 * number + 1)
        for file in (tmp_path / "mine" / f"DOE_{number}" / "exam").glob("*.dcm"):
            header = dcmread(file)
            header.PatientID = f"MRN-{number}"
            header.save_as(file)
        for file in (tmp_path / "mine" / f"DOE_{number}" / "exam").glob("RS*"):
            file.unlink()
    with pytest.raises(ConsiliumError, match=r"folders are patients and no classes\. Put these"):
        propose(tmp_path / "mine", no_secret)
    # The same patient in both: nothing tells that folders are patients.
    for file in (tmp_path / "mine").rglob("*.dcm"):
        header = dcmread(file)
        header.PatientID = "ANON"
        header.save_as(file)
    assert {row["label"] for row in propose(tmp_path / "mine", secret).table} == {"DOE_1", "DOE_2"}


@pytest.mark.parametrize("number", ["seven", "7.5", "7/../../x"])
def test_a_series_number_that_is_none_is_no_name(tmp_path: Path, number: str) -> None:
    exported(tmp_path / "mine" / "both", 2, 3)
    for file in (tmp_path / "mine" / "both").glob("[0-9]*.dcm"):
        header = dcmread(file)
        if header.SeriesNumber == 3:
            header[0x00200011] = RawDataElement(
                *(Tag(0x00200011), "IS", len(number), number.encode(), 0, False, True)
            )
            header.save_as(file)
    found = propose(tmp_path / "mine", secret)
    images = [row["image"] for row in found.table]
    assert images == ["both#2", "both#@2"]
    assert np.array_equal(read_volume(tmp_path / "mine" / images[1]).values, whole(3))


def whole(number: int):
    return voxels(seed=number).transpose(2, 1, 0)[np.newaxis]


def test_a_description_has_no_name_of_a_folder_in_its_comments(tmp_path: Path) -> None:
    """It is at the coordinator too, and folders are named after patients; who is there is told."""
    folder = tmp_path / "mine"
    for number in (1, 2):
        exam(folder, number, f"MRN-{number}", "GTV")
    exported(folder / "DOE_SHARED", 3, 4)
    saved(folder / "DOE_ALONE" / "T1", series(5, "MRN-5"))
    saved(folder / "DOE_OVER", series(6, "MRN-6"))
    saved(folder / "DOE_OVER" / "below", series(7, "MRN-6"))
    exam(folder, 8, "MRN-8", "GTV")
    saved(folder / "DOE_TWICE", [contours(8, "MRN-8", "GTV"), contours(9, "MRN-9", "GTV")])
    found = propose(folder, secret)
    told = " ".join(found.doubts)
    for name in ("DOE_SHARED#3", "DOE_ALONE/T1", "DOE_OVER", "DOE_JOHN_8/T1", "DOE_TWICE/IM"):
        assert f"as {name}" in told
    text = description_text(found.description, found.doubts)
    assert "DOE" not in text
    assert text.count("left out") == 4
    assert "share a folder" in text
