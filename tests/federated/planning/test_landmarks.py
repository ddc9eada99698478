"""The standard scale from sums over sites: exactly that of all cases, and of nothing else."""

import numpy as np
import pytest

from federated.data.folders.histogram_standard import on_standard_range
from federated.errors import ConsiliumError
from federated.planning.landmarks import (
    STEPS,
    case_landmarks,
    in_steps,
    landmark_faults,
    standard_of,
)


def landmarks(cases, modalities=2, seed=0):
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.gamma(2.0, 100.0, (cases, modalities, 11)), axis=-1)
    return [np.stack([on_standard_range(row) for row in case]) for case in drawn]


def summed(found, modalities=2):
    total = np.zeros((modalities, 11), np.int64)
    for case in found:
        total += np.stack([in_steps(row) for row in case])
    return total


@pytest.mark.parametrize("cuts", [(3, 9), (1, 2), (0, 30)])
def test_sums_of_sites_give_to_the_last_bit_the_standard_of_all_cases(cuts):
    found = landmarks(30)
    parts = np.split(np.arange(30), cuts)
    sums = sum(summed([found[i] for i in part]) for part in parts)
    central = standard_of(summed(found), 30)
    assert standard_of(sums, 30) == central
    np.testing.assert_allclose(central, np.mean(found, axis=0), atol=1.5e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.__setitem__(4, np.nan),
        lambda x: x.__setitem__(10, np.inf),
        lambda x: x.__setitem__(10, 100.5),
        lambda x: x.__setitem__(0, -1.0),
        lambda x: x.__setitem__([3, 4], x[[4, 3]]),
    ],
)
def test_landmarks_that_are_no_numbers_fall_or_have_other_ends_are_not_summed(change):
    row = landmarks(1, 1)[0][0]
    in_steps(row)
    with pytest.raises(ConsiliumError, match="rise from 0 to 100"):
        in_steps(row[:5])
    change(row)
    with pytest.raises(ConsiliumError, match="rise from 0 to 100"):
        in_steps(row)


def test_an_image_without_a_scale_adds_nothing_and_is_not_counted():
    rng = np.random.default_rng(0)
    good = rng.gamma(3.0, 1.0, (8, 8, 8))
    mask = np.zeros((8, 8, 8))
    mask[2:4] = 1
    flat = np.full((8, 8, 8), 7.0)
    assert not case_landmarks([mask], "x").any()
    assert not case_landmarks([flat], "x").any()
    sums = case_landmarks([good, mask], "x") + case_landmarks([good, good], "y")
    assert (sums[:, -1] // STEPS).tolist() == [2, 1]
    first, second = standard_of(sums, 2)
    assert first == second
    with pytest.raises(ConsiliumError, match="no image of the 1 cases has a foreground"):
        standard_of(case_landmarks([mask], "x"), 1)
    with pytest.raises(ConsiliumError, match="no numbers"):
        case_landmarks([np.array([1.0, np.nan])], "x")


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, ::-1].copy(),
        lambda x: x + 1,
        lambda x: 2 * x,
        lambda x: x[:, :5],
        lambda x: np.where(np.arange(11) == 5, -x, x),
        lambda x: np.where(np.arange(11) == 5, 10**17, x),
        lambda x: np.where(np.arange(11) == 10, x + 1, x),
    ],
)
def test_a_site_that_sends_sums_no_images_have_bends_no_image(change):
    good = summed(landmarks(4))
    assert not landmark_faults(good, 4)
    assert landmark_faults(change(good), 4)
    with pytest.raises(ConsiliumError, match="of all sites together are refused"):
        standard_of(change(good), 4)


def test_landmarks_of_more_cases_than_there_are_are_refused():
    good = summed(landmarks(4))
    standard_of(good, 5)
    for cases in (3, 0):
        with pytest.raises(ConsiliumError, match="are refused"):
            standard_of(good, cases)


def test_a_standard_that_does_not_rise_is_refused():
    flat = np.array([[0, 0, *([STEPS] * 9)]], np.int64)
    with pytest.raises(ConsiliumError, match=r"do not rise.*percentiles"):
        standard_of(flat, 1)
