"""Validation looks at what is left of a case's labels after preparing."""

import dataclasses
import tracemalloc

import nibabel
import numpy as np
import pytest
from PIL import Image

from federated.data.folders.families import FAMILIES, CaseFiles, Listing
from federated.data.folders.labels_left import labels_left
from federated.data.folders.phantom import write_phantom
from federated.data.folders.prepared_case import prepare_case, prepare_volumes
from federated.data.folders.table import folder_tables

HIPPOCAMPUS = FAMILIES["hippocampus"]


def save(path, values, spacing=(1.0, 1.0, 1.0), axes="RAS"):
    """A file of values ``(x, y, z)`` in RAS order, stored along other axes."""
    wanted = nibabel.orientations.axcodes2ornt(axes)
    image = nibabel.Nifti1Image(values, np.diag([*spacing, 1.0]))
    nibabel.save(image.as_reoriented(wanted), path)


def case(folder, mask, name="c", **how):
    rng = np.random.default_rng(0)
    image = rng.normal(size=mask.shape).astype(np.float32)
    for kind, values in (("i", image), ("l", mask)):
        save(folder / f"{name}-{kind}.nii.gz", values, **how)
    return CaseFiles(name, (folder / f"{name}-i.nii.gz",), folder / f"{name}-l.nii.gz", name)


def lost(family, *cases):
    return list(folder_tables(family, {"all": Listing(cases, ())})["all"]["lost"])


def labelled(shape, *boxes):
    mask = np.zeros(shape, np.uint8)
    for label, box in enumerate(boxes, start=1):
        mask[tuple(slice(*sides) for sides in box)] = label
    return mask


@pytest.mark.parametrize("axes", ["RAS", "LPI", "SAR"])
def test_labels_that_are_cropped_away_are_named_with_what_is_left(tmp_path, axes):
    """Of 100 x 90 x 70 mm the middle 40 x 56 x 40 are seen: 30 to 70, 17 to 73, 15 to 55."""
    inside = ((40, 60), (30, 50), (20, 40))
    half = ((60, 80), (30, 50), (20, 40))
    mask = labelled((100, 90, 70), inside, half)
    one = case(tmp_path, mask, axes=axes)
    assert lost(HIPPOCAMPUS, one) == ["posterior 4000 of 8000 voxels"]
    assert labels_left(prepare_case(HIPPOCAMPUS, one)) == {1: (8000, 8000), 2: (8000, 4000)}


def test_labels_that_are_cropped_away_whole_are_named(tmp_path):
    far = ((0, 10), (0, 10), (0, 10))
    assert lost(HIPPOCAMPUS, case(tmp_path, labelled((100, 90, 70), far))) == [
        "anterior 0 of 1000 voxels"
    ]


def test_a_case_that_fits_or_is_cropped_beside_its_labels_is_content(tmp_path):
    middle = ((25, 35), (25, 35), (15, 25))
    for name, shape in (("small", (36, 50, 35)), ("large", (60, 60, 40))):
        assert lost(HIPPOCAMPUS, case(tmp_path, labelled(shape, middle), name)) == [""]


def test_a_label_that_vanishes_with_coarser_voxels_is_named(tmp_path):
    """One voxel of 1 mm has no share that is the largest in any voxel of 3 mm."""
    body, speck = ((0, 30), (0, 30), (0, 30)), ((15, 16), (15, 16), (15, 16))
    one = case(tmp_path, labelled((30, 30, 30), body, speck))
    coarse = HIPPOCAMPUS.with_spacing(3.0)
    assert lost(coarse, one) == ["posterior 0 of 1 voxels"]
    assert lost(HIPPOCAMPUS, one) == [""]


def test_a_label_that_is_wide_but_thinner_than_the_voxels_is_named(tmp_path):
    """Of a sheet of 0.5 mm no voxel of 2 mm has its largest share, however wide the sheet is."""
    sheet = ((5, 115), (5, 115), (30, 31))
    body = ((10, 60), (10, 60), (40, 60))
    one = case(tmp_path, labelled((120, 120, 80), body, sheet), spacing=(0.5, 0.5, 0.5))
    assert lost(FAMILIES["kidney"], one) == ["tumour 0 of 12100 voxels"]


