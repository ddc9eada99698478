"""One plan for all sites, from counts: nnU-Net's rules."""

import numpy as np
import pytest

from federated.configuration.load import resolve
from federated.data.folders.volume import Volume
from federated.errors import ConsiliumError
from federated.planning.fingerprint import Scheme, fingerprint_of, sum_of
from federated.planning.plan import Limits, plan, target_spacing

VOLUMES = Scheme(dims=3, modalities=1, classes=3, voxelwise=True)
PICTURES = Scheme(dims=2, modalities=1, classes=2, voxelwise=True)


def volume(shape, sides, low=0, high=100):
    values = np.linspace(low, high, int(np.prod(shape)), dtype=np.float32).reshape(1, *shape)
    return fingerprint_of(VOLUMES, [Volume(values, np.diag([*sides, 1.0]))], np.ones(shape, int))


def federation(*cases):
    return sum_of(VOLUMES, cases)


def test_the_hippocampus_is_planned_as_nnunet_plans_it():
    # Its median case: 35 x 50 x 36 voxels of 1 mm, 260 cases; nnU-Net takes 40 x 56 x 40.
    found = federation(*[volume((35, 50, 36), (1, 1, 1))] * 260)
    planned = plan(found, Limits(memory=8 * 10**9))
    assert planned.spacing == (1, 1, 1)
    assert planned.patch == (40, 56, 40)
    assert planned.batch_size == 9
    assert len(planned.topology.features) == 4
    assert planned.normalisation == "zscore"
    assert planned.whole


def test_spacings_are_the_median_over_the_cases_of_all_sites():
    one_site = [volume((32, 32, 32), (1, 1, 1))] * 2
    other = [volume((32, 32, 32), (2, 2, 2))] * 3
    assert target_spacing(federation(*one_site, *other)) == (2, 2, 2)


def test_of_slices_far_apart_the_finer_ones_are_taken():
    far = [volume((64, 64, 8), (0.5, 0.5, side)) for side in (1, 3, 4, 4, 4, 4, 4, 4, 4, 4, 5)]
    spacing = target_spacing(federation(*far))
    assert spacing[:2] == (0.5, 0.5)
    assert spacing[2] == pytest.approx(3, rel=0.01)


def test_the_less_memory_the_smaller_is_the_patch_and_never_more_than_allowed():
    found = federation(*[volume((96, 96, 64), (1, 1, 1.5))] * 40)
    plans = [plan(found, Limits(memory=int(gb * 1e9), width=16)) for gb in (0.1, 0.5, 4, 32)]
    voxels = [np.prod(each.patch) for each in plans]
    assert voxels == sorted(voxels)
    assert voxels[0] < voxels[-1]
    for each, gb in zip(plans, (0.1, 0.5, 4, 32), strict=True):
        assert each.memory <= gb * 1e9
        assert each.batch_size >= 2
        assert all(n % d == 0 for n, d in zip(each.patch, each.topology.divisors, strict=True))
    assert plans[-1].whole
    assert not plans[0].whole


def test_where_nothing_fits_it_is_said_what_to_allow():
    found = federation(volume((64, 64, 64), (1, 1, 1)))
    with pytest.raises(ConsiliumError, match=r"model\.memory_gb.*model\.width"):
        plan(found, Limits(memory=10_000))


def test_ct_is_clipped_between_the_quantiles_of_what_is_labelled():
    found = federation(*[volume((40, 40, 40), (1, 1, 1), -1000, 1000)] * 3)
    planned = plan(found, Limits(memory=10**9, ct=True))
    assert planned.normalisation == "window"
    assert planned.window == (pytest.approx(-990, rel=0.02), pytest.approx(990, rel=0.02))


def test_pictures_are_planned_by_their_pixels():
    values = np.random.default_rng(0).integers(0, 255, (3, 300, 280)).astype(np.uint8)
    case = fingerprint_of(PICTURES, [Volume(values, None)], np.ones((300, 280), int))
    planned = plan(sum_of(PICTURES, [case] * 20), Limits(memory=4 * 10**9))
    assert planned.spacing is None
    assert planned.patch == (320, 320)
    assert planned.normalisation == "unit"


def test_nothing_counted_cannot_be_planned_by():
    with pytest.raises(ConsiliumError, match="No case was counted"):
        plan(federation(), Limits(memory=10**9))


def test_a_run_of_levels_that_are_not_stated_or_do_not_fit_is_refused():
    data = {"dataset": "hippocampus", "source": "phantom"}
    three = [{"features": 8, "kernel": [3] * 3, "stride": [side] * 3} for side in (1, 2, 2)]
    common = {"data": data, "sites": {"partition": "iid"}, "selection": {"metric": "val/dice"}}
    common |= {"strategy": {"name": "fedavg"}, "privacy": {"name": "none"}}
    common |= {"compression": {"name": "none"}, "protection": {"name": "plain"}}
    resolve("x", {**common, "model": {"name": "nnunet", "levels": three}}, "here")
    with pytest.raises(ConsiliumError, match=r"has no levels.*model\.levels=auto"):
        resolve("x", {**common, "model": {"name": "nnunet"}}, "here")
    five = [*three, *three[1:]]
    with pytest.raises(ConsiliumError, match=r"divide an image by 16x16x16.*40x56x40"):
        resolve("x", {**common, "model": {"name": "nnunet", "levels": five}}, "here")
