"""A case as a network takes it, and the way back to its own grid."""

import dataclasses

import nibabel
import numpy as np
import pytest
import torch

from federated.data.folders.families import FAMILIES, CaseFiles
from federated.data.folders.phantom import write_phantom
from federated.data.folders.prepared_case import prepare_case
from federated.data.scanner import scanner_profile
from federated.errors import ConsiliumError

SHAPES = {
    "hippocampus": (30, 41, 28),
    "retina": (70, 90),
    "skin": (150, 180),
    "kidney": (20, 24, 22),
    "brain": (20, 24, 22),
}


def one_hot(mask, classes):
    return torch.nn.functional.one_hot(mask.long(), classes).movedim(-1, 0).float()


@pytest.fixture(params=sorted(FAMILIES))
def case(request, tmp_path):
    family = FAMILIES[request.param]
    write_phantom(family, tmp_path, 1, seed=0, shape=SHAPES[family.name])
    return family, family.find(tmp_path).cases[0]


def test_the_true_mask_comes_back_on_the_cases_own_grid(case):
    family, files = case
    prepared = prepare_case(family, files)
    assert prepared.image.dtype == torch.float32
    assert prepared.image.shape == (family.channels, *prepared.mask.shape)
    if family.whole:
        assert tuple(prepared.mask.shape) == family.shape
    back = prepared.to_own_grid(one_hot(prepared.mask, len(family.labels)))
    assert back.shape == prepared.truth.shape == SHAPES[family.name]
    assert set(np.unique(prepared.truth)) == set(range(len(family.labels)))
    overlap = 2 * ((back == prepared.truth) & (back > 0)).sum()
    assert overlap / ((back > 0).sum() + (prepared.truth > 0).sum()) > 0.97


def test_each_modality_is_normalised_for_itself(tmp_path):
    family = FAMILIES["brain"]
    write_phantom(family, tmp_path, 1, seed=0, shape=(12, 12, 12))
    files = family.find(tmp_path).cases[0]
    path = files.images[1]
    image = nibabel.load(path)
    louder = 40 * np.asarray(image.dataobj) + 3
    nibabel.save(nibabel.Nifti1Image(louder.astype(np.float32), image.affine), path)
    for channel in prepare_case(family, files).image:
        assert float(channel.mean()) == pytest.approx(0, abs=1e-4)
        assert float(channel.std()) == pytest.approx(1, abs=1e-2)


def test_a_turned_and_stretched_volume_comes_back_onto_its_own_grid(tmp_path):
    """Stored left to right, axes exchanged, 2 mm slices: as scanners do."""
    family = FAMILIES["hippocampus"]
    write_phantom(family, tmp_path, 1, seed=0, shape=(30, 40, 28))
    files = family.find(tmp_path).cases[0]
    turned = np.array([[0, 1, 0, 5], [0, 0, -2, 9], [1, 0, 0, -4], [0, 0, 0, 1]], float)
    for path in (*files.images, files.mask):
        values = np.asarray(nibabel.load(path).dataobj)
        nibabel.save(nibabel.Nifti1Image(values[:, :, ::2], turned), path)
    prepared = prepare_case(family, files)
    assert prepared.own.spacing == (1.0, 1.0, 2.0)
    back = prepared.to_own_grid(one_hot(prepared.mask, 3))
    assert back.shape == (30, 40, 14)
    overlap = 2 * ((back == prepared.truth) & (back > 0)).sum()
    assert overlap / ((back > 0).sum() + (prepared.truth > 0).sum()) > 0.9


def assert_centred(prepared, labels, side):
    """Within a tenth of the network's voxels, ``side`` of the case's own long."""
    back = prepared.to_own_grid(one_hot(prepared.mask, labels))
    assert back.shape == prepared.truth.shape
    for label in range(1, labels):
        found, true = (np.argwhere(mask == label) for mask in (back, prepared.truth))
        assert found.mean(axis=0) == pytest.approx(true.mean(axis=0), abs=0.1 * side)


def test_coarser_voxels_come_back_onto_the_cases_own_grid(tmp_path):
    write_phantom(FAMILIES["hippocampus"], tmp_path, 1, seed=0)
    family = FAMILIES["hippocampus"].with_spacing(2.0)
    prepared = prepare_case(family, family.find(tmp_path).cases[0])
    assert prepared.image.shape == (1, *family.shape)
    assert prepared.grid.spacing == pytest.approx((2, 2, 2))
    assert_centred(prepared, labels=3, side=2)


@pytest.mark.parametrize("spacing", [1.0, 1.1])
def test_a_volume_larger_than_the_network_takes_keeps_its_middle(tmp_path, spacing):
    family = FAMILIES["hippocampus"].with_spacing(spacing)
    write_phantom(family, tmp_path, 1, seed=0, shape=(50, 70, 40))
    prepared = prepare_case(family, family.find(tmp_path).cases[0])
    assert prepared.mask.shape == family.shape
    assert_centred(prepared, labels=3, side=spacing)


def test_a_picture_of_four_times_the_side_comes_back_onto_its_own_grid(tmp_path):
    family = FAMILIES["skin"]
    write_phantom(family, tmp_path, 1, seed=0, shape=tuple(4 * side for side in family.shape))
    assert_centred(prepare_case(family, family.find(tmp_path).cases[0]), labels=2, side=4)


def test_a_scanner_changes_the_image_and_not_the_mask(case):
    family, files = case
    plain = prepare_case(family, files)
    profile = scanner_profile(0, "site-01", family.dims)
    shown = prepare_case(family, files, profile, number=3)
    assert not torch.equal(shown.image, plain.image)
    assert torch.equal(shown.mask, plain.mask)
    assert torch.equal(prepare_case(family, files, profile, number=3).image, shown.image)
    assert not torch.equal(prepare_case(family, files, profile, number=4).image, shown.image)


class TestRefused:
    @pytest.fixture
    def files(self, tmp_path):
        family = FAMILIES["hippocampus"]
        write_phantom(family, tmp_path, 2, seed=0, shape=(12, 14, 12))
        return family.find(tmp_path).cases

    def save(self, path, values):
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)

    def test_a_label_that_nobody_knows(self, files):
        self.save(files[0].mask, np.full((12, 14, 12), 9, np.uint8))
        with pytest.raises(ConsiliumError, match=r"label 9.*background, anterior, posterior"):
            prepare_case(FAMILIES["hippocampus"], files[0])

    def test_a_mask_of_another_shape(self, files):
        self.save(files[0].mask, np.zeros((12, 14, 11), np.uint8))
        with pytest.raises(ConsiliumError, match="different shapes, 12x14x11 and 12x14x12"):
            prepare_case(FAMILIES["hippocampus"], files[0])

    def test_an_image_of_one_value(self, files):
        self.save(files[0].images[0], np.full((12, 14, 12), 5, np.float32))
        with pytest.raises(ConsiliumError, match="one value everywhere"):
            prepare_case(FAMILIES["hippocampus"], files[0])

    def test_too_few_channels(self, files):
        family = dataclasses.replace(FAMILIES["hippocampus"], channels=2)
        with pytest.raises(ConsiliumError, match="has 1 channels; hippocampus has 2"):
            prepare_case(family, files[0])

    def test_a_picture_among_volumes(self, files, tmp_path):
        write_phantom(FAMILIES["retina"], tmp_path / "r", 1, 0, (16, 16))
        picture = FAMILIES["retina"].find(tmp_path / "r").cases[0]
        mixed = CaseFiles("x", picture.images, None, "x")
        with pytest.raises(ConsiliumError, match="case x is no volume"):
            prepare_case(FAMILIES["hippocampus"], mixed)
