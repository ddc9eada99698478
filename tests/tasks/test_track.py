"""MLflow's local database."""

import subprocess
import sys

import pytest

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
