"""A folder of DICOM slices is the volume that was scanned, or is refused in one paragraph."""

import logging
import warnings
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders import JPEG2000LosslessDecoder, RLELosslessDecoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from federated.data.folders.dicom.identifiers import identifying
from federated.data.folders.dicom.quiet import quiet
from federated.data.folders.dicom.resampling import Regrid
from federated.data.folders.dicom.rules import DicomRules
from federated.data.folders.dicom.series import read_series
from federated.data.folders.families import CaseFiles
from federated.data.folders.read_case import read_case
from federated.data.folders.read_volume import is_dicom, read_volume
from federated.errors import ConsiliumError
from tests.federated.data.dicom_files import (
    AXIAL,
    NAME,
    ORIGIN,
    SPACING,
    STEP,
    blank,
    enhanced,
    item,
    pixels,
    saved,
    slices_of,
    voxels,
)

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def refused(path, rules=None, *, said):
    """What a person reads: one paragraph that says so, without anybody's name."""
    with pytest.raises(ConsiliumError) as error:
        read_series(path, rules or DicomRules())
    text = str(error.value)
    assert "\n" not in text
    assert "DOE" not in text
    assert "MRN" not in text
    for part in [said] if isinstance(said, str) else said:
        assert part in text
    return text


def raised(height):
    return ORIGIN + np.array([0, 0, height])


def expected(values):
    return values.transpose(2, 1, 0)


@pytest.fixture
def values():
    return voxels()


def test_slices_are_in_the_order_of_their_positions_whatever_their_names_and_numbers(
    tmp_path, values
):
    made = slices_of(values)
    for index, one in enumerate(made):
        one.InstanceNumber = (7 * index) % len(made)
    read = read_series(saved(tmp_path, made))
    assert read.values.dtype == np.float32
    np.testing.assert_array_equal(read.values[0], expected(values))
    affine = np.diag([SPACING[1], SPACING[0], STEP, 1.0])
    affine[:3, 3] = ORIGIN
    np.testing.assert_allclose(read.affine, RAS @ affine, atol=1e-9)
    assert [frame.found.header.InstanceNumber for frame in read.frame.frames] == [
        (7 * index) % len(made) for index in range(len(made))
    ]


def test_an_oblique_series_maps_every_pixel_to_where_its_slice_says(tmp_path, values):
    turn = np.deg2rad(25)
    cosines = (np.cos(turn), np.sin(turn), 0, 0, 0, -1)
    made = slices_of(values, cosines=cosines)
    read = read_series(saved(tmp_path, made))
    column, row, level = 5, 3, 4
    header = made[level]
    across, down = np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float)
    point = np.array(header.ImagePositionPatient, float)
    point = point + column * SPACING[1] * across + row * SPACING[0] * down
    found = (read.affine @ (column, row, level, 1))[:3]
    np.testing.assert_allclose(found, point * (-1, -1, 1), atol=1e-9)
    assert read.values[0, column, row, level] == values[level, row, column]


def test_each_slice_has_its_own_slope_and_intercept(tmp_path, values):
    made = slices_of(values, "PT")
    slopes = np.linspace(0.3, 1.7, len(made))
    for one, slope in zip(made, slopes, strict=True):
        one.RescaleSlope, one.RescaleIntercept, one.Units = f"{slope:.8f}", "-2.5", "BQML"
    read = read_series(saved(tmp_path / "a", made))
    exact = values * np.array([float(f"{slope:.8f}") for slope in slopes])[:, None, None] - 2.5
    assert read.values.dtype == np.float64
    np.testing.assert_array_equal(read.values[0], expected(exact))
    made[2].Units = "GML"
    refused(saved(tmp_path / "b", made), said=["different units", "BQML, GML"])
    made[2].Units, made[2].RescaleSlope = "BQML", 0
    refused(saved(tmp_path / "c", made), said="RescaleSlope that is 0")


def test_ct_without_a_slope_is_in_no_unit(tmp_path, values):
    made = slices_of(values, "CT")
    np.testing.assert_array_equal(
        read_series(saved(tmp_path / "a", made)).values[0], expected(values) - 1024.0
    )
    del made[1].RescaleSlope, made[1].RescaleIntercept
    refused(saved(tmp_path / "b", made), said="neither RescaleSlope nor RescaleIntercept")


