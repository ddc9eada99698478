import numpy as np
import pytest
import yaml
from matplotlib import image
from scipy import stats

from federated.comparison.figure import comparison_figure
from federated.comparison.grid import PlannedRun, planned_runs
from federated.comparison.results_page import put_table
from federated.comparison.significance import paired_p
from federated.comparison.table import Result, markdown, per_site_markdown, rows
from federated.configuration.load import load_experiment
from federated.errors import ConsiliumError
from federated.learning import CLASSIFICATION, SEGMENTATION
from federated.stages.sensitivity import mean_shares, sensitivity_figure
from tests.conftest import TINY_PARAMS


@pytest.fixture
def params(tmp_path):
    path = tmp_path / "params.yaml"
    variants = {"medhe": {"compression": {"name": "shared_mask", "density": 0.05}}}
    path.write_text(yaml.safe_dump({**TINY_PARAMS, "variants": variants}, sort_keys=False))
    return path


def result(label, seed, auc):
    metrics = dict.fromkeys(
        ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "ece"), 0.5
    )
    summary = {
        "metrics": {"test": {"auc": auc, **metrics}},
        "spread": {"test": {"auc": {"mean": auc - 0.05, "worst": auc - 0.1, "sd": 0.05}}},
        "bytes": {"up": 2_000_000, "down": 3_000_000},
        "seconds": {"total": 10.0},
        "privacy": {"epsilon": None},
    }
    record = {"metrics": {"test": {"auc": auc}}, "bytes": {"up": 1, "down": 1}}
    return Result(PlannedRun(label, seed, ()), summary, [record])


def test_rounds_are_those_of_every_run(params):
    planned = planned_runs("tiny", ["fedavg", "fedprox:mu=0.1"], 2, [], params, 5)
    assert {load_experiment("tiny", run.overrides, params).rounds for run in planned} == {5}


def test_runs_go_seed_by_seed_so_that_pairs_are_complete_early(params):
    planned = planned_runs("tiny", ["fedavg", "fedprox:mu=0.1"], 2, ["rounds=4"], params)
    assert [(run.label, run.seed) for run in planned] == [
        *(("fedavg", 0), ("fedprox:mu=0.1", 0)),
        *(("fedavg", 1), ("fedprox:mu=0.1", 1)),
    ]
    assert planned[3].overrides == (
        *("rounds=4", "strategy.name=fedprox", "strategy.mu=0.1", "seed=1"),
    )


def test_seeds_begin_at_the_experiments_own(params):
    planned = planned_runs("tiny", ["fedavg"], 2, ["seed=10"], params)
    assert [(run.seed, run.overrides[-1]) for run in planned] == [
        (10, "seed=10"),
        (11, "seed=11"),
    ]


@pytest.mark.parametrize("share", ["share=metrics", "min_count=5"])
def test_without_a_value_over_all_sites_nothing_is_compared(params, share):
    settings = [f"evaluation.{share}", "selection.metric=val/loss"]
    with pytest.raises(ConsiliumError, match=r"compared by AUC.*evaluation\.share=statistics or"):
        planned_runs("tiny", ["fedavg"], 1, settings, params)


def test_a_variant_overlays_sections(params):
    (planned,) = planned_runs("tiny", ["fedavg+medhe"], 1, [], params)
    assert planned.overrides == (
        *("strategy.name=fedavg", "compression.name=shared_mask", "compression.density=0.05"),
        "seed=0",
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["fedprox mu"], "not of the form"),
        (["fedpro"], "fedpro"),
        (["fedavg:mu=1"], r"strategy\.mu"),
        (["fedprox:mu=-1"], r"strategy\.mu=-1"),
        (["fedavg+tl"], "needs an entry"),
        (["fedavg+medh"], r"no variant 'medh'.*Did you mean 'medhe'\?"),
        (["fedavg", "fedavg"], "named twice"),
    ],
)
def test_a_label_that_cannot_be_run_is_refused_before_anything_runs(params, labels, message):
    with pytest.raises(ConsiliumError, match=message):
        planned_runs("tiny", labels, 1, [], params)


