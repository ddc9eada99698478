import nibabel
import numpy as np
import pytest
from PIL import Image

from federated.data.folders.families import FAMILIES
from federated.data.folders.phantom import write_phantom
from federated.data.folders.read_volume import read_mask, read_volume
from federated.data.folders.table import folder_tables
from federated.errors import ConsiliumError
from tests.conftest import REAL_DATA
from tests.federated.faulty_folder import write_faulty

SMALL = {2: (40, 48), 3: (20, 24, 16)}


@pytest.fixture(params=sorted(FAMILIES))
def family(request):
    return FAMILIES[request.param]


def folder_table(family, found):
    return folder_tables(family, {"all": found})["all"]


def phantom(family, folder, cases=6):
    write_phantom(family, folder, cases, seed=0, shape=SMALL[family.dims])
    return family.find(folder)


def test_every_family_finds_its_cases_and_reads_them(family, tmp_path):
    found = phantom(family, tmp_path)
    assert len(found.cases) == 6
    assert not found.unmatched
    assert len({case.name for case in found.cases}) == 6
    for case in found.cases:
        images = [read_volume(path) for path in case.images]
        mask = read_mask(case.mask)
        assert sum(len(image.values) for image in images) == family.channels
        assert {image.spatial for image in images} == {mask.spatial}
        assert mask.spatial == SMALL[family.dims]
        values = {family.label_values.get(int(v), int(v)) for v in np.unique(mask.values)}
        assert values <= set(range(len(family.labels)))


def test_a_phantom_has_nothing_to_complain_of(family, tmp_path):
    table = folder_table(family, phantom(family, tmp_path))
    assert (table[["unreadable", "labels", "copy_of"]] == "").all(axis=None)
    assert (table[["shapes", "affines"]] == "same").all(axis=None)
    assert (table["foreground"] > 0).all()
    assert (table[["size", "intensity"]] < 6).all(axis=None)


