"""Segments and contours become labels on the voxels that they mark, by position alone."""

import numpy as np
import pytest

from federated.data.folders.dicom.rasterise import inside
from federated.data.folders.dicom.rules import DicomRules
from federated.data.folders.dicom.series import read_series
from federated.data.folders.dicom.structures import read_structures
from federated.data.folders.families import CaseFiles
from federated.data.folders.read_case import read_case
from federated.data.folders.read_volume import read_mask
from federated.data.folders.volume import Volume, affine_gap
from federated.errors import ConsiliumError
from tests.federated.data.dicom_files import (
    ORIGIN,
    STEP,
    blank,
    box,
    enhanced,
    saved,
    segmentation,
    slices_of,
    structure_set,
    voxels,
)

VALUES = voxels()
NAMES = ("liver", "tumour")


@pytest.fixture
def series(tmp_path):
    return read_series(saved(tmp_path / "series", slices_of(VALUES)))


def file(tmp_path, made):
    return saved(tmp_path / "mask", [made], names=["mask.dcm"]) / "mask.dcm"


def labels(path, series, **rules):
    read = read_structures(path, series, DicomRules(**rules))
    assert read.values.dtype == np.int64
    assert read.spatial == series.spatial
    assert affine_gap([read, series]) == 0
    return read.values[0]


def refused(path, series, said, **rules):
    with pytest.raises(ConsiliumError) as error:
        read_structures(path, series, DicomRules(**rules))
    text = str(error.value)
    assert "\n" not in text
    assert "DOE" not in text
    for part in [said] if isinstance(said, str) else said:
        assert part in text


class TestSegmentation:
    def mask(self):
        made = np.zeros((*VALUES.shape, 2), np.uint8)
        made[1:4, 2:6, 1:5, 0] = 1
        made[3:6, 7:9, 4:8, 1] = 1
        return made

    def labels(self):
        mask = self.mask()
        return (mask[..., 0] + 2 * mask[..., 1]).transpose(2, 1, 0)

    @pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
    def test_segments_are_labels_by_their_numbers(self, tmp_path, series, kind):
        made = segmentation(slices_of(VALUES), self.mask(), NAMES, kind)
        np.testing.assert_array_equal(labels(file(tmp_path, made), series), self.labels())

    def test_frames_lie_where_their_planes_say_and_not_in_their_order(self, tmp_path, series):
        order = [4, 2, 0, 5, 3, 1]
        shuffled = [slices_of(VALUES)[k] for k in order]
        made = segmentation(shuffled, self.mask()[order], NAMES)
        np.testing.assert_array_equal(labels(file(tmp_path, made), series), self.labels())

    def test_labels_follow_names_and_numbers(self, tmp_path, series):
        path = file(tmp_path, segmentation(slices_of(VALUES), self.mask(), NAMES))
        found = labels(path, series, structures=(("TUMOUR", 1), ("1", 5)))
        truth = self.labels()
        np.testing.assert_array_equal(found == 1, truth == 2)
        np.testing.assert_array_equal(found == 5, truth == 1)
        assert set(np.unique(labels(path, series, structures=(("liver", 1),)))) == {0, 1}
        refused(path, series, ["none of the structures 'spleen'", "1 'liver', 2 'tumour'"],
                structures=(("spleen", 1),))  # fmt: skip

    def test_overlapping_segments_are_named_or_the_first_comes_first(self, tmp_path, series):
        mask = self.mask()
        mask[3, 5:8, 4:6, :] = 1
        path = file(tmp_path, segmentation(slices_of(VALUES), mask, NAMES))
        common = int((mask[..., 0] & mask[..., 1]).sum())
        assert common == 6
        refused(path, series, f"1 'liver' and 2 'tumour' in {common} voxels")
        found = labels(path, series, overlap="first")
        np.testing.assert_array_equal(found == 1, mask[..., 0].transpose(2, 1, 0) == 1)
        by_name = (("tumour", 2), ("liver", 1))
        found = labels(path, series, overlap="first", structures=by_name)
        np.testing.assert_array_equal(found == 2, mask[..., 1].transpose(2, 1, 0) == 1)
        # One label for both: nothing is in doubt.
        both = labels(path, series, structures=(("liver", 1), ("tumour", 1)))
        np.testing.assert_array_equal(both, mask.any(axis=-1).transpose(2, 1, 0))

    def test_half_a_probability_is_inside(self, tmp_path, series):
        share = np.zeros((*VALUES.shape, 1), np.float32)
        share[2, 3, :4, 0] = 0.49, 0.51, 1.0, 0.2
        made = segmentation(slices_of(VALUES), share, NAMES[:1], "FRACTIONAL")
        found = labels(file(tmp_path, made), series)
        assert found[:4, 3, 2].tolist() == [0, 1, 1, 0]
        assert found.sum() == 2

    def test_that_of_another_series_or_frame_is_refused(self, tmp_path, series):
        other = slices_of(VALUES, series="2.25.12")
        made = segmentation(other, self.mask(), NAMES)
        refused(file(tmp_path, made), series, "of another series than the image")
        elsewhere = slices_of(VALUES)
        for one in elsewhere:
            one.FrameOfReferenceUID = "2.25.23"
        made = segmentation(elsewhere, self.mask(), NAMES)
        refused(file(tmp_path, made), series, "another frame of reference")

    def test_that_of_another_grid_is_refused(self, tmp_path, series):
        for moved, said in (((0, 0, 1.0), "1 mm off"), ((0.35, 0, 0), "between them")):
            positions = [ORIGIN + np.array([0, 0, STEP * k]) + moved for k in range(6)]
            made = segmentation(slices_of(VALUES, positions=positions), self.mask(), NAMES)
            refused(file(tmp_path, made), series, [said, "mask.dcm"])
        aside = [ORIGIN + np.array([-2.1, 0, STEP * k]) for k in range(6)]
        made = segmentation(slices_of(VALUES, positions=aside), self.mask(), NAMES)
        refused(file(tmp_path, made), series, "outside of the image")

    def test_a_part_of_the_grid_lies_where_it_is(self, tmp_path, series):
        aside = [ORIGIN + np.array([0.7 * 2, 0.5 * 3, STEP * k]) for k in range(6)]
        part = np.zeros((6, 4, 3, 1), np.uint8)
        part[2, 1, 2] = 1
        images = slices_of(VALUES[:, :4, :3], positions=aside)
        found = labels(file(tmp_path, segmentation(images, part, NAMES[:1])), series)
        assert np.argwhere(found).tolist() == [[4, 4, 2]]

    def test_the_slices_of_an_object_of_many_frames_are_found(self, tmp_path):
        order = [3, 0, 5, 1, 4, 2]
        image = enhanced(VALUES[order], [100 + STEP * k for k in order])
        read = read_series(saved(tmp_path / "series", [image]))
        image.AccessionNumber, image.StudyID = "", ""
        made = segmentation([image], self.mask()[order], NAMES)
        np.testing.assert_array_equal(labels(file(tmp_path, made), read), self.labels())

    def test_a_mask_lies_on_the_volume_that_uneven_slices_became(self, tmp_path):
        left = [0, 1, 3, 4, 5]
        images = [slices_of(VALUES)[k] for k in left]
        folder = saved(tmp_path / "series", images)
        read = read_series(folder, DicomRules(uneven="resample"))
        mask = np.zeros((*VALUES.shape, 1), np.uint8)
        mask[1:4, 2:5, 3:6] = 1
        made = segmentation(images, mask[left], NAMES[:1])
        found = labels(file(tmp_path, made), read)
        np.testing.assert_array_equal(found, mask[..., 0].transpose(2, 1, 0))


