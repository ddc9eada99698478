"""fl-round on a tiny data set, against Prefect's test server."""

import json
import shutil
from importlib.metadata import version

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.files import read_json, write_json
from federated.run.update_files import read_state
from federated.weights.model_file import load_model
from flows.steps import export_run
from models.norm import norm_tensors
from tasks import track
from tests.federated.report.reading import at, read
from tests.flows.conftest import contents, kept_at, messages, weights
from tests.without_prefect import without_prefect

pytestmark = pytest.mark.usefixtures("plainly")

SUMMARY_KEYS = [
    *(
        "experiment",
        "run_id",
        "task",
        "data_source",
        "sites",
        "absent",
        "no_own_model",
        "not_evaluated",
        "rounds_lost",
        "rounds_done",
        "rounds_before_resume",
        "strategy",
        "kept_round",
    ),
    *(
        "metrics",
        "classes_absent",
        "spread",
        "confusion",
        "per_site",
        "sensitive_layers",
        "privacy",
        "protection",
        "bytes",
        "seconds",
        "peak_rss_mb",
        "seed",
        "git_commit",
    ),
    *("data_md5", "mlflow_run_id", "model_version", "evaluation", "overrides", "versions"),
]


@pytest.mark.usefixtures("prefect_server")
def test_a_run_leaves_summary_model_and_tracking(project, run_volumes):
    folder = run_volumes(register_model=True)
    summary = json.loads(folder.summary_path.read_text())
    assert list(summary) == SUMMARY_KEYS
    assert summary["data_source"] == "files"
    assert summary["classes_absent"] == {"val": [], "test": []}
    assert summary["rounds_done"] == 2
    assert summary["strategy"] == {"name": "fedprox", "mu": 0.01}
    assert set(summary["per_site"]) == {"site-00", "site-01", "site-02"}
    dense = 4 * 180_674 * 3 * 2
    assert summary["bytes"]["up_dense_float32"] == dense
    assert dense < summary["bytes"]["up"] < 1.01 * dense
    assert (project / "runs" / "tiny" / "latest").resolve() == folder.root
    assert folder.model_path.is_file()
    assert (folder.root / "data_docs" / "index.html").is_file()
    assert list(folder.root.rglob("*.part")) == []
    report = read((folder.root / "report.html").read_text())
    shown = report.named("data")
    assert {"/metrics/test/auc", "/per_site/site-01/test/auc"} <= {
        element.attributes["data-at"] for element in shown
    }
    for element in shown:
        assert float(element.attributes["value"]) == at(summary, element.attributes["data-at"])
    assert summary["overrides"] == []
    assert summary["versions"]["torch"] == version("torch")
    artifacts = {file.path for file in track.client().list_artifacts(summary["mlflow_run_id"])}
    assert {"report.html", "summary.json"} <= artifacts

    tracked = track.client().get_run(summary["mlflow_run_id"])
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["strategy.mu"] == "0.01"
    assert tracked.data.tags["data_source"] == "files"
    assert tracked.data.tags["data_md5"] == summary["data_md5"]
    assert tracked.data.tags["champion_reason"].startswith("champion: the first version")
    assert tracked.data.metrics["test/auc"] == summary["metrics"]["test"]["auc"]
    history = track.client().get_metric_history(summary["mlflow_run_id"], "site-01/test/loss")
    assert [point.step for point in history] == [1, 2]


@pytest.mark.usefixtures("prefect_server")
def test_two_runs_and_both_runners_give_the_same_weights(run):
    """So does a run that Prefect has no part in, which most other tests look at."""
    serial = weights(run(rounds=1))
    with without_prefect():
        np.testing.assert_array_equal(serial, weights(run(rounds=1)))
    processes = run(rounds=1, overrides=["runner.name=processes", "runner.workers=2"])
    np.testing.assert_array_equal(serial, weights(processes))


@pytest.mark.usefixtures("prefect_server")
def test_more_rounds_on_resume_equal_a_longer_run(run, known):
    longer = weights(known(3))
    first = run(rounds=1)
    resumed = run(resume=first.run_id, rounds=3)
    assert resumed.root == first.root
    np.testing.assert_array_equal(longer, weights(resumed))
    assert [record["round"] for record in resumed.records()] == [1, 2, 3]


