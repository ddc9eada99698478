"""A DICOM series in: a DICOM-SEG out that refers to its slices, beside the same mask as NIfTI."""

import highdicom
import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from federated.data.folders.dicom.algorithm import Algorithm
from federated.data.folders.dicom.rules import DicomRules
from federated.data.folders.dicom.series import read_series
from federated.data.folders.dicom.structures import read_structures
from federated.errors import ConsiliumError
from federated.inference.prediction import predict_files
from federated.settings.networks import SmallCNN
from federated.weights.model_file import ModelHeader, save_model
from tests.conftest import REAL_DATA
from tests.federated.data.dicom_files import (
    STEP,
    blank,
    enhanced,
    pixels,
    saved,
    slices_of,
    voxels,
)
from tests.federated.inference.test_predict_files import model_of
from tests.networks import build_model

BY = Algorithm("hippocampus", "7")
# Slices of this size are about the network's field, in mm.
SIZE = (14, 50, 44)


@pytest.fixture
def model(tmp_path):
    return model_of(tmp_path, "hippocampus", 1, 3, 3)


@pytest.fixture
def values():
    z, y, x = np.indices(SIZE)
    near = np.exp(-(((z - 6) / 5) ** 2 + ((y - 22) / 12) ** 2 + ((x - 20) / 10) ** 2))
    return (voxels(*SIZE) // 8 + 1500 * near).astype(np.uint16)


def test_the_segmentation_lies_on_the_slices_and_equals_the_mask(model, values, tmp_path):
    folder = saved(tmp_path / "scan", slices_of(values))
    written = predict_files(model, [folder], tmp_path / "out", algorithm=BY)
    assert [path.name for path in written] == ["scan.dcm", "scan.nii.gz"]
    nifti = nibabel.load(written[1])
    mask = np.asarray(nifti.dataobj)
    image = read_series(folder)
    np.testing.assert_allclose(nifti.affine, image.affine, atol=1e-5)
    assert (nifti.header["qform_code"], nifti.header["sform_code"]) == (1, 1)
    assert nifti.header.get_xyzt_units()[0] == "mm"
    assert len(np.unique(mask)) > 1

    made = highdicom.seg.segread(written[0])
    sources = [frame.found.header.SOPInstanceUID for frame in image.frame.frames]
    found = made.get_pixels_by_source_instance(
        sources, combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(found.transpose(2, 1, 0), mask)
    assert [made.get_segment_description(k).segment_label for k in (1, 2)] == [
        "anterior",
        "posterior",
    ]
    (by,) = made.get_segment_description(1).SegmentationAlgorithmIdentificationSequence
    assert (by.AlgorithmName, by.AlgorithmVersion) == ("hippocampus", "7")
    (reference,) = made.ReferencedSeriesSequence
    assert reference.SeriesInstanceUID == image.frame.series
    assert made.FrameOfReferenceUID == image.frame.frame_of_reference
    assert (made.PatientID, made.StudyInstanceUID) == ("MRN-4711", "2.25.5")
    # And the way in takes what the way out gives.
    np.testing.assert_array_equal(read_structures(written[0], image).values[0], mask)
    again = predict_files(model, [folder], tmp_path / "again", algorithm=BY)
    assert dcmread(again[0]).SOPInstanceUID == made.SOPInstanceUID


def test_the_mask_is_that_of_the_same_voxels_as_nifti(model, values, tmp_path):
    folder = saved(tmp_path / "scan", slices_of(values))
    image = read_series(folder)
    nibabel.save(nibabel.Nifti1Image(image.values[0], image.affine), tmp_path / "plain.nii.gz")
    own, plain = (
        np.asarray(nibabel.load(predict_files(model, [path], tmp_path / "out")[-1]).dataobj)
        for path in (folder, tmp_path / "plain.nii.gz")
    )
    np.testing.assert_array_equal(own, plain)


def test_frames_of_one_object_are_referred_to_one_by_one(model, values, tmp_path):
    order = np.random.default_rng(5).permutation(len(values))
    made = enhanced(values[order], [100 + STEP * k for k in order])
    for missing in ("AccessionNumber", "StudyID", "PatientSex", "PatientBirthDate"):
        delattr(made, missing)
    folder = saved(tmp_path / "scan", [made])
    seg, nifti = predict_files(model, [folder], tmp_path / "out", algorithm=BY)
    image = read_series(folder)
    mask = np.asarray(nibabel.load(nifti).dataobj)
    np.testing.assert_array_equal(read_structures(seg, image).values[0], mask)
    frames = [int(f.index) + 1 for f in image.frame.frames]
    found = highdicom.seg.segread(seg).get_pixels_by_source_frame(
        made.SOPInstanceUID, frames, combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(found.transpose(2, 1, 0), mask)


def test_a_resampled_volume_is_laid_back_on_the_slices_that_are_there(model, values, tmp_path):
    made = slices_of(values)
    folder = saved(tmp_path / "scan", [*made[:5], *made[6:]])
    with pytest.raises(ConsiliumError, match="about 1 is missing"):
        predict_files(model, [folder], tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    rules = DicomRules(uneven="resample")
    seg, nifti = predict_files(model, [folder], tmp_path / "out", dicom=rules)
    mask = np.asarray(nibabel.load(nifti).dataobj)
    assert mask.shape[2] == len(values)
    sources = [one.SOPInstanceUID for one in [*made[:5], *made[6:]]]
    found = highdicom.seg.segread(seg).get_pixels_by_source_instance(
        sources, combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(found.transpose(2, 1, 0), np.delete(mask, 5, axis=2))


def test_headers_that_break_the_standard_do_not_stop_it(model, values, tmp_path):
    made = slices_of(values)
    for one in made:
        one.SpecificCharacterSet = "ISO_IR 100"
        one.PatientName = "MÜLLER^JÖRG"
        one.StudyID, one.PatientSex, one.StudyDate = "longer than 16 letters", "U", "someday"
    folder = saved(tmp_path / "scan", made)
    seg, _ = predict_files(model, [folder], tmp_path / "out", algorithm=BY)
    assert str(dcmread(seg).PatientName) == "MÜLLER^JÖRG"


def test_a_mask_would_not_replace_a_slice_and_a_model_without_a_name_has_its_digest(
    model, values, tmp_path
):
    folder = saved(tmp_path / "scan", slices_of(values))
    seg, _ = predict_files(model, [folder], tmp_path / "out")
    (by,) = dcmread(seg).SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    assert by.AlgorithmName == "model"
    assert len(by.AlgorithmVersion) == 12
    (folder / "scan.dcm").write_bytes((folder / "IM0000").read_bytes())
    (folder / "IM0000").unlink()
    slice_before = (folder / "scan.dcm").read_bytes()
    with pytest.raises(ConsiliumError, match="lies in a folder that is predicted"):
        predict_files(model, [folder], folder)
    assert (folder / "scan.dcm").read_bytes() == slice_before
    single = saved(tmp_path / "one", slices_of(values[:1]), names=["x.dcm"])
    with pytest.raises(ConsiliumError, match="would replace an input"):
        predict_files(model, [single / "x.dcm"], single)


def test_a_photograph_in_dicom_gives_a_picture_and_a_segmentation(tmp_path):
    model = model_of(tmp_path, "skin", 3, 2, 2)
    colours = np.random.default_rng(0).integers(0, 255, (96, 128, 3)).astype(np.uint8)
    made = pixels(blank("1.2.840.10008.5.1.4.1.1.77.1.4", "XC"), colours)
    del made.FrameOfReferenceUID
    folder = saved(tmp_path / "photo", [made])
    seg, picture = predict_files(model, [folder], tmp_path / "out", algorithm=BY)
    assert (seg.name, picture.name) == ("photo.dcm", "photo.png")
    image = read_series(folder)
    mask = np.asarray(Image.open(picture)) > 0
    np.testing.assert_array_equal(read_structures(seg, image).values[0] > 0, mask)


@pytest.mark.skipif(not (REAL_DATA / "dicom").is_dir(), reason=f"{REAL_DATA / 'dicom'} is missing")
def test_a_real_series_gives_a_segmentation_on_its_slices(model, tmp_path):
    folder = REAL_DATA / "dicom/STS_008/MR_T1"
    seg, nifti = predict_files(model, [folder], tmp_path, algorithm=BY)
    image = read_series(folder)
    mask = np.asarray(nibabel.load(nifti).dataobj)
    sources = [frame.found.header.SOPInstanceUID for frame in image.frame.frames]
    found = highdicom.seg.segread(seg).get_pixels_by_source_instance(
        sources, combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(found.transpose(2, 1, 0), mask)


def test_a_classifier_takes_a_projection_as_it_takes_the_same_picture(tmp_path):
    network = build_model("small_cnn", channels=3, classes=8, dims=2, norm="group", seed=0)
    header = ModelHeader(SmallCNN(), 3, 8, 2, 28, "bloodmnist", "phantom")
    save_model(tmp_path / "model.safetensors", network, header)
    grey = np.random.default_rng(0).integers(0, 255, (28, 28)).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    made = pixels(blank("1.2.840.10008.5.1.4.1.1.1.1", "DX"), 255 - grey)
    made.PhotometricInterpretation = "MONOCHROME1"
    files = [tmp_path / "a.png", saved(tmp_path / "scan", [made])]
    table, _ = predict_files(tmp_path / "model.safetensors", files, tmp_path / "out")
    _, picture, projection = table.read_text().splitlines()
    assert picture.split(",")[3:] == projection.split(",")[3:]