class TestStructureSet:
    def test_a_contour_takes_the_pixels_whose_middle_is_inside(self, tmp_path, series):
        # From 1.4 to 4.6 columns are 2, 3 and 4; from 2.6 to 5.5 rows are 3, 4 and 5.
        made = structure_set([("GTV", [box(1.4, 4.6, 2.6, 5.5, k) for k in (1, 2)])])
        found = labels(file(tmp_path, made), series)
        truth = np.zeros_like(found)
        truth[2:5, 3:6, 1:3] = 1
        np.testing.assert_array_equal(found, truth)

    def test_a_contour_within_another_is_a_hole_and_so_is_a_keyhole(self, tmp_path, series):
        outer, inner = box(0.5, 6.5, 0.5, 8.5, 2), box(2.5, 4.5, 3.5, 5.5, 2)
        path = file(tmp_path, structure_set([("ring", [outer, inner])]))
        found = labels(path, series)
        truth = np.zeros_like(found)
        truth[1:7, 1:9, 2] = 1
        truth[3:5, 4:6, 2] = 0
        np.testing.assert_array_equal(found, truth)
        keyhole = np.concatenate([outer, outer[:1], inner[:1], inner[:0:-1], inner[:1]])
        keyhole_path = file(tmp_path / "k", structure_set([("ring", [keyhole])]))
        np.testing.assert_array_equal(labels(keyhole_path, series), truth)

    def test_several_structures_have_the_labels_that_are_named(self, tmp_path, series):
        sets = [("BODY", [box(0, 7, 0, 9, 1)]), ("Lung_L", [box(1, 3, 1, 3, 1)]),
                ("Lung_R", [box(5, 7, 1, 3, 1)]), ("iso", [])]  # fmt: skip
        path = file(tmp_path, structure_set(sets))
        refused(path, series, ["3 structures", "1 'BODY', 2 'Lung_L', 3 'Lung_R'"])
        found = labels(path, series, structures=(("lung_l", 1), ("lung_r", 2)))
        assert [int((found == k).sum()) for k in range(3)] == [found.size - 8, 4, 4]
        refused(path, series, "'BODY' and 2 'Lung_L' in 4 voxels",
                structures=(("BODY", 3), ("Lung_L", 1)))  # fmt: skip
        first = labels(path, series, structures=(("Lung_L", 1), ("BODY", 3)), overlap="first")
        assert int((first == 1).sum()) == 4

    def test_contours_of_another_frame_of_reference_are_refused(self, tmp_path, series):
        made = structure_set([("GTV", [box(1, 4, 2, 5, 1)])], frame="2.25.23")
        refused(file(tmp_path, made), series, ["'GTV'", "another frame of reference"])

    @pytest.mark.parametrize(
        ("contour", "said"),
        [
            (box(1, 4, 2, 5, 1.5), "mm off the nearest slice"),
            (box(1, 4, 2, 5, 7), "6 mm off the nearest slice"),
            (box(-3, 4, 2, 5, 1), "reaches out of the image"),
            (box(1, 4, 2, 5, 1)[:, [0, 2, 1]], "off the nearest slice"),
            (np.full((4, 3), np.nan), "coordinates that are no points"),
        ],
    )
    def test_a_contour_that_lies_elsewhere_is_refused(self, tmp_path, series, contour, said):
        made = structure_set([("GTV", [box(1, 4, 2, 5, 0), contour])])
        refused(file(tmp_path, made), series, ["contour 2 of the structure 'GTV'", said])

    def test_what_has_no_inside_is_refused(self, tmp_path, series):
        open_one = structure_set([("line", [box(1, 4, 2, 5, 1)])], kind="OPEN_PLANAR")
        refused(file(tmp_path, open_one), series, ["'OPEN_PLANAR'", "have an inside"])
        point = structure_set([("iso", [box(1, 4, 2, 5, 1)[:1]])])
        refused(file(tmp_path / "p", point), series, "no closed contour")

    def test_a_contour_that_is_there_twice_would_leave_nothing(self, tmp_path, series):
        made = structure_set([("GTV", [box(1, 4, 2, 5, 1)] * 2)])
        refused(file(tmp_path, made), series, "is there twice")

    def test_a_structure_on_every_second_slice_is_refused(self, tmp_path, series):
        made = structure_set([("GTV", [box(1, 4, 2, 5, k) for k in (0, 2, 4)])])
        refused(file(tmp_path, made), series, "3 of the 5 slices")


