"""`auto` in an experiment: what may be planned, and what becomes of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from federated.configuration.load import load_experiment, resolve
from federated.configuration.planned import plan_line, planned_experiment
from federated.data.folders.volume import Volume
from federated.data.load import known_info
from federated.data.partition import CaseCounts
from federated.errors import ConsiliumError
from federated.exchange.plan import RunPlan
from federated.planning.fingerprint import Fingerprint, Scheme, fingerprint_of, sum_of
from federated.weights.build import model_header
from federated.weights.model_file import ModelHeader
from tests.federated.exchange.parties import SITES, identity

AUTO = {
    "data": {"dataset": "hippocampus", "source": "phantom", "spacing": "auto", "patch": "auto"},
    "sites": {"count": 3, "partition": "iid"},
    "model": {"name": "nnunet"},
    "training": {"batch_size": "auto", "augment": "nnunet"},
    "selection": {"metric": "val/dice"},
}
DEFAULTS = {
    "strategy": {"name": "fedavg"},
    **{name: {"name": "none"} for name in ("privacy", "compression")},
    "protection": {"name": "plain"},
}
HIPPOCAMPUS = Scheme(3, 1, 3, voxelwise=True)


@pytest.fixture
def load(tmp_path: Path):
    def load(*overrides: str, **sections):
        document = {"defaults": DEFAULTS, "experiments": {"mine": AUTO | sections}}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
        return load_experiment("mine", overrides, tmp_path / "params.yaml")

    return load


@pytest.fixture(scope="module")
def counted() -> Fingerprint:
    """The hippocampus as nnU-Net knows it: 35 x 50 x 36 voxels of 1 mm, 260 cases."""
    labels = np.ones((35, 50, 36), int)
    labels[:9] = 2
    values = np.random.default_rng(0).normal(size=(1, 35, 50, 36))
    case = fingerprint_of(HIPPOCAMPUS, [Volume(values, np.eye(4))], labels)
    return sum_of(HIPPOCAMPUS, [case] * 260)


def test_what_is_auto_is_planned_and_nothing_else_is_changed(load, counted) -> None:
    found = load("model.memory_gb=8")
    assert found.planning.auto == ("data.spacing", "data.patch", "training.batch_size",
                                   "model.levels")  # fmt: skip
    planned, made = planned_experiment(found, counted)
    assert planned.planning.auto == ()
    assert planned.data.spacing == (1, 1, 1)
    # As nnU-Net plans it.
    assert planned.data.patch == (40, 56, 40)
    assert planned.training.batch_size == 9
    assert [level.features for level in planned.model.levels] == [32, 64, 128, 256]
    before, after = found.to_json(), planned.to_json()
    assert "planning" not in after
    for value in (before, after):
        value.pop("planning", None)
        value["data"] = {k: v for k, v in value["data"].items() if k not in ("spacing", "patch")}
        value["training"].pop("batch_size")
        value["model"].pop("levels")
    assert before == after
    line = plan_line(planned, made, 3)
    assert line.startswith(
        "planned from federated fingerprints of 3 sites: spacing 1x1x1 mm, patch 40x56x40, "
        "batch 9, normalisation zscore, levels 32 (/1x1x1), 64 (/2x2x2)"
    )


def test_what_is_stated_is_kept_and_the_rest_follows_from_it(load, counted) -> None:
    data = {"dataset": "hippocampus", "source": "phantom", "spacing": 2, "patch": "auto"}
    planned, _ = planned_experiment(load("training.batch_size=3", data=data), counted)
    assert planned.data.spacing == 2
    assert planned.training.batch_size == 3
    # Half as many voxels along each axis, with sides that are halved less often.
    assert all(20 >= n >= 16 or n == 28 for n in planned.data.patch)
    levels = load(data={"dataset": "hippocampus", "source": "phantom"})
    planned, _ = planned_experiment(levels, counted)
    # The set's own patch, which the levels divide.
    assert planned.data.patch in (None, (40, 56, 40))


def test_a_models_header_has_the_plan_and_reads_it_back(load, counted) -> None:
    planned, _ = planned_experiment(load(), counted)
    header = model_header(planned, known_info(planned.data), "phantom")
    again = ModelHeader.from_text(header.to_text())
    assert again == header
    family = again.family()
    assert (family.spacing, family.shape, family.whole) == ((1, 1, 1), (40, 56, 40), False)
    plain = resolve("x", {**DEFAULTS, "data": {"dataset": "adrenalmnist3d"}}, "here")
    assert "patch" not in model_header(plain, known_info(plain.data), "files").to_text()


@pytest.mark.parametrize(("sections", "said"), [
    ({"model": {"name": "unet"}}, r"data\.patch=auto follows from a network"),
    ({"data": {"dataset": "retina", "source": "phantom", "spacing": "auto"}}, "is in mm"),
    ({"planning": {"auto": []}}, "`planning` is not a section to set"),
    ({"model": {"name": "nnunet", "planner": "nnunet"}, "training": {}}, "nnunet plans everything"),
])  # fmt: skip
def test_what_nothing_counted_would_say_is_refused(load, sections, said) -> None:
    with pytest.raises(ConsiliumError, match=said):
        load(**sections)


def test_a_set_whose_images_are_classified_has_no_patch_to_plan(load) -> None:
    data = {"dataset": "adrenalmnist3d", "spacing": "auto"}
    with pytest.raises(ConsiliumError, match="is for classification"):
        load(data=data, model={"name": "small_cnn"}, training={}, selection={})


def test_nothing_counted_plans_nothing(load) -> None:
    with pytest.raises(ConsiliumError, match="No case was counted"):
        planned_experiment(load(), Fingerprint.empty(HIPPOCAMPUS))


def test_what_does_not_fit_into_the_memory_says_what_to_allow(load, counted) -> None:
    with pytest.raises(ConsiliumError, match=r"model\.memory_gb"):
        planned_experiment(load("model.memory_gb=0.001"), counted)


def test_nothing_is_trained_by_a_plan_with_values_that_are_still_to_be_planned(load) -> None:
    """What stands there until then is nobody's choice; a coordinator may sign it all the same."""
    who = {site: identity(site).public for site in SITES}
    counts = CaseCounts({site: {"train": 10, "val": 2, "test": 2} for site in SITES})
    plan = RunPlan(load(), "code", who, counts, {}, 1)
    with pytest.raises(ConsiliumError, match=r"data\.spacing.*are still to be planned"):
        RunPlan.from_bytes(plan.to_bytes())
    counting = replace(plan, purpose="statistics")
    assert RunPlan.from_bytes(counting.to_bytes()) == counting
