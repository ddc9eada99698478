import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from federated.learning.segmentation_metrics import (
    absent_classes,
    score_case,
    summarise,
    worst_median_best,
)

LABELS = ("background", "kidney", "tumour")


def cube(start, stop, shape=(20, 20, 20), label=1):
    mask = np.zeros(shape, np.uint8)
    mask[(slice(start, stop),) * len(shape)] = label
    return mask


def score(predicted, truth, spacing=(1.0, 1.0, 1.0), classes=2, patient="p", case="c"):
    return score_case(case, patient, predicted, truth, classes, spacing)


def test_equal_masks_are_perfect():
    found = score(cube(5, 12), cube(5, 12))
    assert (found.dice, found.hd95, found.assd) == ((1.0,), (0.0,), (0.0,))


def test_dice_is_twice_the_overlap_over_both():
    found = score(cube(5, 11), cube(5, 15))
    assert found.dice[0] == pytest.approx(2 * 6**3 / (6**3 + 10**3))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 2.0, 0.5)])
def test_distances_are_those_of_scipys_distance_transform(spacing):
    rng = np.random.default_rng(0)
    predicted, truth = cube(4, 12), cube(6, 13)
    predicted[rng.random(predicted.shape) < 0.001] = 1

    def surface(mask):
        from scipy.ndimage import binary_erosion

        return mask.astype(bool) & ~binary_erosion(mask)

    def to(one, other):
        return distance_transform_edt(~surface(other), sampling=spacing)[surface(one)]

    there, back = to(predicted, truth), to(truth, predicted)
    found = score(predicted, truth, spacing)
    expected = max(np.percentile(there, 95), np.percentile(back, 95))
    assert found.hd95[0] == pytest.approx(expected, rel=1e-4)
    mean = (there.sum() + back.sum()) / (len(there) + len(back))
    assert found.assd[0] == pytest.approx(mean, rel=1e-4)


def test_pictures_have_two_axes():
    found = score(cube(2, 6, (10, 12)), cube(2, 6, (10, 12)), (1.0, 1.0))
    assert found.dice == (1.0,)


def test_nothing_to_find_and_nothing_found_is_perfect():
    found = score(np.zeros((8, 8, 8), int), np.zeros((8, 8, 8), int))
    assert (found.dice, found.hd95, found.assd) == ((1.0,), (0.0,), (0.0,))


@pytest.mark.parametrize("missed", [True, False])
def test_a_class_in_one_mask_alone_is_as_far_off_as_can_be(missed):
    empty, full = np.zeros((20, 20, 20), int), cube(5, 9)
    found = score(*((empty, full) if missed else (full, empty)), spacing=(1.0, 1.0, 2.0))
    farthest = float(np.linalg.norm((20, 20, 40)))
    assert found.dice == (0.0,)
    assert found.hd95 == found.assd == (pytest.approx(farthest),)


def test_classes_are_scored_apart():
    truth = cube(2, 8) + cube(12, 18, label=2)
    predicted = cube(2, 8) + cube(12, 15, label=2)
    found = score(predicted, truth, classes=3)
    assert found.dice == (1.0, pytest.approx(2 * 27 / (27 + 216)))
    assert found.hd95[0] == 0 < found.hd95[1]


def test_a_patient_counts_once_however_many_cases_they_have():
    full, half = cube(5, 15), cube(5, 15)
    half[5:10] = 0
    scores = [
        score(full, full, patient="a", case="1"),
        score(full, full, patient="a", case="2"),
        score(half, full, patient="b", case="3"),
    ]
    found = summarise(scores, LABELS[:2])
    dice = 2 * 500 / 1500
    assert found["dice"] == pytest.approx((1 + dice) / 2)
    assert found["dice_sd"] == pytest.approx(np.std([1, dice], ddof=1))
    assert found["dice_kidney"] == found["dice"]
    assert set(found) == {
        f"{n}{end}" for n in ("dice", "hd95", "assd") for end in ("", "_sd", "_kidney")
    }


def test_without_cases_there_are_no_values():
    assert set(summarise([], LABELS).values()) == {None}
    assert worst_median_best([]) == {}


def test_the_worst_the_median_and_the_best_case():
    truth = cube(5, 15)
    scores = [score(cube(5, stop), truth, case=str(stop)) for stop in (13, 9, 11, 15, 7)]
    picked = {name: found.case for name, found in worst_median_best(scores).items()}
    assert picked == {"worst": "7", "median": "11", "best": "15"}


def test_masks_of_different_shapes_are_a_mistake():
    with pytest.raises(ValueError, match="c: "):
        score(cube(1, 3), cube(1, 3, (4, 4, 4)))


class TestAClassThatNoCaseHas:
    """Of it nothing is known: it is in no mean, and is named."""

    def scores(self, predicted, truths):
        return [
            score(predicted, truth, classes=3, patient=str(n), case=str(n))
            for n, truth in enumerate(truths)
        ]

    def test_is_left_out_of_the_mean_and_has_no_value(self):
        truth, predicted = cube(4, 12), cube(4, 12)
        predicted[4:8] = 0
        found = self.scores(predicted, [truth] * 3)
        summary = summarise(found, LABELS)
        assert summary["dice"] == summary["dice_kidney"] == pytest.approx(2 / 3)
        assert summary["dice_tumour"] is summary["hd95_tumour"] is summary["assd_tumour"] is None
        assert summary["hd95"] == summary["hd95_kidney"] > 0
        assert absent_classes(found, LABELS) == ("tumour",)

    def test_does_not_count_when_it_is_predicted_either(self):
        predicted = cube(4, 12) + cube(14, 18, label=2)
        summary = summarise(self.scores(predicted, [cube(4, 12)] * 2), LABELS)
        assert (summary["dice"], summary["dice_tumour"]) == (1.0, None)

    def test_counts_as_soon_as_one_case_has_it(self):
        """Single cases are scored as they were: found nothing of nothing is 1, of something 0."""
        with_tumour = cube(4, 12) + cube(14, 18, label=2)
        found = self.scores(cube(4, 12), [cube(4, 12), with_tumour])
        summary = summarise(found, LABELS)
        assert summary["dice_tumour"] == 0.5
        assert summary["dice"] == 0.75
        assert absent_classes(found, LABELS) == ()

    def test_all_of_them_leave_no_values(self):
        found = self.scores(np.zeros((20, 20, 20), int), [np.zeros((20, 20, 20), int)])
        assert set(summarise(found, LABELS).values()) == {None}
        assert absent_classes(found, LABELS) == ("kidney", "tumour")

    def test_does_not_make_a_case_the_best(self):
        """A case with one class found by 0.9 is better than one with the other class missed."""
        truth, near = cube(5, 15), cube(5, 15)
        near[5] = 0
        nothing = score(np.zeros_like(truth), truth, classes=3, case="missed")
        most = score(near, truth, classes=3, case="found")
        assert nothing.mean_dice == 0
        assert most.mean_dice == most.dice[0] < 1
        assert worst_median_best([most, nothing])["best"].case == "found"
