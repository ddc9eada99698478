"""Runs whose sites share predictions, statistics or metrics alone: what is told at the end."""

import json

import pytest

from federated.run.folder import RunFolder
from flows.describe import collapsed_lines, evaluation_lines, result_lines
from tasks import track
from tests.flows.conftest import kept_at, messages

pytestmark = pytest.mark.usefixtures("plainly")
QUICK = ["runner.name=processes", "runner.workers=2"]
METRICS = ["evaluation.share=metrics", "selection.metric=val/accuracy"]


def summary_of(folder: RunFolder) -> dict:
    return json.loads(folder.summary_path.read_text())


def test_bounds_of_a_metric_are_not_taken_for_a_confidence_interval(known):
    """They stand beside settings, as `evaluation.intervals.test.auc`."""
    told = summary_of(known(2, "selection.keep=last"))["evaluation"]
    assert told["intervals"]["test"]["auc"]
    assert told["about_intervals"].startswith("no confidence intervals: the bounds between which")
    exact = summary_of(known(2, "evaluation.share=predictions", "selection.keep=last"))
    assert "about_intervals" not in exact["evaluation"]


def test_a_model_with_one_answer_is_called_so_on_the_terminal():
    (line,) = collapsed_lines({"confusion": {"test": [[18, 0], [6, 0]]}})
    assert "predicts all 24 test cases as one and the same class" in line
    assert collapsed_lines({"confusion": {"test": [[18, 0], [5, 1]]}}) == []
    assert collapsed_lines({}) == []


def test_statistics_give_the_metrics_of_predictions_and_the_same_model(run, known):
    exact = known(2, "evaluation.share=predictions", "selection.keep=last")
    folder = run(rounds=2, overrides=["selection.keep=last"])
    assert folder.model_path.read_bytes() == exact.model_path.read_bytes()
    told, predicted = summary_of(folder), summary_of(exact)
    assert set(told) == set(predicted)
    assert told["confusion"] == predicted["confusion"]
    assert told["classes_absent"] == predicted["classes_absent"]
    for split in ("val", "test"):
        low, high = told["evaluation"]["intervals"][split]["auc"]
        for name, value in predicted["metrics"][split].items():
            # After two rounds few cases' scores are near each other still.
            near = (high - low) / 2 if name == "auc" else 0
            assert told["metrics"][split][name] == pytest.approx(value, abs=near + 1e-9)
    assert (told["evaluation"]["share"], told["evaluation"]["min_count"]) == ("statistics", 0)
    assert predicted["evaluation"] == {"share": "predictions", "min_count": 0, "intervals": {}}
    tracked = track.client().get_run(told["mlflow_run_id"]).data
    assert tracked.params["evaluation.share"] == "statistics"
    assert tracked.metrics["test/auc"] == told["metrics"]["test"]["auc"]


def test_of_metrics_alone_a_run_tells_what_follows_from_them(run, known):
    folder = run(rounds=1, overrides=METRICS)
    told, exact = summary_of(folder), summary_of(known(1, "evaluation.share=predictions"))
    overall = told["metrics"]["test"]
    assert {name for name, value in overall.items() if value is not None} == {"accuracy", "loss"}
    assert overall["accuracy"] == pytest.approx(exact["metrics"]["test"]["accuracy"])
    assert told["per_site"]["site-01"]["test"] == exact["per_site"]["site-01"]["test"]
    assert told["spread"] == exact["spread"]
    assert told["confusion"] == told["classes_absent"] == {}
    assert "test accuracy" in "\n".join(result_lines(folder.root))


SUMS = ["evaluation.share=sums", "compression.bits=8", "selection.keep=last"]


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("protection", ["secagg_plus", "packed_bfv"])
def test_of_sums_a_run_tells_what_all_sites_reach_and_nothing_of_one(
    run, known, in_process, protection
):
    exact = summary_of(known(1, "compression.bits=8", "selection.keep=last"))
    folder = run(rounds=1, overrides=[*SUMS, f"protection.name={protection}", *QUICK])
    told = summary_of(folder)
    for split in ("val", "test"):
        assert told["metrics"][split] == pytest.approx(exact["metrics"][split], abs=1e-5)
    assert told["confusion"] == exact["confusion"]
    assert told.keys() == exact.keys()
    assert set(told["per_site"]) == set(exact["per_site"])
    for own in (*told["per_site"].values(), *told["spread"]["test"].values()):
        assert set(own.get("test", own).values()) == {None}
    assert "not told" in "\n".join(result_lines(folder.root))
    tracked = track.client().get_run(told["mlflow_run_id"]).data
    assert tracked.metrics["test/auc"] == told["metrics"]["test"]["auc"]
    assert not [name for name in tracked.metrics if "site" in name and name.endswith("/auc")]
    own = json.loads(kept_at(folder, "site-00").evaluation_path(1).read_text())
    assert own["test"].keys() == told["metrics"]["test"].keys()
    assert messages(folder, "evaluation") == []


def test_a_site_that_drops_out_of_a_sum_is_told_to_be_in_no_metric(run, in_process, failing):
    failing("evaluate site-01 1")
    masked = ["protection.name=secagg_plus", "protection.min_sites=2", *QUICK]
    folder = run(rounds=1, overrides=[*SUMS, *masked, "sites.on_dropout=continue"])
    told, (record,) = summary_of(folder), folder.records()
    assert record["not_evaluated"] == {"site-01": "site-01 has no power."}
    # It has trained, and is in the sum of updates.
    assert record["sites"] == ["site-00", "site-01", "site-02"]
    assert told["evaluation"]["missing"] == record["not_evaluated"]
    assert "without the cases of site-01" in "\n".join(result_lines(folder.root))
    cases = folder.case_counts()
    there = sum(cases.cases(site, "test") for site in ("site-00", "site-02"))
    assert sum(map(sum, told["confusion"]["test"])) == there
    assert not list(folder.root.rglob("sites/*/runs/*/secagg/round-*.secret*"))


def test_bounds_are_told_where_a_metric_may_be_off_by_more_than_a_thousandth():
    shown = {"share": "statistics", "intervals": {"test": {"auc": [0.8, 0.81]}}}
    (line,) = evaluation_lines(shown)
    assert line.startswith("test auc lies between 0.8000 and 0.8100")
    # By that of the validation cases a round's model is kept.
    (line,) = evaluation_lines({**shown, "intervals": {"val": {"auc": [0.7, 0.71]}}})
    assert line.startswith("val auc lies between 0.7000 and 0.7100")
    assert evaluation_lines({**shown, "intervals": {"test": {"auc": [0.8, 0.8015]}}}) == []
    assert evaluation_lines({}) == []