def test_a_phantom_is_the_same_again_and_another_with_another_seed(tmp_path):
    family = FAMILIES["hippocampus"]
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_phantom(family, tmp_path / name, 1, seed, SMALL[3])
    first, again, other = (
        read_volume(family.find(tmp_path / name).cases[0].images[0]).values for name in "abc"
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_both_eyes_and_all_time_points_of_a_patient_belong_together(tmp_path):
    eyes = phantom(FAMILIES["retina"], tmp_path / "retina", 8).cases
    chase = [case for case in eyes if case.site == "chasedb1"]
    assert len(chase) == 4
    assert len({case.patient for case in chase}) == 2
    assert len({case.patient for case in eyes if case.site == "drive"}) == 4
    points = phantom(FAMILIES["brain"], tmp_path / "brain").cases
    assert len({case.patient for case in points}) == 3


def test_lesions_and_institutions_are_read_where_they_are_told(tmp_path):
    skin, brain = tmp_path / "skin", tmp_path / "brain"
    phantom(FAMILIES["skin"], skin)
    (skin / "HAM10000_metadata.csv").write_text(
        "lesion_id,image_id,dataset\nL1,ISIC_0000000,vienna_dias\nL1,ISIC_0000001,vienna_dias\n"
    )
    first, second, third, *_ = FAMILIES["skin"].find(skin).cases
    assert (first.patient, first.site) == (second.patient, second.site) == ("L1", "vienna_dias")
    assert (third.patient, third.site) == ("ISIC_0000002", None)
    phantom(FAMILIES["brain"], brain)
    (brain / "partitioning_1.csv").write_text("Partition_ID,Subject_ID\n3,BraTS-GLI-00000-100\n")
    sites = {case.name: case.site for case in FAMILIES["brain"].find(brain).cases}
    assert sites["BraTS-GLI-00000-100"] == "institution-03"
    assert sites["BraTS-GLI-00001-100"] is None


def test_a_case_that_lacks_a_modality_is_none_and_its_files_are_named(tmp_path):
    phantom(FAMILIES["brain"], tmp_path, 4)
    name = "BraTS-GLI-00000-100"
    (tmp_path / name / f"{name}-t2f.nii.gz").unlink()
    found = FAMILIES["brain"].find(tmp_path)
    assert len(found.cases) == 3
    assert {path.name for path in found.unmatched} == {
        f"{name}-{kind}.nii.gz" for kind in ("t1n", "t1c", "t2w", "seg")
    }


@pytest.mark.parametrize("name", ["brain", "kidney"])
def test_a_case_whose_folder_is_empty_is_named(tmp_path, name):
    family = FAMILIES[name]
    (case, *_) = phantom(family, tmp_path, 3).cases
    (tmp_path / ".ipynb_checkpoints").mkdir()
    for path in (*case.images, case.mask):
        path.unlink()
    found = family.find(tmp_path)
    assert found.unmatched == (tmp_path / case.name,)
    assert list(folder_table(family, found)["path"])[-1] == ""


def test_modalities_of_different_shapes_are_named(tmp_path):
    found = phantom(FAMILIES["brain"], tmp_path, 3)
    path = found.cases[1].images[2]
    nibabel.save(nibabel.Nifti1Image(np.ones((20, 24, 15), np.float32), np.diag([1.0] * 4)), path)
    table = folder_table(FAMILIES["brain"], found)
    said = table["shapes"][1]
    assert list(table["shapes"]) == ["same", said, "same"]
    case = found.cases[1]
    sizes = ["20x24x16", "20x24x16", "20x24x15", "20x24x16"]
    assert said == ", ".join(
        [f"image {p.name} {size}" for p, size in zip(case.images, sizes, strict=True)]
        + [f"mask {case.mask.name} 20x24x16"]
    )


class TestFaults:
    """One fault of each kind in a folder, all of them found in one pass."""

    @pytest.fixture(scope="class")
    def table(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("kidney")
        write_faulty(folder)
        family = FAMILIES["kidney"]
        return folder_table(family, family.find(folder)).set_index("case")

    def test_an_image_without_a_mask(self, table):
        assert list(table.index[(table["mask_path"] == "")]) == ["case_00000"]

    def test_a_mask_without_an_image(self, table):
        alone = table[table["path"] == ""]
        assert alone["mask_path"].str.endswith("case_00001/segmentation.nii.gz").all()
        assert len(alone) == 1

    def test_a_pair_of_different_shapes(self, table):
        assert table["shapes"]["case_00002"] == (
            "image imaging.nii.gz 16x18x20, mask segmentation.nii.gz 16x18x19"
        )
        assert (table["shapes"] != "same").sum() == 1

    def test_a_pair_of_different_affines(self, table):
        assert table["affines"]["case_00003"] == "differ by up to 1"
        assert (table["affines"] != "same").sum() == 1

    def test_labels_that_nobody_knows(self, table):
        known = FAMILIES["kidney"].values_known()
        assert table["labels"]["case_00004"] == f"7, where {known}"
        assert known.startswith("known are 0 (background), 1 (kidney)")
        assert (table["labels"] != "").sum() == 1

    def test_an_empty_mask(self, table):
        assert list(table.index[table["foreground"] == 0]) == ["case_00005"]

    def test_a_size_far_from_the_rest(self, table):
        assert list(table.index[table["size"] > 6]) == ["case_00006"]

    def test_an_intensity_far_from_the_rest(self, table):
        assert "case_00007" in table.index[table["intensity"] > 6]

    def test_files_that_cannot_be_read(self, table):
        said = table["unreadable"][table["unreadable"] != ""]
        assert list(said.index) == ["case_00008", "case_00009", "case_00012", "case_00013"]
        assert said.str.contains("segmentation|imaging").all()

    def test_a_copy_under_another_name(self, table):
        assert table["copy_of"]["case_00011"] == "case_00010"
        assert (table["copy_of"] != "").sum() == 1

    def test_values_that_are_no_numbers(self, table):
        assert table["missing"]["case_00013"] == 18 * 20
        assert (table["missing"] > 0).sum() == 1


def test_the_real_folders_have_nothing_to_complain_of():
    for name, cases in (("hippocampus", 200), ("retina", 40)):
        folder = REAL_DATA / name
        if not folder.is_dir():
            pytest.skip(f"no real {name} files under {REAL_DATA}")
        family = FAMILIES[name]
        table = folder_table(family, family.find(folder))
        assert len(table) == cases
        assert (table[["unreadable", "labels", "copy_of"]] == "").all(axis=None)
        assert (table[["shapes", "affines"]] == "same").all(axis=None)
        assert (table[["size", "intensity"]] < 6).all(axis=None)


def test_what_is_no_volume_is_refused(tmp_path):
    nibabel.save(
        nibabel.Nifti1Image(np.zeros((4, 4, 4, 2), np.float32), np.eye(4)), tmp_path / "a.nii"
    )
    with pytest.raises(ConsiliumError, match=r"a\.nii has 4 axes, 4x4x4x2"):
        read_volume(tmp_path / "a.nii")
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "grey.png")
    assert read_volume(tmp_path / "grey.png").values.shape == (3, 4, 5)
    with pytest.raises(ConsiliumError, match=r"none\.png cannot be read"):
        read_volume(tmp_path / "none.png")


def test_coarser_voxels_keep_the_field_of_view_of_whole_volumes_and_the_voxels_of_patches():
    hippocampus, kidney = FAMILIES["hippocampus"], FAMILIES["kidney"]
    assert hippocampus.with_spacing(None) is hippocampus
    coarse = hippocampus.with_spacing(2.0)
    # 40 x 56 x 40 mm, up to multiples of 8 voxels
    assert (coarse.spacing, coarse.shape) == ((2.0, 2.0, 2.0), (24, 32, 24))
    assert hippocampus.with_spacing(1.0) == hippocampus
    assert kidney.with_spacing(4.0).shape == kidney.shape
    with pytest.raises(ValueError, match="retina have no spacing"):
        FAMILIES["retina"].with_spacing(2.0)


def test_both_eyes_are_one_patient_in_small_letters_too(tmp_path):
    (tmp_path / "chasedb1").mkdir()
    for eye in "lr":
        (tmp_path / "chasedb1" / f"Image_01{eye}.jpg").touch()
    assert len({case.patient for case in FAMILIES["retina"].find(tmp_path).cases}) == 1
