"""There and back between a case's own voxels and the network's."""

import dataclasses

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, ornt_transform

from federated.data.folders.families import FAMILIES
from federated.data.folders.geometry import CaseGrid
from federated.data.folders.prepared_case import prepare_volumes
from federated.data.folders.volume import Volume
from federated.errors import ConsiliumError

HIPPOCAMPUS = FAMILIES["hippocampus"]


def rotation(angles):
    result = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(angles)):
        turn = np.eye(3)
        first, second = [other for other in range(3) if other != axis]
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result


def prepared(shape, affine, family=HIPPOCAMPUS, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.zeros(shape, np.uint8)
    truth[tuple(slice(side // 4, side - side // 4) for side in shape)] = 1
    truth[tuple(slice(side // 2, side - side // 3) for side in shape)] = 2
    values = rng.random((1, *shape)).astype(np.float32)
    return prepare_volumes(family, "x", [Volume(values, affine)], truth)


def there_and_back(case):
    shares = torch.nn.functional.one_hot(case.whole_mask.long(), 3).movedim(-1, 0).float()
    return case.to_own_grid(shares)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    shape=st.tuples(*[st.integers(3, 50)] * 3),
    rounding=st.sampled_from([0.0, 1e-8, -3e-8, 2e-7, 5e-4, -5e-4]),
    single=st.booleans(),
)
def test_there_and_back_is_the_identity_at_any_angle(angles, shape, rounding, single):
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles) * (1 + rounding)
    affine[:3, 3] = 12.5, -80, 33
    if single:  # as in a header
        affine = affine.astype(np.float32).astype(np.float64)
    case = prepared(shape, affine)
    assert (case.whole_mask.numpy() > 0).sum() == (case.truth > 0).sum()
    np.testing.assert_array_equal(there_and_back(case), case.truth)


@pytest.mark.parametrize("side", [2.0, 2.00000001, 1.99999999])
@pytest.mark.parametrize("angle", [0, 10, 44])
def test_a_size_that_is_whole_but_for_rounding_is_whole(side, angle):
    affine = np.eye(4)
    affine[:3, :3] = rotation((angle, 0, angle / 2)) * side
    case = prepared((15, 21, 17), affine.astype(np.float32).astype(np.float64))
    assert case.geometry.resampled == (30, 42, 34)
    np.testing.assert_array_equal(there_and_back(case), case.truth)


def test_the_angle_of_a_volume_changes_nothing_in_what_a_network_sees():
    straight = prepared((20, 31, 27), np.eye(4)).whole
    for angles in ((1, 0, 0), (0, 10, 0), (0, 0, 44), (20, 15, 0)):
        affine = np.eye(4)
        affine[:3, :3] = rotation(angles)
        assert torch.equal(prepared((20, 31, 27), affine).whole, straight)


@pytest.mark.parametrize("shape", [(60, 80, 70), (41, 57, 30), (20, 90, 41)])
def test_a_case_larger_than_the_field_is_kept_whole_and_its_losses_are_counted(shape):
    case = prepared(shape, np.eye(4))
    assert case.whole.shape[1:] == tuple(max(p) for p in zip(shape, HIPPOCAMPUS.shape, strict=True))
    assert case.image.shape[1:] == case.mask.shape == HIPPOCAMPUS.shape
    np.testing.assert_array_equal(there_and_back(case), case.truth)
    for label in (1, 2):
        own, learned = case.kept_labels[label]
        assert own == (case.truth == label).sum()
        assert learned == (case.mask == label).sum()
        assert case.lost_labels.get(label, 0) == pytest.approx(1 - learned / own)


def test_a_case_whose_labels_all_come_in_loses_none():
    assert prepared((30, 40, 30), np.eye(4)).lost_labels == {}
    truth = np.zeros((95, 91, 65), np.uint8)
    truth[2:12, 3:20, 1:9] = 1
    values = np.random.default_rng(0).random((1, 95, 91, 65)).astype(np.float32)
    case = prepare_volumes(HIPPOCAMPUS, "x", [Volume(values, np.eye(4))], truth)
    assert case.kept_labels == {1: (truth.sum(), 0)}
    assert case.lost_labels == {1: 1.0}


def test_a_label_too_small_for_the_spacing_is_lost():
    family = HIPPOCAMPUS.with_spacing(4.0)
    truth = np.zeros((40, 56, 40), np.uint8)
    truth[20, 20, 20] = 2
    truth[4:30, 4:30, 4:30][truth[4:30, 4:30, 4:30] == 0] = 1
    values = np.random.default_rng(0).random((1, 40, 56, 40)).astype(np.float32)
    case = prepare_volumes(family, "x", [Volume(values, np.eye(4))], truth)
    assert case.lost_labels == {2: 1.0}


def test_patches_come_from_all_of_a_case():
    case = prepared((20, 120, 30), np.eye(4), dataclasses.replace(FAMILIES["kidney"], window=None))
    assert case.image.shape[1:] == case.mask.shape == case.geometry.resampled == (10, 60, 15)
    assert case.whole.shape[1:] == (96, 96, 96)
    assert case.lost_labels == {}


def test_more_voxels_than_memory_holds_are_refused():
    affine = np.diag([100.0, 100.0, 100.0, 1.0])
    with pytest.raises(ConsiliumError, match="more than fit into memory"):
        prepared((40, 40, 40), affine)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRA", "PIL"])
def test_a_cases_grid_is_the_same_however_its_axes_are_stored(codes):
    there = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    upright = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.diag([1, 2, 3, 1.0]))
    stored = upright.as_reoriented(there)
    found = CaseGrid.of(stored.shape, stored.affine)
    assert found == CaseGrid((4, 5, 6), (1.0, 2.0, 3.0))
    assert CaseGrid.of((7, 8), None) == CaseGrid((7, 8), (1.0, 1.0))