def test_a_table_says_what_values_mean_where_there_is_one(tmp_path):
    values = np.random.default_rng(0).integers(0, 4, (3, 10, 8)).astype(np.uint16)
    meaning = np.array([5, 70, 800, 9000])
    made = slices_of(values)
    for one in made:
        table = item(LUTDescriptor=[4, 0, 16], ModalityLUTType="OD", LUTData=meaning.tolist())
        table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
        one.ModalityLUTSequence = [table]
    read = read_series(saved(tmp_path, made))
    np.testing.assert_array_equal(read.values[0], expected(meaning[values]))


def test_signed_values_and_unused_bits_are_as_they_are_meant(tmp_path):
    values = np.array([[[-5, 100], [2000, -2048]], [[1, 2], [3, 4]]], np.int16)
    made = slices_of(values & 0x0FFF, signed=True)
    for one in made:
        one.BitsStored, one.HighBit = 12, 11
    read = read_series(saved(tmp_path / "a", made))
    np.testing.assert_array_equal(read.values[0], expected(values))
    for one in made:
        one.HighBit = 15
    refused(saved(tmp_path / "b", made), said="HighBit")


def test_padding_is_background_in_the_same_unit(tmp_path, values):
    stored = values.astype(np.int16)
    stored[:, 0, :3] = -2000
    made = slices_of(stored, "CT", signed=True)
    for one in made:
        one.PixelPaddingValue = -2000
        one["PixelPaddingValue"].VR = "SS"
    read = read_series(saved(tmp_path, made)).values[0]
    lowest = values.astype(float)
    lowest[:, 0, :3] = np.inf
    assert (read[:3, 0] == lowest.min() - 1024).all()
    np.testing.assert_array_equal(read[3:], expected(values)[3:] - 1024.0)


class TestDistances:
    def test_a_missing_slice_is_named_by_its_place(self, tmp_path, values):
        made = slices_of(values)
        folder = saved(tmp_path, [*made[:3], *made[4:]], names=list("abcde"))
        refused(folder, said=["about 1 is missing", "6 mm between c at (-20, -30, 106) mm and d"])

    def test_uneven_slices_are_resampled_where_that_is_asked_for(self, tmp_path):
        ramp = np.arange(7)[:, None, None] * np.full((7, 4, 5), 300, np.uint16)
        made = slices_of(ramp.astype(np.uint16))
        folder = saved(tmp_path, [*made[:2], *made[3:]])
        read = read_series(folder, DicomRules(uneven="resample"))
        np.testing.assert_allclose(read.values[0], expected(ramp), atol=1e-3)
        np.testing.assert_allclose(read.affine[2, 2], STEP)
        # A mask of the volume goes back to the slices that are there.
        mask = np.broadcast_to(np.arange(7), (5, 4, 7))
        assert read.frame.on_slices(mask)[:, 0, 0].tolist() == [0, 1, 3, 4, 5, 6]

    def test_irregular_distances_are_refused_with_the_worst(self, tmp_path, values):
        heights = [0, 3, 6, 10.2, 12, 15]
        made = slices_of(values, positions=[raised(height) for height in heights])
        refused(saved(tmp_path, made), said=["from 1.8 to 4.2 mm", "at (-20, -30, 106) mm"])

    def test_rounding_of_positions_is_no_gap(self, tmp_path, values):
        noise = [0, 0.04, -0.05, 0.02, 0, 0.03]
        positions = [raised(STEP * k + off) for k, off in enumerate(noise)]
        read = read_series(saved(tmp_path, slices_of(values, positions=positions)))
        assert read.frame.regrid is None

    def test_slices_missing_between_all_are_told_by_the_headers(self, tmp_path, values):
        made = slices_of(values)
        for one in made:
            one.SpacingBetweenSlices = STEP
        folder = saved(tmp_path / "a", made[::2])
        refused(folder, said=["6 mm apart", "say 3 mm (SpacingBetweenSlices)"])
        for one in made:  # the empty space alone, as some scanners write
            one.SpacingBetweenSlices, one.SliceThickness = 0.5, STEP - 0.5
        assert read_series(saved(tmp_path / "b", made)).spatial == (8, 10, 6)

    def test_a_single_slice_needs_a_thickness(self, tmp_path, values):
        made = slices_of(values[:1])
        assert read_series(saved(tmp_path / "a", made)).affine[2, 2] == STEP
        del made[0].SliceThickness
        refused(saved(tmp_path / "b", made), said="how thick it is")

    def test_two_images_at_one_position_are_named(self, tmp_path, values):
        made = slices_of(values)
        again = slices_of(values[:1])
        again[0].SOPInstanceUID = again[0].file_meta.MediaStorageSOPInstanceUID = "2.25.404"
        folder = saved(tmp_path / "a", [*made, *again], names=[*"abcdef", "twin"])
        refused(folder, said=["1 images lie where another one does", "a and twin", "nothing in"])
        folder = saved(tmp_path / "b", [*made, made[0]], names=[*"abcdef", "copy"])
        refused(folder, said="copies of one image")


