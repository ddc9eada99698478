"""Segmentation as a learning task: what a site scores, and what is made of it."""

import numpy as np
import pytest
import torch
from cachetools import LRUCache
from PIL import Image
from torch import nn

from federated.data.dataset import DatasetInfo
from federated.data.folders.families import FAMILIES
from federated.data.folders.phantom import write_phantom
from federated.data.folders.segmented_cases import SegmentedCases, ShownCase
from federated.learning.segmentation import predict, score, segment

CPU = torch.device("cpu")
INFO = DatasetInfo("retina", ("background", "vessel"), 2, 3, {}, "", "segmentation")


class Brighter(nn.Module):
    """Calls everything a vessel that is brighter than a threshold: exact on a phantom."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold

    def forward(self, images):
        over = 50 * (images.mean(dim=1, keepdim=True) - self.threshold)
        return torch.cat([-over, over], dim=1)


@pytest.fixture
def cases(tmp_path):
    family = FAMILIES["retina"]
    write_phantom(family, tmp_path, 8, seed=0, shape=(120, 130))
    shown = [ShownCase(files, None) for files in family.find(tmp_path).cases]
    return SegmentedCases(family, shown, LRUCache(2**30, getsizeof=lambda case: case.nbytes))


def test_a_good_model_scores_well_and_one_that_finds_nothing_does_not(cases):
    good = predict(Brighter(1.0), cases, CPU, INFO)
    blind = predict(Brighter(99.0), cases, CPU, INFO)
    assert good["dice"].shape == (8, 1)
    assert good["dice"].mean() > 0.9
    assert blind["dice"].max() == 0
    np.testing.assert_allclose(blind["hd95"], np.hypot(120, 130))
    assert good["loss"].mean() < blind["loss"].mean()
    # Two eyes of one patient of CHASE_DB1, single photographs of DRIVE.
    assert len(set(good["patients"].tolist())) == 6


def test_windows_give_what_the_whole_image_does_where_a_voxel_sees_itself_alone(cases):
    image = cases.case(0).image
    model = Brighter(0.5)
    found = segment(model, image, cases.family, CPU)
    torch.testing.assert_close(found, model(image.unsqueeze(0))[0], atol=1e-3, rtol=1e-4)


def arrays(dice, patients):
    values = np.array(dice, float).reshape(-1, 1)
    zeros = np.zeros(len(values))
    return {
        "dice": values,
        "hd95": 1 - values,
        "assd": 1 - values,
        "loss": zeros,
        "patients": np.array(patients),
    }


def test_patients_count_alike_and_sites_are_spread():
    by_site = {
        "a": dict.fromkeys(("val", "test"), arrays([1.0, 0.5, 0.6], [0, 0, 1])),
        "b": dict.fromkeys(("val", "test"), arrays([0.9], [0])),
        "c": dict.fromkeys(("val", "test"), arrays([], [])),
    }
    evaluation = score(by_site, INFO)
    assert evaluation.per_site["a"]["test"]["dice"] == pytest.approx((0.75 + 0.6) / 2)
    assert evaluation.overall["test"]["dice"] == pytest.approx((0.75 + 0.6 + 0.9) / 3)
    assert evaluation.overall["test"]["dice_vessel"] == evaluation.overall["test"]["dice"]
    assert evaluation.per_site["c"]["test"]["dice"] is None
    assert evaluation.per_site["c"]["test"]["loss"] is None
    assert evaluation.site_spread["test"]["dice"]["worst"] == pytest.approx(0.675)
    assert evaluation.confusion == {}


def test_classes_are_absent_from_a_split_and_from_a_site():
    info = DatasetInfo("kidney", ("background", "kidney", "tumour"), 3, 1, {}, "", "segmentation")

    def site(dice, absent):
        scores = {name: np.array(dice, float) for name in ("dice", "hd95", "assd")}
        rest = {"loss": np.zeros(len(dice)), "patients": np.arange(len(dice))}
        return dict.fromkeys(("val", "test"), scores | rest | {"absent": np.array(absent, bool)})

    evaluation = score(
        {
            "a": site([[0.5, 1.0], [0.5, 1.0]], [[False, True], [False, True]]),
            "b": site([[0.5, 0.8]], [[False, False]]),
        },
        info,
    )
    assert evaluation.classes_absent["test"] == ()
    assert evaluation.absent_at["a"]["test"] == ("tumour",)
    assert evaluation.absent_at["b"]["test"] == ()
    assert evaluation.per_site["a"]["test"]["dice"] == pytest.approx(0.5)
    assert evaluation.per_site["a"]["test"]["dice_tumour"] is None
    assert evaluation.overall["test"]["dice_tumour"] == pytest.approx(2.8 / 3)


def test_a_site_tells_which_classes_its_masks_have(cases, tmp_path):
    for files in cases.family.find(tmp_path).cases[:2]:
        Image.new("L", (130, 120)).save(files.mask)
    found = predict(Brighter(1.0), cases, CPU, INFO)
    assert found["absent"].tolist() == [[True], [True], *[[False]] * 6]
