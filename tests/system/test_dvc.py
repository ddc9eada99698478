"""`dvc repro`: nothing to do the second time, only what depends on a change, equal from scratch."""

import json
import shutil

import pytest
import yaml

from tests.conftest import NOT_WRITTEN_DOWN

pytestmark = pytest.mark.system

STAGES = [f"{stage}@demo" for stage in ("download", "partition", "validate", "train", "evaluate")]
TRANSFER = ["pretrain@cubes", "transfer@demo"]


def ran(said: str) -> list[str]:
    return [stage for stage in STAGES + TRANSFER if f"Running stage '{stage}'" in said]


def set_mu(copy, mu: float) -> None:
    params = yaml.safe_load((copy / "params.yaml").read_text())
    params["experiments"]["demo"]["strategy"]["mu"] = mu
    (copy / "params.yaml").write_text(yaml.safe_dump(params))


def edited(path) -> None:
    path.write_text(path.read_text() + "# A comment.\n")


def test_the_pipeline_is_reproducible(copy, call, environment, prefect_server):
    environment |= NOT_WRITTEN_DOWN | {"PREFECT_API_URL": prefect_server}
    call("git", "init", "--quiet")
    call("dvc", "init", "--quiet")

    assert ran(call("dvc", "repro", "evaluate@demo", "transfer@demo")) == STAGES + TRANSFER
    assert (copy / "outputs" / "demo-tl" / "model.safetensors").is_file()
    metrics = json.loads((copy / "outputs" / "demo" / "metrics.json").read_text())
    rounds = copy / "outputs" / "demo" / "rounds.csv"
    before = rounds.read_text()
    assert metrics["data_source"] == "files"
    assert before.count("\n") == 1 + 2 * 2
    assert "auc" in call("dvc", "metrics", "show")

    # Nothing to do, also where what decides no weights has changed.
    for elsewhere in ("protection/plain.py", "stages/overlays.py", "comparison/table.py"):
        edited(copy / "federated" / elsewhere)
    assert ran(call("dvc", "repro", "evaluate@demo", "transfer@demo")) == []

    # What decides them trains again, from nothing, and to the same weights: evaluate has nothing
    # to do.
    edited(copy / "federated" / "strategies" / "fedprox.py")
    shutil.rmtree(copy / "runs")
    assert ran(call("dvc", "repro", "evaluate@demo")) == ["train@demo"]
    assert rounds.read_text() == before

    set_mu(copy, 5.0)
    assert ran(call("dvc", "repro", "evaluate@demo")) == ["train@demo", "evaluate@demo"]
    assert rounds.read_text() != before