class TestTilt:
    def made(self, folder):
        # A block of 8 mm in the patient, seen by slices that each begin 1.4 mm further.
        rows, slices = 40, 8
        heights = np.arange(slices) * STEP
        down = np.arange(rows) * SPACING[0]
        shift = 1.4 * np.arange(slices)
        inside = np.abs(down[None, :] + shift[:, None] - 15) < 4
        values = np.repeat(inside[:, :, None], 9, axis=2).astype(np.uint16) * 1000
        positions = ORIGIN + np.stack([np.zeros(slices), shift, heights], axis=1)
        return saved(folder, slices_of(values, "CT", positions=list(positions)))

    def test_a_tilted_gantry_is_refused_with_its_angle(self, tmp_path):
        angle = np.rad2deg(np.arctan(1.4 / STEP))
        refused(self.made(tmp_path), said=[f"{angle:.3g} degrees", "tilted=resample"])

    def test_it_is_straightened_where_that_is_asked_for(self, tmp_path):
        read = read_series(self.made(tmp_path), DicomRules(tilted="resample"))
        inside = read.values[0, 4] > -500
        # The block is upright: the same rows in every slice, at the patient's 11 to 19 mm.
        rows = np.arange(inside.shape[0]) * SPACING[0]
        for level in range(inside.shape[1]):
            found = rows[inside[:, level]]
            assert found.min() == pytest.approx(11, abs=SPACING[0])
            assert found.max() == pytest.approx(19, abs=SPACING[0])
        np.testing.assert_allclose(read.affine[:3, 2], (0, 0, STEP), atol=1e-9)

    def test_a_regular_grid_comes_out_as_it_is(self):
        values = voxels().transpose(2, 1, 0).astype(np.float32)
        regrid = Regrid(np.arange(6) * STEP, np.zeros((6, 2)), (8, 10))
        np.testing.assert_array_equal(regrid.forward(values, 0.0), values)
        np.testing.assert_array_equal(regrid.nearest_back(values), values)

    def test_labels_on_a_straightened_grid_go_back_to_their_slices(self, tmp_path):
        read = read_series(self.made(tmp_path), DicomRules(tilted="resample"))
        inside = read.values[0] > -500
        back = read.frame.on_slices(inside)
        truth = np.stack([dcmread(f.found.path).pixel_array for f in read.frame.frames]) > 0
        # Nearest voxels: a border may move by one row.
        assert (back != truth).sum() <= 2 * 9 * 8
        assert back.shape == truth.shape


