"""Variance over flips as sums over cases: what a network answers otherwise is told, and no more."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from federated.learning import flip_statistics as flips
from federated.learning.final_task import final_task
from federated.learning.flip_variance import flip_variance
from federated.learning.segmentation import segment
from federated.learning.statistics import EvaluationStatistics
from federated.learning.subgroup_statistics import final_contradictions, final_of
from federated.settings.sections import EvaluationSettings
from tests.federated.data.test_segmented_cases import cases_of
from tests.federated.report.made_runs import info_of, predictions

CPU = torch.device("cpu")


class Pointwise(nn.Module):
    """Answers by a voxel's own intensity, so that no flip changes anything."""

    def forward(self, images: Tensor) -> Tensor:
        bright = images[:, :1]
        return torch.cat([-bright, bright], dim=1)


class Sided(nn.Module):
    """Sees the class on one side of the image, however the image lies."""

    def forward(self, images: Tensor) -> Tensor:
        ramp = torch.linspace(-4, 4, images.shape[-1]).expand_as(images[:, :1])
        return torch.cat([-ramp, ramp], dim=1)


@pytest.fixture
def cases(tmp_path):
    return cases_of("hippocampus", tmp_path, (20, 30, 20), count=2)


def test_a_network_that_answers_alike_has_no_variance(cases):
    found = flips.predict_flips(Pointwise(), cases, CPU)
    assert found[flips.FLIP].shape == (2, 3)
    assert np.abs(found[flips.FLIP]).max() < 1e-9
    assert found[flips.FLIP_CASES][:, 0].all()


def test_one_that_sees_a_side_has_as_much_as_its_map_says(cases):
    model = Sided()
    found = flips.predict_flips(model, cases, CPU)
    case = cases.case(0)

    def probabilities(image: Tensor) -> Tensor:
        return segment(model, image, cases.family, CPU).softmax(dim=0)

    variance = flip_variance(probabilities, case.whole)
    predicted = probabilities(case.whole).argmax(dim=0)
    region = (predicted > 0) | (case.whole_mask > 0)
    wrong = region & (predicted != case.whole_mask)
    assert found[flips.FLIP][0, 0] == pytest.approx(float(variance[region].mean()))
    assert found[flips.FLIP][0, 2] == pytest.approx(float(variance[wrong].mean()))
    assert 0 < found[flips.FLIP][0, 0] <= 0.25


def made(cases):
    info = info_of("segmentation", ("background", "vessel"))
    found = predictions(info, cases, np.random.default_rng(0), 0.5)
    found["patients"] = np.arange(cases)
    rng = np.random.default_rng(1)
    there = np.ones((cases, 3), bool)
    there[: cases // 4, 2] = False
    return found | {flips.FLIP: rng.uniform(0, 0.2, (cases, 3)) * there, flips.FLIP_CASES: there}


def asked(minimum=0):
    settings = EvaluationSettings(uncertainty="flips", min_count=minimum)
    return final_task(info_of("segmentation", ("background", "vessel")), settings)


def test_means_are_over_the_cases_that_have_such_voxels():
    own, what = made(12), asked()
    told = final_of(what, own, {})
    assert list(final_contradictions(what, told)) == []
    metrics = what.kind.measure(told, what.info).metrics
    assert metrics["flip_variance"] == pytest.approx(own[flips.FLIP][:, 0].mean())
    assert metrics["flip_variance_wrong"] == pytest.approx(own[flips.FLIP][3:, 2].mean())
    assert metrics["dice"] == pytest.approx(own["dice"].mean())


def test_how_many_cases_have_nothing_wrong_is_withheld_where_they_are_few():
    own = made(12)
    told = final_of(asked(4), own, {})
    assert {flips.FLIP, flips.FLIP_CASES} <= told.withheld
    assert what_is_measured(told)["flip_variance"] is None
    assert not {flips.FLIP, flips.FLIP_CASES} & final_of(asked(3), own, {}).withheld


def what_is_measured(told):
    return asked().kind.measure(told, asked().info).metrics


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (flips.FLIP, lambda a: a + 4),
        (flips.FLIP, lambda a: a - 4),
        (flips.FLIP_CASES, lambda a: a + 1),
        (flips.FLIP_CASES, lambda a: a * [0, 1, 1]),
        (flips.FLIP_CASES, lambda a: a * [1, 0, 0]),
    ],
)
def test_what_no_cases_have_is_refused(name, change):
    what = asked()
    told = final_of(what, made(12), {})
    arrays = {**told.arrays, name: np.asarray(change(told.arrays[name].copy()))}
    assert list(final_contradictions(what, EvaluationStatistics(arrays)))


def test_without_being_asked_nothing_is_told_of_flips():
    plain = final_task(info_of("segmentation", ("background", "vessel")), EvaluationSettings())
    assert not {flips.FLIP, flips.FLIP_CASES} & plain.form.keys()
