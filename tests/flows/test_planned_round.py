"""A run of an experiment in which everything is `auto`: planned, trained, and gone on with."""

import json
from pathlib import Path

import pytest
import yaml

from federated.data.folders.families import FAMILIES
from federated.data.folders.phantom import write_phantom
from federated.errors import ConsiliumError
from federated.run.folder import RunFolder
from flows import planning
from flows.round import fl_round
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

    monkeypatch.setattr(planning, "run_statistics", plan_again)
    fl_round("auto", resume=folder.run_id, rounds=2, register_model=False)
    assert folder.experiment().data.patch == experiment.data.patch
    assert folder.experiment().model.levels == experiment.model.levels
    assert folder.done_rounds() == 2
