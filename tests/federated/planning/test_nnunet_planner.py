"""nnU-Net's own planner, on counts, plans what ours plans; and it may be absent."""

import os
import sys

import nibabel as nib
import numpy as np
import pytest

from federated.data.folders.volume import Volume
from federated.errors import ConsiliumError
from federated.planning import nnunet_planner
from federated.planning.fingerprint import Fingerprint, Scheme, fingerprint_of, sum_of
from federated.planning.nnunet_planner import plan_by_nnunet
from federated.planning.plan import Limits, plan
from tests.conftest import REAL_DATA

SCHEME = Scheme(dims=3, modalities=1, classes=3, voxelwise=True)


def federation(shape, sides, cases=50):
    values = np.linspace(0, 100, int(np.prod(shape)), dtype=np.float32).reshape(1, *shape)
    volume = Volume(values, np.diag([*sides, 1.0]))
    return sum_of(SCHEME, [fingerprint_of(SCHEME, [volume], np.ones(shape, int))] * cases)


@pytest.mark.parametrize(
    ("shape", "sides"),
    [
        ((35, 50, 36), (1, 1, 1)),
        ((120, 128, 20), (0.8, 0.8, 4)),
        ((20, 128, 120), (4, 0.8, 0.8)),
        ((96, 64, 80), (1, 1.5, 1.2)),
    ],
)
@pytest.mark.parametrize("gb", [4, 8])
def test_both_planners_plan_the_same_spacing_and_levels(shape, sides, gb):
    pytest.importorskip("nnunetv2", reason="the extra nnunet is not installed")
    found, limits = federation(shape, sides), Limits(memory=gb * 10**9)
    ours, theirs = plan(found, limits), plan_by_nnunet(found, limits)
    assert theirs.spacing == pytest.approx(ours.spacing, rel=0.01)
    assert theirs.patch == ours.patch
    assert theirs.topology == ours.topology
    assert theirs.batch_size == ours.batch_size


@pytest.mark.parametrize(("name", "masks"), [("hippocampus", "labels"), ("sarcoma", "masks")])
@pytest.mark.parametrize("gb", [4, 8])
def test_merged_counts_are_planned_as_the_list_of_real_cases_is(name, masks, gb, monkeypatch):
    pytest.importorskip("nnunetv2", reason="the extra nnunet is not installed")
    if not (REAL_DATA / name).is_dir():
        pytest.skip(f"needs ../shared/data/{name}")
    volumes, counted = [], []
    for path in sorted((REAL_DATA / name / "images").iterdir()):
        image, mask = (
            nib.as_closest_canonical(nib.load(file))
            for file in (path, REAL_DATA / name / masks / path.name)
        )
        values = np.asarray(image.dataobj, np.float32)[None]
        volumes.append(Volume(values, image.affine))
        truth = np.asarray(mask.dataobj).astype(int)
        counted.append(fingerprint_of(SCHEME, [volumes[-1]], truth))
    found, limits = sum_of(SCHEME, counted), Limits(memory=gb * 10**9)
    merged = plan_by_nnunet(found, limits)
    sides = np.array([np.linalg.norm(v.affine[:3, :3], axis=0) for v in volumes]).T
    shapes = np.array([v.values.shape[1:] for v in volumes]).T
    # In place of values that are spread as the counted ones, along each axis: those of the cases.
    own = iter([*sides, *(sides * shapes)])
    monkeypatch.setattr(nnunet_planner, "_drawn", lambda *_: next(own))
    listed = plan_by_nnunet(found, limits)
    assert next(own, None) is None
    assert merged.spacing == pytest.approx(listed.spacing, rel=0.01)
    assert (merged.patch, merged.batch_size) == (listed.patch, listed.batch_size)
    assert merged.topology == listed.topology
    assert "torchvision" not in sys.modules


def test_without_it_the_paragraph_says_what_to_install(monkeypatch):
    planner = "nnunetv2.experiment_planning.experiment_planners.default_experiment_planner"
    monkeypatch.setitem(sys.modules, planner, None)
    before = dict(os.environ)
    with pytest.raises(ConsiliumError, match=r"consilium\[nnunet\]"):
        plan_by_nnunet(federation((8, 8, 8), (1, 1, 1), 1), Limits(memory=10**9))
    assert dict(os.environ) == before


def test_nothing_counted_and_pictures_are_refused():
    pictures = Scheme(dims=2, modalities=1, classes=2, voxelwise=True)
    for scheme in (SCHEME, pictures):
        with pytest.raises(ConsiliumError, match="volumes, of which"):
            plan_by_nnunet(Fingerprint.empty(scheme), Limits(memory=10**9))
