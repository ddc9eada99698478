"""What MLflow and Prefect say of a run, and how MLflow keeps it; without a server."""

import pytest

from federated.configuration.load import load_experiment
from tasks import compare, track
from tasks.described import PHANTOM, beginning, headline, result, tags_of

SUMMARY = {
    "task": "classification",
    "rounds_done": 3,
    "kept_round": 2,
    "metrics": {"val": {"auc": 0.625, "accuracy": None}, "test": {"auc": 0.5}},
    "privacy": {"unit": "case", "epsilon": 1.5, "delta": 1e-5, "accountant": "rdp"},
    "bytes": {"up": 2e6, "down": 1e6},
    "git_commit": "0123456789abcdef",
    "absent": {"site-03": "away"},
    "not_evaluated": {},
}


@pytest.fixture
def tiny(project):
    return load_experiment("tiny")


def test_the_headline_is_that_of_the_summary_and_without_a_group():
    found = headline(SUMMARY)
    assert found == {"test_auc": 0.5, "val_auc": 0.625, "epsilon": 1.5}
    assert not any("/" in name for name in found)
    assert "epsilon" not in headline({**SUMMARY, "privacy": {"epsilon": None}})


def test_a_phantom_is_said_to_be_one(tiny):
    assert PHANTOM in beginning(tiny, "phantom", 3)
    assert PHANTOM not in beginning(tiny, "files", 3)
    assert "phantom" in tags_of(tiny, "phantom")


def test_the_beginning_says_who_sees_what(tiny):
    text = beginning(tiny, "files", 3)
    assert "the coordinator reads the update of each site" in text
    assert "nothing bounds what the model tells" in text
    assert "fedprox (mu 0.01" in text


def test_the_result_has_the_numbers_and_who_is_not_in_them():
    text = result(SUMMARY)
    assert "| auc | 0.6250 | 0.5000 |" in text
    assert "ε 1.5 at δ 1e-05" in text
    assert "site-03" in text


def test_the_result_has_the_commit_or_the_version():
    assert "Commit `0123456789`." in result(SUMMARY)
    unknown = {**SUMMARY, "git_commit": "unknown", "versions": {"consilium": "7.0"}}
    assert "Version 7.0, commit unknown." in result(unknown)


def test_an_experiment_is_opened_as_one_that_trains_models(project):
    """Also one that an older version has made, which has no mark."""
    mlflow = track.client()
    mlflow.create_experiment("older")
    for name in ("older", "newer"):
        opened = track.experiment_id(mlflow, name)
        tags = mlflow.get_experiment(opened).tags
        assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_a_comparison_has_one_run_and_takes_those_below_it(project, tmp_path):
    begin = compare.begin_comparison.fn
    above = begin("tiny", tmp_path / "compare-1", "consilium compare tiny")
    assert begin("tiny", tmp_path / "compare-1", "consilium compare tiny") == above
    assert begin("tiny", tmp_path / "compare-2", "consilium compare tiny") != above
    mlflow = track.client()
    run = mlflow.create_run(track.experiment_id(mlflow, "tiny")).info.run_id
    track.adopt(run, above)
    assert mlflow.get_run(run).data.tags["mlflow.parentRunId"] == above
    assert track.found_run("0" * 32) is None
    # As where mlruns/ was removed since: there is another one, and no error.
    (tmp_path / "compare-1" / "mlflow_run_id").write_text("0" * 32)
    assert begin("tiny", tmp_path / "compare-1", "consilium compare tiny") not in ("0" * 32, above)


@pytest.mark.parametrize(
    ("pages", "expected"),
    [("", None), ("/mlflow", "/mlflow/#/experiments/"), ("https://h:1/x/", "https://h:1/x/#/exp")],
)
def test_a_run_has_a_link_where_people_reach_pages(project, monkeypatch, pages, expected):
    mlflow = track.client()
    run = mlflow.create_run(track.experiment_id(mlflow, "tiny")).info.run_id
    monkeypatch.setenv(track.PAGES, pages)
    found = track.run_page(run)
    report = track.run_page(run, "report.html")
    if expected is None:
        assert found is report is None
    else:
        assert found.startswith(expected)
        assert found.endswith(f"/runs/{run}?{track.OF_TRAINING}")
        assert report.endswith(f"/runs/{run}/artifacts/report.html?{track.OF_TRAINING}")
