"""`dvc repro`: nothing to do the second time, only what depends on a change, equal from scratch."""

import json
import shutil

import pytest
import yaml

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
    environment["PREFECT_API_URL"] = prefect_server
    call("git", "init", "--quiet")
    call("dvc", "init", "--quiet")

    assert ran(call("dvc", "repro", "evaluate@demo")) == STAGES
    metrics = (copy / "outputs" / "demo" / "metrics.json").read_text()
    rounds = (copy / "outputs" / "demo" / "rounds.csv").read_text()
    assert json.loads(metrics)["data_source"] == "files"
    assert rounds.count("\n") == 1 + 2 * 2
    assert "auc" in call("dvc", "metrics", "show")

    # Nothing to do, also where what decides no weights has changed.
    for elsewhere in ("protection/plain.py", "stages/overlays.py", "comparison/table.py"):
        edited(copy / "federated" / elsewhere)
    assert ran(call("dvc", "repro", "evaluate@demo")) == []
    edited(copy / "federated" / "strategies" / "fedprox.py")
    assert ran(call("dvc", "repro", "evaluate@demo")) == ["train@demo"]  # to the same weights

    set_mu(copy, 5.0)
    assert ran(call("dvc", "repro", "evaluate@demo")) == ["train@demo", "evaluate@demo"]
    assert (copy / "outputs" / "demo" / "rounds.csv").read_text() != rounds

    # From scratch: no outputs, no cache, no lock.
    set_mu(copy, 0.01)
    for name in ("outputs", "data/prepared", ".dvc/cache", "runs"):
        shutil.rmtree(copy / name)
    (copy / "dvc.lock").unlink()
    assert ran(call("dvc", "repro", "evaluate@demo", "transfer@demo")) == STAGES + TRANSFER
    assert (copy / "outputs" / "demo-tl" / "model.safetensors").is_file()
    assert (copy / "outputs" / "demo" / "metrics.json").read_text() == metrics
    assert (copy / "outputs" / "demo" / "rounds.csv").read_text() == rounds