def test_neighbours_with_a_common_border_share_no_pixel_and_leave_none_out():
    rng = np.random.default_rng(3)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 11))
    ring = 12.5 + 9 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    middle = np.array([12.0, 13.0])  # on the middle of a pixel
    parts = [
        inside([np.stack([middle, one, other])], 26, 26)
        for one, other in zip(ring, np.roll(ring, -1, axis=0), strict=True)
    ]
    assert np.sum(parts, axis=0).max() == 1
    np.testing.assert_array_equal(np.any(parts, axis=0), inside([ring], 26, 26))


def test_the_area_of_a_contour_is_that_of_its_polygon():
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circle = 100.3 + 80.2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    area = inside([circle], 201, 201).sum()
    assert area == pytest.approx(np.pi * 80.2**2, rel=1e-3)


def test_a_mask_needs_a_series_and_a_series_is_no_mask(tmp_path, series):
    path = file(tmp_path, structure_set([("GTV", [box(1, 4, 2, 5, 1)])]))
    refused(path, Volume(series.values, series.affine, "x.nii"), "the image x.nii is none")
    with pytest.raises(ConsiliumError, match="Give the series that it was drawn on"):
        read_mask(path)
    refused(tmp_path / "series", series, "no segmentation (SEG) and no structure set")
    second = blank("1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT", "2.25.1", "2.25.2")
    saved(tmp_path / "mask", [second], names=["other"])
    refused(tmp_path / "mask", series, "holds 2 segmentations or structure sets: mask.dcm, other")
    refused(tmp_path / "mask/other", series, "does not describe its structures")


def test_a_case_has_the_labels_of_its_rules(tmp_path, series):
    path = file(tmp_path, structure_set([("GTV", [box(1, 4, 2, 5, 1)]), ("x", [])]))
    rules = DicomRules(structures=(("gtv", 4),))
    case = CaseFiles("a", (tmp_path / "series",), path, "a", dicom=rules)
    images, mask = read_case(case)
    assert set(np.unique(mask.values)) == {0, 4}
    assert mask.spatial == images[0].spatial
