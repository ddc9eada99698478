"""Real series, with their contours and segments, against the same as NIfTI and NRRD."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - as everywhere

from federated.data.folders.dicom.identifiers import identifying
from federated.data.folders.dicom.rules import DicomRules
from federated.data.folders.dicom.series import read_series
from federated.data.folders.dicom.structures import read_structures
from federated.errors import ConsiliumError
from tests.conftest import REAL_DATA

FOLDER = REAL_DATA / "dicom"
SEGMENTATIONS = FOLDER / "ct-with-seg/segmentations"

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"the real data are not here: {FOLDER} is missing"
)


@pytest.fixture(scope="module")
def ct():
    return read_series(SEGMENTATIONS / "ct-3slice")


@pytest.mark.parametrize("name", ["STS_008", "STS_019"])
def test_a_series_with_its_contours_is_what_its_nifti_files_are(name):
    image = nibabel.load(FOLDER / f"nifti/{name}_image.nii.gz")
    truth = np.asarray(nibabel.load(FOLDER / f"nifti/{name}_mask.nii.gz").dataobj) > 0
    read = read_series(FOLDER / name / "MR_T1")
    np.testing.assert_allclose(read.affine, image.affine, atol=1e-5)  # a header's float32
    np.testing.assert_array_equal(read.values[0], image.get_fdata())
    mask = read_structures(FOLDER / name / "RTSTRUCT", read).values[0] > 0
    assert mask.sum() == pytest.approx(truth.sum(), rel=0.005)
    dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
    assert dice >= 0.98
    # It is better than that.
    np.testing.assert_array_equal(mask, truth)


def test_a_segment_is_what_another_reader_has_made_of_it(ct):
    assert ct.spatial == (512, 512, 3)
    np.testing.assert_allclose(ct.affine[:3, 2], (0, 0, 1), atol=1e-6)
    assert (ct.values.min(), ct.values.max()) == (-1024, 1381)
    read = read_structures(SEGMENTATIONS / "liver.dcm", ct).values[0]
    other = sitk.ReadImage(str(SEGMENTATIONS / "liver_seg.nrrd"))
    truth = sitk.GetArrayFromImage(other).transpose(2, 1, 0)
    where = np.array(other.GetOrigin()) * (-1, -1, 1)
    np.testing.assert_allclose(where, ct.affine[:3, 3], atol=1e-4)
    np.testing.assert_array_equal(read, truth > 0)


def test_segments_that_overlap_are_named(ct):
    path = SEGMENTATIONS / "partial_overlaps.dcm"
    with pytest.raises(ConsiliumError) as error:
        read_structures(path, ct)
    for pair in ("1 'GREEN' and 2 'ORANGE' in 3017", "1 'GREEN' and 3 'PURPLE' in 95"):
        assert pair in str(error.value)
    first = read_structures(path, ct, DicomRules(overlap="first")).values[0]
    assert set(np.unique(first)) == {0, 1, 2, 3, 4, 5}
    alone = read_structures(path, ct, DicomRules(structures=(("green", 1),))).values[0]
    np.testing.assert_array_equal(first == 1, alone == 1)


def test_the_segments_of_a_series_that_is_not_there_are_refused(ct):
    with pytest.raises(ConsiliumError, match="is of another series than the image"):
        read_structures(FOLDER / "ct-with-seg/sr-example/seg.dcm", ct)


def test_several_series_in_one_folder_are_listed():
    with pytest.raises(
        ConsiliumError, match=r"holds 3 series or stacks of images.*2 \(CT, 3 images"
    ):
        read_series(FOLDER)


def test_who_is_named_is_counted():
    found = identifying(SEGMENTATIONS / "ct-3slice")
    assert (found.files, found.private, found.said_removed) == (3, 3, 0)
    assert found.attributes["PatientName"] == found.attributes["StudyDate"] == 3
    assert identifying(FOLDER / "STS_008").said_removed == 29
