"""Where a run is told to be looked at."""

import pytest

from flows.describe import servers


def test_where_there_is_no_makefile_the_command_itself_is_told(monkeypatch, tmp_path):
    """As in the folder of whoever has installed the package and has no clone."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert servers() == "consilium serve --ui-only"


@pytest.mark.parametrize(
    ("mlflow", "prefect", "told"),
    [
        ("", "", "make ui"),
        ("sqlite:///mlruns/mlflow.db", "", "make ui"),
        ("", "http://127.0.0.1:4200/api", "make ui"),
        ("https://fl.example.org:8443/mlflow", "", "https://fl.example.org:8443/mlflow/"),
        (
            "https://consilium:secret@127.0.0.1:8443/mlflow",
            "https://127.0.0.1:8443/prefect/api",
            "https://127.0.0.1:8443/mlflow/ and https://127.0.0.1:8443/prefect/",
        ),
    ],
)
def test_the_servers_that_hold_a_run_are_told_without_a_login(monkeypatch, mlflow, prefect, told):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow)
    monkeypatch.setenv("PREFECT_API_URL", prefect)
    assert servers() == told