def test_a_half_written_round_is_made_again(run, known):
    """As after a power cut: round 2 has an update and a payload, and no record."""
    whole = weights(known(2))
    folder = run(rounds=1)
    kept_at(folder, "site-00").work_path(2, "update").write_bytes(b"half")
    for attempt in (1, 2):
        place = f"round-002/attempt-{attempt}/coordinator/payload/site-00/half.message"
        half = folder.exchange_path / folder.run_id / place
        half.parent.mkdir(parents=True)
        half.write_bytes(b"CONSIL\x00\x01half")
    np.testing.assert_array_equal(whole, weights(run(resume="latest", rounds=2)))


def test_a_run_that_an_older_version_began_is_refused_and_left_as_it_is(run):
    """Its sites had no homes; what they kept would be missing in silence."""
    folder = run(rounds=1, overrides=["strategy.name=scaffold"])
    for own in (folder.coordinator_path, folder.exchange_path, folder.root / "sites"):
        shutil.rmtree(own)
    before = contents(folder)
    with pytest.raises(ConsiliumError, match="begun by an older version") as told:
        run(resume="latest", rounds=2)
    assert "\n" not in str(told.value)
    assert "consilium run tiny" in str(told.value)
    assert before == contents(folder)
    # What is finished is finished.
    assert run(resume="latest").root == folder.root


def test_one_that_an_older_version_broke_off_in_its_first_round_begins_it_anew(run, known):
    folder = run(rounds=1)
    for own in (folder.coordinator_path, folder.exchange_path, folder.root / "sites"):
        shutil.rmtree(own)
    folder.record_path(1).unlink()
    folder.summary_path.unlink()
    held = {"train": [0], "val": [], "test": []}
    value = read_json(folder.partition_path)
    del value["cases"]
    write_json(folder.partition_path, value | {"sites": {"site-00": held}})
    np.testing.assert_array_equal(weights(known(1)), weights(run(resume="latest", rounds=1)))


def test_only_the_last_states_are_kept(run):
    folder = run(rounds=4, overrides=["selection.keep=last"])
    kept = sorted(path.parent.name for path in folder.root.glob("round-*/state.safetensors"))
    assert kept == ["round-003", "round-004"]
    assert messages(folder)
    assert messages(folder, "payload") == []
    assert {path.parts[-6] for path in messages(folder, "state")} <= {"round-003", "round-004"}


def test_the_best_rounds_model_is_kept_and_evaluates_to_the_summary(run):
    folder = run(rounds=4, overrides=["selection.metric=val/loss", "training.lr=0.02"])
    summary = json.loads(folder.summary_path.read_text())
    losses = [record["metrics"]["val"]["loss"] for record in folder.records()]
    assert summary["kept_round"] == losses.index(min(losses)) + 1
    assert summary["metrics"]["val"]["loss"] == min(losses)
    model, state = (
        load_model(folder.model_path),
        read_state(folder.state_path(summary["kept_round"])),
    )
    np.testing.assert_array_equal(state.layout.flatten(model), state.weights)


def test_a_run_stops_early_where_validation_no_longer_improves(run):
    stop = ["selection.patience=1", "training.lr=1e-12"]
    folder = run(rounds=9, overrides=stop)
    assert folder.done_rounds() == 2
    assert json.loads(folder.summary_path.read_text())["rounds_done"] == 2


@pytest.mark.parametrize(
    "name", ["fedbn", "scaffold", "fedavgm", "fedadam", "fedyogi", "fednova", "local"]
)
def test_every_strategy_resumes_to_the_same_model(run, name):
    """The last round lacks its record, and in places has half a memory: it is made again."""
    strategy = [f"strategy.name={name}", "sites.participation=0.6", "selection.keep=last"]
    folder = run(rounds=2, overrides=strategy)
    sites = ("site-00", "site-01", "site-02")
    whole = [load_model(folder.model_path, site).state_dict() for site in sites]
    for site in folder.records()[1]["sites"] if name in ("fedbn", "scaffold", "local") else ():
        memory = kept_at(folder, site).memory_path(2)
        assert memory.is_file()
        memory.write_bytes(b"left by a round that was killed")
    folder.record_path(2).unlink()
    folder.model_path.unlink()
    resumed = run(resume=folder.run_id, rounds=2)
    for site, one in zip(sites, whole, strict=True):
        other = load_model(resumed.model_path, site).state_dict()
        assert all((one[key] == other[key]).all() for key in one)