def test_a_row_holds_mean_sample_deviation_and_the_paired_test_against_fedavg():
    ours, theirs = [0.80, 0.86, 0.83], [0.78, 0.85, 0.79]
    results = [result("fedavg", seed, auc) for seed, auc in enumerate(theirs)]
    results += [result("fedprox", seed, auc) for seed, auc in enumerate(ours)]
    fedavg, fedprox = rows(results)
    assert fedprox["auc"] == pytest.approx({"mean": 0.83, "sd": np.std(ours, ddof=1)})
    assert fedprox["difference"] == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert fedprox["p"] == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    # All three differences have one sign: the smallest p that three pairs can have.
    assert fedprox["p_wilcoxon"] == pytest.approx(0.25)
    assert (fedavg["difference"], fedavg["p"]) == (None, None)
    assert (fedprox["megabytes_up"], fedprox["megabytes_down"]) == (2.0, 3.0)
    assert fedprox["worst_site"] == pytest.approx(0.73)
    assert fedprox["mean_site"] == pytest.approx(0.78)


def test_only_seeds_that_both_have_are_paired():
    results = [result("fedavg", seed, auc) for seed, auc in enumerate([0.7, 0.8])]
    results += [result("fedprox", 1, 0.9)]
    row = rows(results)[1]
    assert row["difference"] == pytest.approx(0.1)
    assert row["p"] is None
    assert row["auc"]["sd"] is None


def test_without_fedavg_the_first_label_is_what_others_are_compared_with():
    table = rows([result("fedadam", 0, 0.7), result("fedadam+dp", 0, 0.6)])
    assert [row["baseline"] for row in table] == ["fedadam", "fedadam"]
    assert table[1]["difference"] == pytest.approx(-0.1)
    assert "| AUC − fedadam |" in markdown(table, CLASSIFICATION, "command", "")


def test_rounds_to_90_percent_are_counted_in_rounds_that_were_evaluated():
    scores = [0.2, None, 0.69, 0.75, None, 0.8]
    found = result("fedavg", 0, 0.8)
    records = [
        {**found.records[0], "metrics": score and {"test": {"auc": score}}} for score in scores
    ]
    table = rows([Result(found.planned, found.summary, records)])
    assert table[0]["rounds_to_most"] == 4
    assert rows([Result(found.planned, found.summary, records[:1])])[0]["rounds_to_most"] is None


def test_equal_differences_have_no_p():
    assert paired_p([0.5, 0.75], [0.25, 0.5]) == {"p": None, "p_wilcoxon": 0.5}
    assert paired_p([0.5, 0.75], [0.5, 0.75]) == {"p": None, "p_wilcoxon": None}


def test_the_table_shows_its_command_first_and_every_label():
    text = markdown(
        rows([result("fedavg", 0, 0.7)]), CLASSIFICATION, "consilium compare x", "A note."
    )
    assert text.splitlines()[0] == "`consilium compare x`"
    assert "| fedavg | 0.700 |" in text


def test_privacy_has_a_column_and_a_panel_where_there_is_any(tmp_path):
    public, private = result("fedavg", 0, 0.9), result("fedavg+dp", 0, 0.8)
    private.summary["privacy"]["epsilon"] = 7.99
    assert "ε" not in markdown(rows([public]), CLASSIFICATION, "command", "")
    both = markdown(rows([public, private]), CLASSIFICATION, "command", "")
    assert "| fedavg+dp | 7.99 |" in both
    for results, width in (([public], 12), ([public, private], 16)):
        comparison_figure(results, tmp_path / "auc.png", "title")
        assert image.imread(tmp_path / "auc.png").shape[1] == width * 130


def test_a_table_replaces_its_own_older_one_and_leaves_the_page_alone(tmp_path):
    page = tmp_path / "results.md"
    page.write_text("# Results\n\nText.\n")
    put_table(page, "`one`\n| 1 |\n")
    put_table(page, "`two`\n| 2 |\n")
    put_table(page, "`one`\n| 3 |\n")
    text = page.read_text()
    assert text.startswith("# Results\n\nText.\n")
    assert "| 1 |" not in text
    assert text.index("| 3 |") < text.index("| 2 |")
    assert text.count("<!-- table") == 2


def test_a_page_with_half_a_mark_is_refused_and_left_as_it_was(tmp_path):
    page = tmp_path / "results.md"
    put_table(page, "`one`\n")
    broken = page.read_text().split("<!-- end")[0]
    page.write_text(broken)
    with pytest.raises(ConsiliumError, match="only one of the marks"):
        put_table(page, "`one`\n")
    assert page.read_text() == broken


