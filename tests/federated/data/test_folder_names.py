"""Which files of a folder make a case: names are keys, one a case, and no file is passed over."""

import unicodedata

import pytest

from federated.data.dataset import LocatedFile
from federated.data.folders.dataset import folder_md5, read_folder
from federated.data.folders.families import FAMILIES
from federated.data.folders.phantom import write_phantom
from federated.errors import ConsiliumError
from federated.run.prepared import PreparedFolder

SMALL = {2: (24, 24), 3: (8, 8, 8)}


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def pairs(found):
    return {case.name: case.mask and case.mask.name for case in found.cases}


def unmatched(found, folder):
    return {path.relative_to(folder).as_posix() for path in found.unmatched}


def phantom(name, folder, cases=4):
    write_phantom(FAMILIES[name], folder, cases, 0, SMALL[FAMILIES[name].dims])
    return FAMILIES[name].find(folder)


def test_visits_whose_names_have_dots_are_cases_with_their_own_masks(tmp_path):
    for number in range(3):
        touch(tmp_path, *(f"images/p{number}.visit{visit}.nii.gz" for visit in (1, 2)))
        touch(tmp_path, f"labels/p{number}.visit1.nii.gz")
    found = FAMILIES["hippocampus"].find(tmp_path)
    assert pairs(found) == {
        f"p{number}.visit{visit}": f"p{number}.visit1.nii.gz" if visit == 1 else None
        for number in range(3)
        for visit in (1, 2)
    }


def test_every_dicom_uid_is_a_case(tmp_path):
    uids = [f"1.2.840.113619.2.{number}" for number in range(5)]
    touch(tmp_path, *(f"{part}/{uid}.nii.gz" for part in ("images", "labels") for uid in uids))
    assert pairs(FAMILIES["hippocampus"].find(tmp_path)) == {uid: f"{uid}.nii.gz" for uid in uids}


DOTTED = {
    "hippocampus": ("images/a.{}.nii.gz", "labels/a.{}.nii.gz"),
    "kidney": ("case_a.{}/imaging.nii.gz", "case_a.{}/segmentation.nii.gz"),
    "skin": ("images/a.{}.jpg", "masks/a.{}_segmentation.png"),
    "retina": ("chasedb1/Image_a.{}.jpg", "chasedb1/Image_a.{}_1stHO.png"),
    "brain": tuple(f"a.{{}}/a.{{}}-{kind}.nii.gz" for kind in ("t1n", "t1c", "t2w", "t2f", "seg")),
}


@pytest.mark.parametrize("name", DOTTED)
def test_dots_in_names_keep_cases_apart_in_every_family(tmp_path, name):
    for number in (1, 2):
        touch(tmp_path, *(path.replace("{}", str(number)) for path in DOTTED[name]))
    found = FAMILIES[name].find(tmp_path)
    assert len(found.cases) == 2
    for number, case in enumerate(found.cases, start=1):
        files = [path.relative_to(tmp_path).as_posix() for path in (*case.images, case.mask)]
        assert files == [path.replace("{}", str(number)) for path in DOTTED[name]]
    assert not found.unmatched


TWINS = {
    "hippocampus": ("images/a.nii", "images/a.nii.gz"),
    "kidney": ("case_1/imaging.nii", "case_1/imaging.NII.gz"),
    "skin": ("images/a.jpg", "images/a.png"),
    "retina": ("drive/images/21_training.tif", "drive/images/21_test.tif"),
    "brain": (
        *(f"a/a-{kind}.nii.gz" for kind in ("t1n", "t1c", "t2w", "t2f")),
        *("a/a-t2f.nii", "a/a-seg.nii", "a/a-seg.nii.gz"),
    ),
}


@pytest.mark.parametrize("name", TWINS)
def test_two_files_of_one_name_are_refused_in_one_paragraph(tmp_path, name):
    touch(tmp_path, *TWINS[name])
    with pytest.raises(ConsiliumError) as caught:
        FAMILIES[name].find(tmp_path)
    said = str(caught.value)
    twins = TWINS[name] if name != "brain" else TWINS[name][3:]
    assert all(str(tmp_path / path) in said for path in twins)
    assert "\n" not in said


def test_one_form_of_a_letter_finds_the_other(tmp_path):
    """A mask that was copied by way of macOS has its accents taken apart."""
    touch(tmp_path, f"images/{unicodedata.normalize('NFC', 'André')}.nii.gz")
    touch(tmp_path, f"labels/{unicodedata.normalize('NFD', 'André')}.nii.gz")
    (case,) = FAMILIES["hippocampus"].find(tmp_path).cases
    assert case.mask is not None


@pytest.mark.parametrize(
    ("name", "image", "mask"),
    [
        ("skin", "images/a.jpg", "masks/a.png"),
        ("skin", "images/a.jpg", "masks/a_Segmentation.png"),
        ("retina", "drive/images/21_training.tif", "drive/1st_manual/21.gif"),
        ("retina", "chasedb1/Image_01L.jpg", "chasedb1/Image_01L_1stho.png"),
        ("hippocampus", "images/a.nii.gz", "labels/A.nii.gz"),
        ("kidney", "case_1/imaging.nii.gz", "case_1/segmentation.1.nii.gz"),
    ],
)
def test_a_mask_of_another_name_is_no_mask_of_the_image(tmp_path, name, image, mask):
    touch(tmp_path, image, mask)
    found = FAMILIES[name].find(tmp_path)
    assert [case.mask for case in found.cases] == [None]
    assert unmatched(found, tmp_path) == {mask}