class TestSeveralSeries:
    def test_two_series_are_listed_and_one_can_be_named(self, tmp_path, values):
        other = slices_of(voxels(4, seed=1), series="2.25.12")
        for one in other:
            one.SeriesNumber = 9
        folder = saved(tmp_path, [*slices_of(values), *other], names=list("abcdefghij"))
        refused(folder, said=["2 series", "3 (MR, 6 images, 8x10, first a)", "9 (MR, 4 images"])
        assert read_series(folder, DicomRules(series="9")).spatial == (8, 10, 4)
        assert read_series(folder, DicomRules(series="2.25.11")).spatial == (8, 10, 6)
        refused(folder, DicomRules(series="4"), said="no series or stack '4'")

    def test_series_of_one_number_are_told_apart_without_their_uids(self, tmp_path, values):
        other = slices_of(voxels(4, seed=1), series="2.25.12")
        folder = saved(tmp_path, [*slices_of(values), *other], names=list("abcdefghij"))
        text = refused(folder, said=["@1 (MR, 6 images", "@2 (MR, 4 images"])
        assert "2.25." not in text
        assert read_series(folder, DicomRules(series="@2")).spatial == (8, 10, 4)

    def test_phases_are_told_apart_by_their_times_which_are_not_told(self, tmp_path, values):
        first, second = slices_of(values), slices_of(voxels(seed=2))
        for index, (one, two) in enumerate(zip(first, second, strict=True)):
            one.AcquisitionTime, two.AcquisitionTime = "101112", "131415"
            two.SOPInstanceUID = two.file_meta.MediaStorageSOPInstanceUID = f"2.25.50{index}"
        folder = saved(tmp_path, [*first, *second], names=list("abcdefghijkl"))
        text = refused(folder, said=["3#1 (", "AcquisitionTime", "3#2 ("])
        assert "101112" not in text

    def test_two_echoes_of_one_series_are_two_stacks(self, tmp_path, values):
        first, second = slices_of(values), slices_of(voxels(seed=2))
        for index, (one, two) in enumerate(zip(first, second, strict=True)):
            one.EchoNumbers, two.EchoNumbers = 1, 2
            two.SOPInstanceUID = two.file_meta.MediaStorageSOPInstanceUID = f"2.25.50{index}"
        folder = saved(tmp_path, [*first, *second], names=list("abcdefghijkl"))
        refused(folder, said=["2 series or stacks", "3#1 (", "EchoNumbers 1", "3#2 ("])
        read = read_series(folder, DicomRules(series="3#2"))
        np.testing.assert_array_equal(read.values[0], expected(voxels(seed=2)))

    def test_sizes_and_orientations_are_not_mixed(self, tmp_path, values):
        odd = slices_of(voxels(1, 12, 8), positions=[raised(-3)])
        odd[0].SOPInstanceUID = odd[0].file_meta.MediaStorageSOPInstanceUID = "2.25.600"
        folder = saved(tmp_path / "a", [*slices_of(values), *odd])
        refused(folder, said=["2 series or stacks", "1 image, 8x12", "6 images, 8x10"])
        sagittal = slices_of(values[:3], cosines=(0, 1, 0, 0, 0, -1))
        for index, one in enumerate(sagittal):
            one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"2.25.70{index}"
        refused(saved(tmp_path / "b", [*slices_of(values), *sagittal]), said="2 series or stacks")

    def test_a_localiser_does_not_count_beside_what_was_planned_on_it(self, tmp_path, values):
        planned = slices_of(values[:2], series="2.25.12")
        for one in planned:
            one.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
            one.SeriesNumber = 1
        folder = saved(tmp_path, [*planned, *slices_of(values)], names=list("abcdefgh"))
        assert read_series(folder).spatial == (8, 10, 6)
        assert read_series(folder, DicomRules(series="1")).spatial == (8, 10, 2)

    def test_nothing_but_a_localiser_is_refused_unless_it_is_named(self, tmp_path, values):
        made = slices_of(values)
        for one in made:
            one.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        folder = saved(tmp_path, made)
        refused(folder, said="nothing but images to plan others on")
        assert read_series(folder, DicomRules(series="3")).spatial == (8, 10, 6)

    def test_one_slice_by_name_is_no_series(self, tmp_path, values):
        folder = saved(tmp_path, slices_of(values), names=[f"{k}.dcm" for k in "abcdef"])
        refused(folder / "a.dcm", said="one slice of a series")


class TestManyFrames:
    def test_each_frame_has_its_own_place_and_slope(self, tmp_path, values):
        order, slopes = [3, 0, 5, 1, 4, 2], [1.0, 2.0, 0.5, 3.0, 1.5, 2.5]
        made = enhanced(values[order], [100 + STEP * k for k in order], slopes)
        read = read_series(saved(tmp_path, [made]))
        scaled = values * np.array([slopes[order.index(k)] for k in range(6)])[:, None, None]
        np.testing.assert_array_equal(read.values[0], expected(scaled))
        assert read.affine[2, 3] == 100
        assert [frame.index for frame in read.frame.frames] == [order.index(k) for k in range(6)]

    def test_echoes_of_one_object_are_told_apart(self, tmp_path, values):
        made = enhanced(values, [100, 103, 106] * 2, echoes=[2.5] * 3 + [5.0] * 3)
        folder = saved(tmp_path, [made])
        refused(folder, said=["3#1 (", "EffectiveEchoTime 5.0"])
        read = read_series(folder, DicomRules(series="3#2"))
        np.testing.assert_array_equal(read.values[0], expected(values[3:]))

    def test_frames_without_a_place_and_wrong_counts_are_refused(self, tmp_path, values):
        film = blank("1.2.840.10008.5.1.4.1.1.3.1", "US")
        film.NumberOfFrames = 6
        refused(saved(tmp_path / "a", [pixels(film, values)]), said="6 frames that have no place")
        film.NumberOfFrames = 10**9
        refused(saved(tmp_path / "huge", [film]), said="1000000000 frames of 8x10 pixels")
        made = enhanced(values, range(0, 18, 3))
        del made.PerFrameFunctionalGroupsSequence[-1]
        refused(saved(tmp_path / "b", [made]), said="says that it has 6 frames, and describes 5")