@pytest.mark.usefixtures("prefect_server")
def test_a_round_may_pass_without_an_evaluation(run, known):
    folder = run(rounds=3, overrides=["selection.every=2"])
    first, second, third = folder.records()
    assert first["metrics"] == first["spread"] == {}
    assert set(first["per_site"]["site-00"]) == {"cases", "train_loss"}
    assert second["metrics"]["test"]["auc"] is not None
    summary = json.loads(folder.summary_path.read_text())
    assert summary["metrics"] in (second["metrics"], third["metrics"])
    assert first["seconds"]["evaluate"] == 0 < third["seconds"]["evaluate"]
    every = known(3)
    assert every.records()[1]["metrics"] == second["metrics"]
    export_run(folder, folder.root / "exported")
    rows = (folder.root / "exported" / "rounds.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["2", "2", "3", "3"]


def test_fedbns_sites_have_models_of_their_own(run):
    folder = run(rounds=2, overrides=["strategy.name=fedbn"])
    one, other = (load_model(folder.model_path, f"site-0{k}").state_dict() for k in (0, 1))
    differing = {key for key in one if (one[key] != other[key]).any()}
    assert differing == norm_tensors(load_model(folder.model_path, "site-00"))
    with pytest.raises(ConsiliumError, match="personalised"):
        load_model(folder.model_path)


def test_local_sites_send_no_value(run):
    folder = run(rounds=1, overrides=["strategy.name=local"])
    # A payload without a number, and the signed header of its message.
    assert folder.records()[0]["bytes"]["up"] < 3 * 900
    personal = load_model(folder.model_path, "site-02").state_dict()
    assert all(
        (load_model(folder.model_path, "site-00").state_dict()[k] != v).any()
        for k, v in personal.items()
    )


@pytest.mark.usefixtures("prefect_server")
def test_central_training_pools_the_cases_and_is_evaluated_at_every_site(run):
    folder = run(rounds=1, overrides=["strategy.name=central"])
    (record,) = folder.records()
    assert record["sites"] == ["pooled"]
    assert set(record["per_site"]) == {"site-00", "site-01", "site-02"}


def test_scaffold_sends_twice_as_much(run, known):
    plain = known(1).records()[0]["bytes"]
    double = run(rounds=1, overrides=["strategy.name=scaffold"]).records()[0]["bytes"]
    for way in ("up", "down"):
        assert double[way] == pytest.approx(2 * plain[way], rel=0.01)
    adaptive = run(rounds=1, overrides=["strategy.name=fedadam"]).records()[0]["bytes"]
    assert adaptive["down"] == pytest.approx(plain["down"], rel=0.001)


ONE = ["sites.participation=0.1"]


def test_fewer_sites_can_be_asked_each_round(run):
    folder = run(rounds=3, overrides=["sites.participation=0.5"])
    selected = [record["sites"] for record in folder.records()]
    assert [len(sites) for sites in selected] == [2, 2, 2]
    assert all(len(record["per_site"]) == 3 for record in folder.records())


def test_scanner_profiles_change_what_is_learned(run, known):
    assert (weights(known(1)) != weights(run(rounds=1, overrides=SHIFT))).any()


SHIFT = ["sites.scanner_shift=true"]


@pytest.mark.usefixtures("prefect_server")
def test_a_failed_run_is_marked_so_in_mlflow(run):
    with pytest.raises(ConsiliumError, match="diverged"):
        run(overrides=["training.optimizer=sgd", "training.lr=1e20"])
    client = track.client()
    experiment = client.get_experiment_by_name("tiny")
    assert [r.info.status for r in client.search_runs([experiment.experiment_id])] == ["FAILED"]


def test_the_tracking_server_of_the_environment_is_used(run, project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/other.db")
    run(rounds=1)
    assert (project / "other.db").is_file()
    assert track.client().get_experiment_by_name("tiny") is not None
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert track.client().get_experiment_by_name("tiny") is None


@pytest.mark.usefixtures("prefect_server")
def test_a_finished_run_is_not_done_again(run):
    folder = run(rounds=1)
    before = folder.summary_path.read_text()
    assert run(resume="latest").summary_path.read_text() == before


@pytest.mark.usefixtures("prefect_server")
def test_a_dask_cluster_gives_the_same_weights(run, known):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        address = cluster.scheduler_address
        dask = run(rounds=1, overrides=["runner.name=dask", f"runner.address={address}"])
    np.testing.assert_array_equal(weights(dask), weights(known(1)))


def test_a_resume_without_a_run_says_how_to_start_one(run):
    with pytest.raises(ConsiliumError, match="consilium run tiny"):
        run(resume="latest")
    with pytest.raises(ConsiliumError, match="no run 'gone'"):
        run(resume="gone")
