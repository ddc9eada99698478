"""Distances between sites: against closed forms and SciPy, and what others may tell of them."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from federated.data.folders.volume import Volume
from federated.errors import ConsiliumError
from federated.planning.fingerprint import INTENSITIES, Fingerprint, Scheme, fingerprint_of, sum_of
from federated.planning.heterogeneity import (
    Distances,
    distances,
    jensen_shannon,
    quantity_skew,
    wasserstein,
)

PICTURES = Scheme(dims=2, modalities=1, classes=3, voxelwise=False)


def site(classes, brightness):
    rng = np.random.default_rng(0)
    return sum_of(
        PICTURES,
        [
            fingerprint_of(
                PICTURES,
                [Volume(rng.normal(brightness, 10, (1, 8, 8)), None)],
                np.array([label]),
            )
            for label in classes
        ],
    )


def test_the_distance_of_class_shares_is_jensen_shannons():
    one, other = np.array([5, 3, 0]), np.array([10, 10, 20])
    assert jensen_shannon(one, other) == pytest.approx(jensenshannon(one, other, 2), abs=1e-12)
    assert jensen_shannon(np.array([3, 0]), np.array([0, 9])) == 1
    assert jensen_shannon(one, 7 * one) == pytest.approx(0, abs=1e-7)
    assert jensen_shannon(one, 0 * one) is None


def test_the_distance_of_histograms_is_the_earth_movers():
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 9, (2, INTENSITIES.size))
    values = INTENSITIES.values
    expected = wasserstein_distance(values, values, one, other)
    assert wasserstein(one, other, values) == pytest.approx(expected, rel=1e-9)


def test_a_site_that_is_as_all_has_no_distance_and_another_has_what_sets_it_apart():
    alike, other = site([0, 1, 2, 1], 100), site([0, 0, 0, 0], 150)
    pooled = alike + other
    near, far = distances(pooled, pooled), distances(other, pooled)
    assert (near.labels, near.appearance) == (0, 0)
    assert far.labels > 0.3
    # Half of the pooled cases lie 50 darker.
    assert far.appearance == pytest.approx(25, rel=0.1)
    assert far.sizes is None
    assert far.spacing is None


def test_sites_of_one_size_have_no_skew():
    assert quantity_skew([7, 7, 7]) == 0
    assert quantity_skew([1, 3]) == pytest.approx(0.5)


@pytest.mark.parametrize("change", [
    {"labels": 2}, {"labels": float("nan")}, {"appearance": -1}, {"more": 1}, {"labels": "0.5"},
    {"spacing": float("inf")}, {"labels": True},
])  # fmt: skip
def test_what_is_no_distance_is_refused(change):
    value = distances(site([0], 1), site([0], 1)).to_json() | change
    with pytest.raises(ConsiliumError, match="clinic tells of how far"):
        Distances.from_json(value, "clinic")


def test_nothing_counted_is_no_distance_at_all():
    empty = Fingerprint.empty(PICTURES)
    assert set(distances(empty, empty).to_json().values()) == {None}