class TestForms:
    @pytest.mark.parametrize(
        "syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian]
    )
    def test_every_plain_syntax_gives_the_same(self, tmp_path, values, syntax):
        made = slices_of(values)
        for one in made:
            one.file_meta.TransferSyntaxUID = syntax
            if syntax == ExplicitVRBigEndian:
                one.PixelData = np.frombuffer(one.PixelData, "<u2").astype(">u2").tobytes()
        np.testing.assert_array_equal(
            read_series(saved(tmp_path, made)).values[0], expected(values)
        )

    @pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
    def test_every_lossless_compression_gives_the_same(self, tmp_path, syntax):
        values = voxels(3, 64, 48)
        made = slices_of(values)
        for one in made:
            one.compress(syntax, encoding_plugin=None, generate_instance_uid=False)
        np.testing.assert_array_equal(
            read_series(saved(tmp_path, made)).values[0], expected(values)
        )

    def test_a_syntax_without_decoder_is_named_with_the_package(
        self, tmp_path, values, monkeypatch
    ):
        made = slices_of(values)
        for one in made:
            one.compress(RLELossless, generate_instance_uid=False)
        folder = saved(tmp_path, made)
        monkeypatch.setattr(RLELosslessDecoder, "_available", {})
        monkeypatch.setattr(
            RLELosslessDecoder, "_unavailable", {"pylibjpeg": ("pylibjpeg>=2.0", "pylibjpeg-rle")}
        )
        refused(folder, said=["RLE Lossless (1.2.840.10008.1.2.5)", "pylibjpeg-rle"])
        assert JPEG2000LosslessDecoder.is_available

    def test_a_film_is_in_a_syntax_that_nothing_decodes(self, tmp_path, values):
        made = slices_of(values[:1])
        saved(tmp_path, made, names=["a"])
        made[0].compress(RLELossless, generate_instance_uid=False)
        made[0].file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
        made[0].save_as(tmp_path / "a", enforce_file_format=True)
        refused(tmp_path, said="MPEG-4 AVC/H.264 High Profile / Level 4.1")

    def test_files_without_a_preamble_and_files_that_are_none(self, tmp_path, values):
        folder = saved(tmp_path / "a", slices_of(values), names=[f"{k}" for k in range(6)])
        for path in folder.iterdir():
            path.write_bytes(path.read_bytes()[132:])
        (folder / "readme.txt").write_text("of the viewer")
        (folder / "VERSION").write_bytes(b"\x08\x00\x05\x00 by chance")
        (folder / ".hidden").write_bytes(b"x")
        np.testing.assert_array_equal(read_series(folder).values[0], expected(values))

    def test_a_data_set_without_description_is_read_by_its_content(self, tmp_path, values):
        made = slices_of(values)
        for index, one in enumerate(made):
            del one.file_meta
            one.save_as(tmp_path / f"{index}.dcm", implicit_vr=True, little_endian=True)
        np.testing.assert_array_equal(read_series(tmp_path).values[0], expected(values))

    @pytest.mark.parametrize("compressed", [None, RLELossless, JPEGLSLossless, JPEG2000Lossless])
    def test_truncated_pixels_are_refused_and_not_padded(self, tmp_path, compressed):
        values = voxels(3, 64, 48)
        made = slices_of(values)
        if compressed:
            for one in made:
                one.compress(compressed, generate_instance_uid=False)
        folder = saved(tmp_path, made, names=list("abc"))
        whole = (folder / "b").read_bytes()
        (folder / "b").write_bytes(whole[: int(len(whole) * 0.7)])
        refused(folder, said="b ")

    @pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, JPEGBaseline8Bit])
    def test_a_compressed_frame_without_its_end_is_refused_and_not_filled_up(
        self, tmp_path, syntax
    ):
        values = (voxels(1, 64, 48) // 8).astype(np.uint8)
        (made,) = slices_of(values)
        if syntax == JPEGBaseline8Bit:
            file = BytesIO()
            Image.fromarray(values[0]).save(file, "JPEG")
            whole = file.getvalue()
            made.file_meta.TransferSyntaxUID = syntax
        else:
            made.compress(syntax, generate_instance_uid=False)
            whole = next(generate_frames(made.PixelData, number_of_frames=1))
        made.PixelData = encapsulate([whole])
        made["PixelData"].VR = "OB"
        read_series(saved(tmp_path / "whole", [made]))
        made.PixelData = encapsulate([whole[: int(0.95 * len(whole))]])
        refused(saved(tmp_path / "cut", [made]), said="truncated, damaged")

    def test_a_file_that_is_named_dicom_and_is_none_is_refused(self, tmp_path, values):
        folder = saved(tmp_path, slices_of(values))
        (folder / "z.dcm").write_bytes(b"")
        refused(folder, said="z.dcm")

    def test_a_folder_without_images_says_what_is_there(self, tmp_path, values):
        (tmp_path / "a.txt").write_text("a")
        refused(tmp_path, said="no file there is DICOM")
        refused(tmp_path / "missing", said="it is not there")

    def test_what_is_needed_of_a_place_is_there_or_named(self, tmp_path, values):
        made = slices_of(values)
        del made[2].PixelSpacing
        made[2].ImagerPixelSpacing = list(SPACING)
        refused(saved(tmp_path / "a", made), said="no PixelSpacing")
        made = slices_of(values)
        made[2].ImageOrientationPatient = [1, 0, 0, 1, 0, 0]
        refused(saved(tmp_path / "b", made), said="two unit vectors at a right angle")
        made = slices_of(values)
        for one in made:
            del one.ImagePositionPatient
        refused(saved(tmp_path / "c", made[:1]), said="does not say where it lies")

    def test_nothing_of_a_value_is_logged(self, tmp_path, values, caplog):
        made = slices_of(values)
        with quiet():
            for one in made:
                one.StudyID = "DOE JOHN, BORN 1950-01-02 IN A TOWN"  # too long for its type
                one.PatientBirthDate, one.SeriesInstanceUID = "2 JAN 1950", "2.25.DOE"
            folder = saved(tmp_path, made)
        caplog.clear()
        with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            read_series(folder)
            identifying(folder)
        assert "DOE" not in caplog.text
        assert not [found for found in warned if "DOE" in str(found.message)]


class TestPictures:
    def test_a_projection_is_a_picture_and_black_is_its_lowest(self, tmp_path, values):
        made = pixels(blank("1.2.840.10008.5.1.4.1.1.1.1", "DX"), values[0], bits=12)
        made.ImagerPixelSpacing = list(SPACING)
        folder = saved(tmp_path / "a", [made])
        read = read_volume(folder)
        assert (read.affine, read.values.dtype) == (None, np.uint16)
        np.testing.assert_array_equal(read.values, np.repeat(values[:1], 3, axis=0))
        made.PhotometricInterpretation = "MONOCHROME1"
        turned = read_volume(saved(tmp_path / "b", [made]))
        np.testing.assert_array_equal(turned.values[0], 4095 - values[0])

    def test_quantities_are_not_turned_over(self, tmp_path, values):
        made = slices_of(values, "PT")
        for one in made:
            one.PhotometricInterpretation = "MONOCHROME1"
        np.testing.assert_array_equal(
            read_series(saved(tmp_path, made)).values[0], expected(values)
        )

    def test_colours_are_rgb(self, tmp_path):
        colours = np.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype(np.uint8)
        made = pixels(blank("1.2.840.10008.5.1.4.1.1.77.1.4", "XC"), colours)
        read = read_volume(saved(tmp_path / "a", [made]))
        np.testing.assert_array_equal(read.values, np.moveaxis(colours, -1, 0))
        ybr = np.asarray(Image.fromarray(colours).convert("YCbCr"))
        made.PixelData, made.PhotometricInterpretation = ybr.tobytes(), "YBR_FULL"
        turned = read_volume(saved(tmp_path / "b", [made])).values
        assert np.abs(turned.astype(int) - read.values).max() <= 3
        coloured = slices_of(voxels())
        for one in coloured:
            pixels(one, np.zeros((10, 8, 3), np.uint8))
        refused(saved(tmp_path / "c", coloured), said="coloured")


def test_a_case_may_be_a_folder_of_slices(tmp_path, values):
    folder = saved(tmp_path / NAME.replace("^", "_"), slices_of(values))
    images, mask = read_case(CaseFiles("a", (folder,), None, "a"))
    assert mask is None
    np.testing.assert_array_equal(images[0].values[0], expected(values))
    assert is_dicom(folder)
    assert not is_dicom(tmp_path / "missing")
    assert tuple(images[0].frame.frames[0].get("ImageOrientationPatient")) == AXIAL
