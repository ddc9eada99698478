"""Every experiment of params.yaml under its one name: in DVC, in Prefect, and as it is served."""

import os
import shutil

import pytest
import yaml
from dvc.repo import Repo
from prefect.flows import load_flow_from_entrypoint

from federated.configuration.params_file import experiment_names
from flows.serve import DEPLOYED, LOG_EVERY, deployments, serve_deployments
from tests.conftest import PROJECT

PARAMS = PROJECT / "params.yaml"


@pytest.mark.parametrize("flow", DEPLOYED)
def test_every_experiment_has_a_deployment_of_each_flow(flow):
    deployments = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]
    entrypoint = f"{flow.fn.__module__.replace('.', '/')}.py:{flow.fn.__name__}"
    own = [d for d in deployments if d["entrypoint"] == entrypoint]
    assert {d["name"]: d["parameters"] for d in own} == {
        name: {"experiment": name} for name in experiment_names(PARAMS)
    }
    assert len(own) == len(experiment_names(PARAMS))


def test_a_worker_can_load_what_the_deployments_name(monkeypatch):
    monkeypatch.chdir(PROJECT)
    deployments = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]
    loaded = {load_flow_from_entrypoint(e).name for e in {d["entrypoint"] for d in deployments}}
    assert loaded == {flow.name for flow in DEPLOYED}


def test_every_experiment_backbone_and_transfer_has_its_stages_as_dvc_resolves_them(tmp_path):
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(PROJECT / name, tmp_path)
    stages = Repo.init(str(tmp_path), no_scm=True).index.stages
    found = {stage.addressing.rpartition(":")[2] for stage in stages}
    document = yaml.safe_load(PARAMS.read_text())
    steps = ("download", "partition", "validate", "train", "evaluate")
    expected = {f"{step}@{name}" for step in steps for name in document["experiments"]}
    expected |= {f"pretrain@{name}" for name in document["pretraining"]}
    expected |= {f"transfer@{name}" for name in document["transfer"]}
    assert found == expected


def test_what_is_served_are_both_flows_of_every_experiment_with_its_parameters():
    served = deployments(DEPLOYED, ["organ", "mine"], {"params": "mine.yaml"})
    assert [(d.flow_name, d.name, d.parameters) for d in served] == [
        (flow, name, {"experiment": name, "params": "mine.yaml"})
        for flow in ("fl-round", "fl-statistics")
        for name in ("organ", "mine")
    ]
    for each in served:
        assert load_flow_from_entrypoint(each.entrypoint).name == each.flow_name


def test_whoever_watches_a_served_run_has_time_to_read_why_it_failed(monkeypatch):
    """The process of a run has the environment of what serves it, and sends its log by that."""
    every, seconds = LOG_EVERY
    monkeypatch.setenv(every, "")
    monkeypatch.delenv(every)
    found = {}
    monkeypatch.setattr("flows.serve.serve", lambda *_, **__: found.update(os.environ))
    serve_deployments(DEPLOYED, ["tiny"], {})
    assert found[every] == seconds
    # What a person has set stays.
    monkeypatch.setenv(every, "7")
    serve_deployments(DEPLOYED, ["tiny"], {})
    assert found[every] == "7"
