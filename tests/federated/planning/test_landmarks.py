"""The standard scale from sums over sites: exactly that of all cases, and of nothing else."""

import numpy as np
import pytest

from federated.data.folders.histogram_standard import on_standard_range
from federated.errors import ConsiliumError
from federated.planning.landmarks import (
    STEPS,
    landmark_sums,
    refuse_landmark_sums,
    standard_of,
)


def landmarks(cases, modalities=2, seed=0):
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.gamma(2.0, 100.0, (cases, modalities, 11)), axis=-1)
    return [np.stack([on_standard_range(row) for row in case]) for case in drawn]


@pytest.mark.parametrize("cuts", [(3, 9), (1, 2), (0, 30)])
def test_sums_of_sites_give_to_the_last_bit_the_standard_of_all_cases(cuts):
    found = landmarks(30)
    parts = np.split(np.arange(30), cuts)
    sums = sum(landmark_sums([found[i] for i in part], 2) for part in parts)
    central = standard_of(landmark_sums(found, 2), 30)
    assert standard_of(sums, 30) == central
    np.testing.assert_allclose(central, np.mean(found, axis=0), atol=1.5e-6)


def broken(change, seed=3):
    each = landmarks(1, 1, seed)[0]
    change(each)
    return each


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.__setitem__((0, 4), np.nan),
        lambda x: x.__setitem__((0, 10), np.inf),
        lambda x: x.__setitem__((0, 10), 100.5),
        lambda x: x.__setitem__((0, 0), -1.0),
        lambda x: x.__setitem__((0, [3, 4]), x[0, [4, 3]]),
    ],
)
def test_landmarks_that_are_no_numbers_fall_or_have_other_ends_are_not_summed(change):
    with pytest.raises(ConsiliumError, match="rise from 0 to 100"):
        landmark_sums([broken(change)], 1)
    with pytest.raises(ConsiliumError, match="each of 2 modalities"):
        landmark_sums(landmarks(1, 1), 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, ::-1].copy(),
        lambda x: x + 1,
        lambda x: 2 * x,
        lambda x: x[:, :5],
        lambda x: np.where(np.arange(11) == 5, -x, x),
        lambda x: np.where(np.arange(11) == 5, 10**17, x),
    ],
)
def test_a_site_that_sends_sums_no_images_have_is_named_and_nothing_is_made_of_them(change):
    good = landmark_sums(landmarks(4), 2)
    refuse_landmark_sums(good, 4, "of site north")
    with pytest.raises(ConsiliumError, match="of site north are refused"):
        refuse_landmark_sums(change(good), 4, "of site north")
    with pytest.raises(ConsiliumError, match="of all sites together are refused"):
        standard_of(change(good), 4)


def test_another_number_of_cases_than_was_summed_and_none_at_all_are_refused():
    good = landmark_sums(landmarks(4), 2)
    for cases in (3, 5, 0):
        with pytest.raises(ConsiliumError, match="are refused"):
            standard_of(good, cases)
    with pytest.raises(ConsiliumError, match="are refused"):
        standard_of(np.zeros((2, 11), np.int64), 0)


def test_a_standard_that_does_not_rise_is_refused():
    flat = np.array([[0, 0, *([STEPS] * 9)]], np.int64)
    with pytest.raises(ConsiliumError, match=r"do not rise.*percentiles"):
        standard_of(flat, 1)