def segmented(label, seed, dice):
    per_site = {
        site: {"test": {"dice": dice + more, "hd95": 2.0, "assd": 0.5}}
        for site, more in (("site-a", 0.1), ("site-b", -0.1))
    }
    summary = {"task": "segmentation", "sites": ["site-a", "site-b"], "per_site": per_site}
    return Result(PlannedRun(label, seed, ()), summary, [])


def test_in_segmentation_every_site_has_its_own_means_over_seeds():
    text = per_site_markdown(
        [segmented("fedavg", 0, 0.5), segmented("fedavg", 1, 0.7), segmented("resfim", 0, 0.8)]
    )
    assert "At each site: Dice / HD95 / ASSD" in text
    assert "| fedavg | 0.700 / 2.00 / 0.50 | 0.500 / 2.00 / 0.50 |" in text
    assert "| resfim | 0.900 / 2.00 / 0.50 | 0.700 / 2.00 / 0.50 |" in text


def test_of_other_tasks_every_site_has_the_metric_that_models_are_judged_by():
    found = [result("fedavg", seed, auc) for seed, auc in enumerate([0.7, 0.9])]
    for at, each in enumerate(found):
        # One site has no case of a class, so that its AUC has no value.
        told = {"site-a": {"auc": 0.6 + at / 10, "f1": 0.1}, "site-b": {"auc": None, "f1": 0.1}}
        each.summary["sites"] = list(told)
        each.summary["per_site"] = {site: {"test": values} for site, values in told.items()}
    assert per_site_markdown(found).splitlines()[1:] == [
        *("At each site: AUC", "", "| strategy | site-a | site-b |", "| --- | --- | --- |"),
        "| fedavg | 0.650 | - |",
    ]


def test_where_a_site_has_not_told_its_evaluation_none_is_compared():
    silent = result("fedavg", 0, 0.8)
    silent.summary["sites"], silent.summary["per_site"] = ["site-a"], {}
    assert per_site_markdown([silent]) == ""


def test_the_figure_of_sensitive_layers_is_drawn_from_means_over_seeds(tmp_path):
    one = {"site-a": {"down.0": 0.2, "head": 0.0}, "site-b": {"down.0": 0.4, "head": 0.1}}
    two = {"site-a": {"down.0": 0.4, "head": 0.2}, "site-b": {"down.0": 0.4, "head": 0.1}}
    shares = mean_shares([one, two])
    assert shares["site-a"] == pytest.approx({"down.0": 0.3, "head": 0.1})
    sensitivity_figure(shares, tmp_path / "layers.png", "two seeds")
    drawn = image.imread(tmp_path / "layers.png")
    assert len(np.unique(drawn.reshape(-1, drawn.shape[-1]), axis=0)) > 20


def test_a_metric_without_a_value_is_a_dash():
    """As where no case of a split, or of a site, has a class."""
    found = [scored(label, seed, None) for label in ("fedavg", "local") for seed in (0, 1)]
    table = markdown(rows(found), SEGMENTATION, "", "")
    assert "| fedavg | - | - | - |" in table
    assert "nan" not in table
    assert "| fedavg | - / - / - |" in per_site_markdown(found)


def test_a_comparison_without_any_value_has_an_empty_figure(tmp_path):
    found = [scored(label, 0, None) for label in ("fedavg", "local")]
    comparison_figure(found, tmp_path / "dice.png", "nothing")
    assert (tmp_path / "dice.png").is_file()


def scored(label, seed, value):
    """A finished run of a segmentation, with one value for all of its metrics."""
    values = dict.fromkeys(("dice", "hd95", "assd"), value)
    summary = {
        "task": "segmentation",
        "sites": ["site-a"],
        "metrics": {"test": values},
        "spread": {"test": {"dice": {"mean": value, "worst": value, "sd": value}}},
        "per_site": {"site-a": {"test": values}},
        "bytes": {"up": 2_000_000, "down": 3_000_000},
        "seconds": {"total": 10.0},
        "privacy": {"epsilon": None},
    }
    record = {"metrics": {"test": values}, "bytes": {"up": 1, "down": 1}}
    return Result(PlannedRun(label, seed, ()), summary, [record])