@pytest.mark.parametrize(
    ("scale", "side", "said"), [(1.0, 2.0, "Hounsfield"), (300.0, 60.0, "more than fit")]
)
def test_what_training_would_refuse_is_named_before(tmp_path, scale, side, said):
    """A CT in 0..1, and one that would be resampled to 60^3 times its voxels."""
    mask = labelled((70, 60, 50), ((5, 65), (5, 55), (5, 45)))
    one = case(tmp_path, mask, spacing=(side,) * 3)
    values = np.random.default_rng(0).random(mask.shape).astype(np.float32) * np.float32(scale)
    save(one.images[0], values, spacing=(side,) * 3)
    (unprepared,) = folder_tables(FAMILIES["kidney"], {"all": Listing((one,), ())})["all"][
        "unprepared"
    ]
    assert said in unprepared


def test_a_lesion_that_vanishes_with_a_smaller_picture_is_named(tmp_path):
    family = FAMILIES["skin"]
    write_phantom(family, tmp_path, 3, seed=0, shape=(400, 600))
    small = np.zeros((400, 600), np.uint8)
    small[200, 300] = 255
    Image.fromarray(small).save(family.find(tmp_path).cases[1].mask)
    cases = family.find(tmp_path).cases
    assert lost(family, *cases) == ["", "lesion 0 of 1 voxels", ""]


def test_patches_see_all_of_a_volume(tmp_path):
    family = FAMILIES["kidney"]
    corner = ((0, 20), (0, 20), (0, 20))
    one = case(tmp_path, labelled((120, 110, 100), corner), spacing=(2.0, 2.0, 2.0))
    assert lost(family, one) == [""]
    assert labels_left(prepare_case(family, one)) == {1: (8000, 8000)}


def test_an_image_of_one_value_is_named_before_anything_is_trained(tmp_path):
    one = case(tmp_path, labelled((20, 20, 20), ((5, 15), (5, 15), (5, 15))))
    save(one.images[0], np.full((20, 20, 20), 7, np.float32))
    table = folder_tables(HIPPOCAMPUS, {"all": Listing((one,), ())})["all"]
    assert list(table["unprepared"]) == ["an image has one value everywhere"]


def test_a_case_is_prepared_once_and_its_memory_is_freed(tmp_path, monkeypatch):
    """Of a CT 34 bytes a voxel are held at most, most of them what is resampled; it was 46."""
    prepared = []

    def counted(family, name, *args):
        prepared.append(name)
        return prepare_volumes(family, name, *args)

    monkeypatch.setattr("federated.data.folders.table.prepare_volumes", counted)
    family = dataclasses.replace(FAMILIES["kidney"], window=(-3.0, 3.0))
    mask = labelled((128, 128, 100), ((20, 60), (20, 60), (20, 60)))
    cases = [case(tmp_path, mask, name, spacing=(1.6, 1.6, 3.0)) for name in "abcd"]
    tracemalloc.start()
    try:
        assert lost(family, *cases) == [""] * 4
        peak = tracemalloc.get_traced_memory()[1]
        left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert prepared == list("abcd")
    assert left < mask.size
    assert peak < 36 * mask.size


class TestLabelsOfBrats:
    """Until 2022 the label 4 was what 3 is now, and in 2024 it became a resection cavity."""

    def labels(self, folder, *masks):
        """What the table says of cases named as in 2024, each with the labels given."""
        family = FAMILIES["brain"]
        write_phantom(family, folder, len(masks), seed=0, shape=(20, 20, 20))
        cases = family.find(folder).cases
        for one, present in zip(cases, masks, strict=True):
            mask = np.zeros((20, 20, 20), np.uint8)
            for number, label in enumerate(present):
                mask[5 * number : 5 * number + 4] = label
            save(one.mask, mask)
        return list(folder_tables(family, {"all": Listing(cases, ())})["all"]["labels"])

    def test_a_folder_of_the_old_kind_is_named_case_by_case(self, tmp_path):
        found = self.labels(tmp_path, (1, 2, 4), (1, 2), (2, 4))
        assert ["until 2022" in said for said in found] == [True, False, True]

    def test_cavities_without_enhancing_tumour_are_not_of_the_old_kind(self, tmp_path):
        assert self.labels(tmp_path, (1, 2, 4), (1, 2, 3), (2, 3, 4)) == ["", "", ""]

    def test_a_label_that_nobody_knows_is_named(self, tmp_path):
        named, none = self.labels(tmp_path, (1, 5), (1, 2, 3))
        assert named == "5, where known are 0 (background), 1 (NETC), 2 (SNFH), 3 (ET), 4 (RC)"
        assert none == ""
