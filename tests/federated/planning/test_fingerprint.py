"""Fingerprints of sites add up to that of all cases, and say what the cases' own numbers say."""

import nibabel as nib
import numpy as np
import pytest

from federated.data.folders.volume import Volume
from federated.errors import ConsiliumError
from federated.planning.fingerprint import (
    INTENSITIES,
    SHARES,
    Fingerprint,
    Scheme,
    fingerprint_of,
    sum_of,
)
from federated.planning.summary import summary_of

VOLUMES = Scheme(dims=3, modalities=1, classes=3, voxelwise=True)


def case(seed, sides=(1.0, 1.0, 3.0), shape=(20, 24, 8)):
    rng = np.random.default_rng(seed)
    values = rng.normal(100, 20, (1, *shape)).astype(np.float32)
    labels = rng.integers(0, 2, shape)
    labels[:2] = 2 * (seed % 2)
    return Volume(values, np.diag([*sides, 1.0])), labels


def test_the_sum_over_sites_is_the_fingerprint_of_all_cases_exactly():
    cases = [case(seed, (1.0, 1.0, 1.0 + seed)) for seed in range(7)]
    each = [fingerprint_of(VOLUMES, [image], labels) for image, labels in cases]
    site_a, site_b = sum_of(VOLUMES, each[:3]), sum_of(VOLUMES, each[3:])
    together = Fingerprint.read(VOLUMES, site_a.vector + site_b.vector)
    assert together.cases == 7
    np.testing.assert_array_equal(together.vector, sum_of(VOLUMES, each).vector)
    assert together.medians("spacing") == (1, 1, 4)
    assert together.medians("reach") == (20, 24, 32)


def test_a_volume_is_counted_towards_right_anterior_and_superior():
    affine = np.array([[0, 0, -2.0, 0], [0.5, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 0, 1]])
    values = np.random.default_rng(0).normal(size=(1, 4, 5, 6))
    assert nib.aff2axcodes(affine) == ("A", "S", "L")
    found = fingerprint_of(VOLUMES, [Volume(values, affine)], np.ones((4, 5, 6), int))
    assert found.medians("spacing") == (2, 0.5, 3)
    assert found.medians("size") == (6, 4, 5)
    assert found.medians("reach") == (12, 2, 15)


def test_intensities_are_those_of_the_foreground_and_shares_those_of_a_class():
    image, labels = case(1)
    found = fingerprint_of(VOLUMES, [image], labels)
    inside = image.values[0][labels > 0]
    for share in (0.005, 0.5, 0.995):
        expected = np.quantile(inside, share)
        assert found.quantile("intensity", share) == pytest.approx(expected, rel=0.012)
    mean, deviation = found.mean_and_deviation()
    assert mean == pytest.approx(inside.mean(), rel=0.005)
    assert deviation == pytest.approx(inside.std(), rel=0.02)
    assert found.counts["with_class"].tolist() == [1, 1, 1]
    assert found.quantile("share", 0.5, 1) == pytest.approx((labels == 2).mean(), rel=0.0101)


def test_no_case_outweighs_the_others_by_its_size():
    small, large = case(0, shape=(30, 30, 30)), case(2, shape=(60, 60, 60))
    counted = [
        fingerprint_of(VOLUMES, [image], np.ones_like(labels)).counts["intensity"].sum()
        for image, labels in (small, large)
    ]
    assert counted == [10_000, 10_000]


def test_a_picture_has_no_spacing():
    scheme = Scheme(dims=2, modalities=1, classes=4, voxelwise=False)
    values = np.random.default_rng(0).integers(0, 255, (3, 12, 16)).astype(np.uint8)
    found = fingerprint_of(scheme, [Volume(values, None)], np.array([2]))
    assert "spacing" not in found.counts
    assert found.medians("size") == (12, 16)
    assert found.counts["with_class"].tolist() == [0, 0, 1, 0]


def test_the_histogram_of_a_picture_has_bars_of_as_many_of_its_256_values():
    scheme = Scheme(dims=2, modalities=1, classes=1, voxelwise=False)
    values = np.repeat(np.arange(256), 20).astype(np.uint8).reshape(1, 64, 80)
    told = summary_of(fingerprint_of(scheme, [Volume(values, None)], None), ["a"], ["image"])
    found = told["intensities"]["image"]["histogram"]
    inside = np.arange(1, 255)  # between the outer percentiles
    assert set(np.diff(found["edges"]).tolist()) == {8.0}
    assert found["edges"][0] == inside[0] - 0.5
    assert found["share"][1:-1] == pytest.approx([8 / 256] * (len(found["share"]) - 2))
    assert sum(found["share"]) == pytest.approx(1)


def test_the_histogram_of_no_whole_numbers_has_as_many_bars_as_ever():
    image, labels = case(1)
    told = summary_of(fingerprint_of(VOLUMES, [image], labels), ["none", "a", "b"], ["image"])
    assert len(told["intensities"]["image"]["histogram"]["share"]) == 32


def test_nothing_counted_says_nothing():
    empty = Fingerprint.empty(VOLUMES)
    assert empty.cases == 0
    assert np.isnan(empty.quantile("intensity", 0.5))
    assert np.isnan(empty.mean_and_deviation()).all()


def test_no_number_is_larger_than_the_scheme_says():
    found = sum_of(VOLUMES, [fingerprint_of(VOLUMES, [i], x) for i, x in map(case, range(4))])
    for name, counts in found.counts.items():
        assert counts.max(initial=0) <= VOLUMES.most(name, 4)


@pytest.mark.parametrize("damage", [lambda v: v[:-1], lambda v: v - 1])
def test_what_is_no_fingerprint_is_refused(damage):
    vector = Fingerprint.empty(VOLUMES).vector
    with pytest.raises(ConsiliumError, match="counts are expected"):
        Fingerprint.read(VOLUMES, damage(vector))


def test_bins_hold_what_images_hold():
    assert INTENSITIES.values[[0, -1]].tolist() == pytest.approx([-1e6, 1e6], rel=0.02)
    assert SHARES.values[-1] == 1
