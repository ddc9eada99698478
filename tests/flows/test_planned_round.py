"""A run of an experiment in which everything is `auto`: planned, trained, and gone on with."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from federated.comparison.grid import find_run
from federated.configuration.load import load_experiment
from federated.data.folders.families import FAMILIES
from federated.data.folders.phantom import write_phantom
from federated.data.load import load, locate
from federated.errors import ConsiliumError
from federated.run.folder import RunFolder
from flows import planning
from flows.prepare import prepared_folder
from flows.round import fl_round
from flows.steps import STEPS, evaluate_model, run_step
from tests.conftest import TINY_PARAMS

pytestmark = pytest.mark.usefixtures("plainly")

AUTO = {
    "seed": 0,
    "data": {"dataset": "hippocampus", "source": "files", "spacing": "auto", "patch": "auto"},
    "sites": {"count": 2, "partition": "iid", "min_cases": 2},
    "validate": {},
    "model": {"name": "nnunet", "norm": "instance", "width": 8, "memory_gb": 0.05},
    "training": {"lr": 0.01, "batch_size": "auto", "augment": "nnunet", "device": "cpu"},
    "selection": {"metric": "val/dice", "keep": "last"},
}

# An image of two values has no landmarks: on the scale that its sites plan it has no place.
SCALED = {
    "seed": 0,
    "data": {"dataset": "hippocampus", "source": "files", "harmonise": "nyul"},
    "sites": {"count": 2, "partition": "iid", "min_cases": 2},
    "validate": {},
    "model": {"name": "unet", "norm": "instance", "width": 8},
    "selection": {"metric": "val/dice", "keep": "last"},
}


@pytest.fixture
def auto(project):
    write_phantom(FAMILIES["hippocampus"], project / "data/hippocampus", 10, seed=0)
    experiments = TINY_PARAMS["experiments"] | {"auto": AUTO}
    (project / "params.yaml").write_text(yaml.safe_dump(TINY_PARAMS | {"experiments": experiments}))
    return project


@pytest.mark.usefixtures("prefect_server")
def test_a_run_is_planned_by_its_sites_signed_trained_and_goes_on_with_its_plan(
    auto, in_process, monkeypatch
):
    said = []
    monkeypatch.setattr(planning, "tell", said.append)
    folder = RunFolder(Path(fl_round("auto", rounds=1, register_model=False)))
    told = json.loads((folder.root / "planned.json").read_text())
    assert said[0].startswith("planned from federated fingerprints of 2 sites: spacing 1x1x1 mm")
    experiment = folder.experiment()
    assert experiment.planning.auto == ()
    assert list(experiment.data.patch) == told["plan"]["patch"]
    assert experiment.training.batch_size == told["plan"]["batch_size"]
    assert len(experiment.model.levels) == len(told["plan"]["topology"]["features"])
    (counting,) = (auto / "runs" / "statistics" / "auto").iterdir()
    assert counting.name == told["statistics"]
    assert json.loads(folder.summary_path.read_text())["rounds_done"] == 1

    def plan_again(*_: object) -> None:
        raise ConsiliumError("planned again")

    asked = load_experiment("auto", ["rounds=1"], plans=True)
    assert find_run(Path("runs"), asked, folder.data().md5).run_id == folder.run_id
    for other in ("data.patch=[32,56,40]", "model.memory_gb=0.06"):
        asked = load_experiment("auto", ["rounds=1", other], plans=True)
        assert find_run(Path("runs"), asked, folder.data().md5) is None

    monkeypatch.setattr(planning, "run_statistics", plan_again)
    fl_round("auto", resume=folder.run_id, rounds=2, register_model=False)
    assert folder.experiment().data.patch == experiment.data.patch
    assert folder.experiment().model.levels == experiment.model.levels
    assert folder.done_rounds() == 2
    asked = load_experiment("auto", ["rounds=2"], plans=True)
    assert find_run(Path("runs"), asked, folder.data().md5).run_id == folder.run_id


@pytest.fixture
def scaled(auto):
    experiments = {"scaled": SCALED}
    (auto / "params.yaml").write_text(yaml.safe_dump(TINY_PARAMS | {"experiments": experiments}))
    return auto


def of_two_values(file: Path) -> None:
    """Make an image that the rules find nothing wrong with before a scale is planned."""
    image = nib.load(file)
    values = np.where(np.arange(image.shape[0])[:, None, None] % 2, 0.0, 100.0)
    nib.save(nib.Nifti1Image(np.broadcast_to(values, image.shape).copy(), image.affine), file)


def test_what_was_prepared_without_the_plan_is_validated_by_it(scaled, in_process):
    flat = sorted((scaled / "data/hippocampus/images").glob("*.nii.gz"))[0]
    of_two_values(flat)
    experiment = load_experiment("scaled")
    for step in STEPS:
        said = run_step(step, experiment)
    assert "data.landmarks is planned by the sites when a run begins" in said
    prepared = str(prepared_folder(experiment).root)
    with pytest.raises(ConsiliumError, match=rf"fail validation:(?s:.)*{re.escape(flat.name)}"):
        fl_round("scaled", prepared=prepared, register_model=False)
    (folder,) = (scaled / "runs" / "scaled").glob("2*")
    assert not RunFolder(folder).done_rounds()


@pytest.mark.usefixtures("prefect_server")
def test_a_model_is_evaluated_on_the_cases_that_its_planned_run_had(scaled, in_process):
    overrides = ["validate.on_failure=drop-case", "rounds=1"]
    experiment = load_experiment("scaled", overrides)
    tested = load(locate(experiment.data), experiment.data).cases["test"][0]
    of_two_values(tested.images[0])
    prepared = prepared_folder(experiment)
    for step in STEPS:
        run_step(step, experiment)
    assert not prepared.report()["dropped_cases"]
    folder = RunFolder(
        Path(fl_round("scaled", overrides, prepared=str(prepared.root), register_model=False))
    )
    found = evaluate_model(experiment, folder.model_path, scaled / "metrics.json")
    metrics = json.loads(folder.summary_path.read_text())["metrics"]["test"]
    measured = {name: value for name, value in found.items() if value is not None}
    # With another memory format, so that single voxels differ.
    assert measured == pytest.approx({name: metrics[name] for name in measured}, rel=1e-3)
    report = json.loads((prepared.root / "as_planned" / "validation.json").read_text())
    (dropped,) = report["dropped_cases"].values()
    assert dropped == {"test": [0]}