def test_files_of_another_patient_in_a_patients_folder_are_unmatched(tmp_path):
    kinds = ("t1n", "t1c", "t2w", "t2f")
    touch(tmp_path, *(f"a/a-{kind}.nii.gz" for kind in kinds), "a/b-seg.nii.gz", "a/seg.nii.gz")
    found = FAMILIES["brain"].find(tmp_path)
    assert pairs(found) == {"a": None}
    assert unmatched(found, tmp_path) == {"a/b-seg.nii.gz", "a/seg.nii.gz"}


ENDINGS = {
    "hippocampus": [("images/{}.NII.GZ", "labels/{}.nii"), ("images/{}.Nii.gz", "labels/{}.NII")],
    "kidney": [("case_{}/imaging.NII.GZ", "case_{}/segmentation.nii")],
    "skin": [
        ("images/{}.JPG", "masks/{}_segmentation.PNG"),
        ("images/{}.jpeg", "masks/{}_segmentation.tif"),
        ("images/{}.TIFF", "masks/{}_segmentation.bmp"),
    ],
    "retina": [
        ("drive/images/{}_training.TIF", "drive/1st_manual/{}_manual1.GIF"),
        ("drive/images/{}.tiff", "drive/1st_manual/{}_manual1.png"),
        ("chasedb1/Image_{}.JPEG", "chasedb1/Image_{}_1stHO.tif"),
    ],
}


@pytest.mark.parametrize("name", ENDINGS)
def test_endings_are_known_in_any_case_and_of_any_kind(tmp_path, name):
    for number, (image, mask) in enumerate(ENDINGS[name]):
        touch(tmp_path, image.replace("{}", f"{number}"), mask.replace("{}", f"{number}"))
    found = FAMILIES[name].find(tmp_path)
    assert len(found.cases) == len(ENDINGS[name])
    assert all(case.mask for case in found.cases)
    assert not found.unmatched


STRAY = [
    *("a.dcm", "images/x.mha", "new/a.nii.gz", "images/more/b.nii.gz", "notes.docx"),
    *("labels.zip", "masks/c_segmentation.psd", "drive/images/21.dcm"),
]


@pytest.mark.parametrize("name", sorted(FAMILIES))
@pytest.mark.parametrize("stray", STRAY)
def test_a_file_that_belongs_to_no_case_is_named(tmp_path, name, stray):
    before = phantom(name, tmp_path)
    assert not before.unmatched
    touch(tmp_path, stray)
    found = FAMILIES[name].find(tmp_path)
    assert found.cases == before.cases
    assert unmatched(found, tmp_path) == {stray}


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_texts_and_tables_of_the_data_set_are_expected(tmp_path, name):
    phantom(name, tmp_path)
    touch(tmp_path, "README.md", "LICENSE", "Licence.txt", "CITATION.cff")
    own = {
        "hippocampus": ["dataset.json"],
        "kidney": ["kits23.json", "case_00000/instances/kidney_instance-1_annotation-1.nii.gz"],
        "skin": ["ISIC2018_Task1_Training_GroundTruth.csv", "images/ATTRIBUTION.txt"],
        "retina": ["drive/mask/21_training_mask.gif", "chasedb1/Image_01L_2ndHO.png"],
        "brain": ["partitioning_2.csv"],
    }
    touch(tmp_path, *own[name])
    assert not FAMILIES[name].find(tmp_path).unmatched


HIDDEN = ("._x.nii.gz", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/._a.nii.gz")


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_hidden_files_are_no_data_wherever_they_lie(tmp_path, name):
    before = phantom(name, tmp_path)
    digest = folder_md5(tmp_path)
    for path in [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]:
        touch(path, *HIDDEN)
    for case in before.cases:
        for path in (*case.images, case.mask):
            touch(path.parent, f"._{path.name}")
    assert FAMILIES[name].find(tmp_path) == before
    assert folder_md5(tmp_path) == digest


def test_hidden_files_are_not_kept_with_the_data(tmp_path):
    phantom("hippocampus", tmp_path / "hippocampus")
    touch(tmp_path / "hippocampus", "images/._a.nii.gz", ".DS_Store", "Thumbs.db", "README.md")
    md5 = folder_md5(tmp_path / "hippocampus")
    kept = PreparedFolder(tmp_path / "kept").store_dataset(
        LocatedFile(tmp_path / "hippocampus", "files", md5)
    )
    names = {path.name for path in kept.path.rglob("*")}
    assert "README.md" in names
    assert not names & {"._a.nii.gz", ".DS_Store", "Thumbs.db"}
    assert folder_md5(kept.path) == md5


def test_a_folder_that_leads_back_to_itself_is_read_once(tmp_path):
    before = phantom("kidney", tmp_path / "kidney")
    digest = folder_md5(tmp_path / "kidney")
    (tmp_path / "kidney" / "case_00000" / "instances").symlink_to(tmp_path / "kidney")
    assert FAMILIES["kidney"].find(tmp_path / "kidney").cases == before.cases
    assert folder_md5(tmp_path / "kidney") == digest


def test_a_folder_without_a_case_says_what_is_there_instead(tmp_path):
    touch(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
    with pytest.raises(
        ConsiliumError, match=r"images/hippocampus_NNN.*it holds imagesTr/a.nii.gz, "
    ):
        read_folder(tmp_path, "hippocampus")


def test_numbers_that_differ_in_their_zeros_are_patients_of_their_own(tmp_path):
    touch(tmp_path, *(f"{part}/{n}.nii" for part in ("images", "labels") for n in ("7", "007")))
    patients = [case.patient for case in FAMILIES["hippocampus"].find(tmp_path).cases]
    assert sorted(patients) == ["007", "7"]
