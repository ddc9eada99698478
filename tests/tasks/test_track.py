"""MLflow's local database, and what it is told of a round."""

import subprocess
import sys

import pytest

from federated.learning.evaluation import Evaluation
from tasks import track

MAKE = "from tasks.track import client; client().search_experiments()"


@pytest.mark.system
def test_runs_that_start_at_once_make_the_database_once(tmp_path):
    command = [sys.executable, "-c", MAKE]
    started = [
        subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in started:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert (tmp_path / "mlruns" / "mlflow.db").is_file()


class Logged:
    """In place of MLflow: what it is told."""

    def __init__(self):
        self.names = []

    def log_batch(self, _, metrics=(), **__):
        self.names += [metric.key for metric in metrics]


@pytest.mark.parametrize(
    "sites", [3, track.MOST_TRACKED, track.MOST_TRACKED + 1, 10 * track.MOST_TRACKED]
)
def test_of_very_many_sites_mlflow_gets_the_spread_and_not_each(monkeypatch, sites):
    logged = Logged()
    monkeypatch.setattr(track, "client", lambda: logged)
    metrics = {"auc": 0.5, "loss": 1.0}
    own = {f"site-{number:04d}": {"val": metrics, "test": metrics} for number in range(sites)}
    spread = {"val": {"auc": {"worst": 0.1, "mean": 0.5, "sd": 0.1}}}
    track.track_round.fn("run", 1, Evaluation({"val": metrics}, own, spread, {}), {"bytes/up": 1.0})
    per_site = [name for name in logged.names if name.startswith("site-")]
    assert len(per_site) == (4 * sites if sites <= track.MOST_TRACKED else 0)
    assert {"val/auc", "val/auc_worst_site", "bytes/up"} <= set(logged.names)
    logged.names.clear()
    told = {"epsilon": 1.0, "epsilon_per_round": 0.5, "epsilon_ledger": 1.0, "delta": 1e-5}
    words = {"unit": "record", "accountant": "rdp", "noise": "secret"}
    privacy = {**told, **words, "per_site": {site: {"epsilon": 1.0} for site in own}}
    track.track_privacy.fn("run", privacy)
    assert len(logged.names) == (4 + sites if sites <= track.MOST_TRACKED else 4)
