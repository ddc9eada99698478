"""What a page and a card say of subgroups: the numbers of the summary, and what to beware of."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from federated.data.subgroups import group_names
from federated.learning.final_task import final_task
from federated.learning.flip_statistics import FLIP, FLIP_CASES
from federated.learning.subgroup_statistics import final_of, final_over_sites
from federated.release.card import card_of
from federated.release.card_text import card_markdown
from federated.report.run_page import run_page
from federated.report.values import RunValues
from federated.run.final_record import (
    final_numbers,
    final_record,
    read_groups,
    write_groups,
)
from tests.federated.release.made_models import PICTURES, VESSELS
from tests.federated.release.test_card import CLASSES, MODEL
from tests.federated.report.made_runs import CASES, made_run, predictions
from tests.federated.report.reading import at, read

GROUPS = {"sex": ["F", "M"], "age <b>": [40, 60]}
SITES = ("site-00", "site-01", "site-02")


def grouped(task: str = "classification", source: str = "files", **asked: Any) -> RunValues:
    """A made run whose sites have told of groups, and of flips where masks are learned."""
    flips = {"uncertainty": "flips"} if task == "segmentation" else {}
    changes = {"evaluation": {"subgroups": GROUPS, **flips, **asked}}
    run = made_run(task, CLASSES[task], changes=changes, source=source)
    settings, rng = run.experiment.evaluation, np.random.default_rng(0)
    what = final_task(run.info, settings)
    sent = {}
    for number, site in enumerate(SITES):
        own = predictions(run.info, CASES["test"], rng, 0.5)
        if flips:
            own |= {FLIP: rng.uniform(0, 0.2, (80, 3)), FLIP_CASES: np.ones((80, 3), bool)}
            own["patients"] = np.arange(80)
        places = {
            "sex": np.repeat([0, 1, 2], [40, 39, 1] if not number else [40, 40, 0]),
            "age <b>": rng.integers(0, 3, 80),
        }
        sent[site] = final_of(what, own, places)
    sums = final_over_sites(what, sent)
    missing = {"site-02": "it has no power"}
    return replace(
        run,
        summary={**run.summary, **final_record(sums, missing, settings)},
        groups={
            name: [group.statistics for group in groups] for name, groups in sums.groups.items()
        },
    )


@pytest.mark.parametrize("task", CLASSES)
def test_every_number_is_that_of_the_summary_and_counts_stand_beside_metrics(task):
    run = grouped(task)
    page = read(run_page(run))
    shown = set()
    for element in page.named("data"):
        place = str(element.attributes["data-at"])
        assert float(str(element.attributes["value"])) == at(run.summary, place)
        shown.add(place)
    primary = {"regression": "mae", "segmentation": "dice"}.get(task, "auc")
    for place in range(len(group_names(("F", "M")))):
        path = f"/subgroups/attributes/sex/{place}"
        assert f"{path}/cases" in shown
        told = run.summary["subgroups"]["attributes"]["sex"][place]["metrics"].get(primary)
        assert (f"{path}/metrics/{primary}" in shown) == (told is not None)
    assert ("/uncertainty/metrics/flip_variance_wrong" in shown) == (task == "segmentation")


@pytest.mark.parametrize("task", CLASSES)
def test_a_card_has_a_table_for_each_attribute(task):
    header = VESSELS if task == "segmentation" else PICTURES
    card = card_markdown(card_of(grouped(task), replace(MODEL, header=header)))
    part = card.split("## Groups of patients")[1].split("## Calibration")[0]
    assert "| F | 120 |" in part
    assert "age \\<b\\>" in part
    assert "Not run" not in part
    assert ("mean variance over flips" in card) == (task == "segmentation")


def test_few_cases_are_warned_of_and_intervals_stand_below():
    run = grouped()
    page = read(run_page(run))
    text = " ".join(page.text.split())
    assert "Some groups have fewer than 30 test cases." in text
    assert "Without these sites: site-02: it has no power" in text
    assert "AUC: DeLong's method over cases, from histograms of few bins" in text
    assert "age <b>" in page.text
    told = run.summary["subgroups"]["attributes"]["sex"][0]["metrics"]["accuracy"]
    assert f"{told:.3f}" in text


def test_hidden_groups_are_told_as_such_and_not_as_zeros():
    run = grouped(min_count=3)
    text = " ".join(read(run_page(run)).text.split())
    assert "A site hides a group where fewer than 3 of its cases" in text
    groups = run.summary["subgroups"]["attributes"]["sex"]
    assert any(group["hidden_by"] for group in groups)


def test_generated_images_are_told_as_such_beside_their_groups():
    text = " ".join(read(run_page(grouped(source="phantom"))).text.split())
    assert "Of generated images, so of no patient." in text
    card = card_markdown(card_of(grouped(source="phantom"), MODEL))
    assert "these are groups of no patients" in card


def test_without_being_asked_page_and_card_have_nothing_of_it():
    text = read(run_page(made_run())).text
    assert "Groups of patients, on test cases" not in text
    assert "image turned over" not in text
    assert "nobody asked for metrics of such groups" in " ".join(text.split())


def test_sums_of_groups_survive_being_written_and_read(tmp_path):
    run = grouped(min_count=3)
    what = final_task(run.info, run.experiment.evaluation)
    rng = np.random.default_rng(1)
    own = predictions(run.info, 20, rng, 0.5)
    places = {"sex": np.repeat([0, 1], [19, 1]), "age <b>": np.zeros(20, np.int64)}
    sums = final_over_sites(what, {"a": final_of(what, own, places)})
    write_groups(tmp_path / "groups.safetensors", sums)
    found = read_groups(tmp_path / "groups.safetensors", what)
    assert read_groups(tmp_path / "none", what) == {}
    for name, groups in sums.groups.items():
        for group, again in zip(groups, found[name], strict=True):
            assert (group.statistics is None) == (again is None)
            if again is not None:
                assert again.cases == group.statistics.cases
                assert again.withheld == group.statistics.withheld


def test_numbers_for_a_tracker_have_a_name_for_each_group():
    run = grouped("segmentation")
    found = final_numbers(run.summary)
    assert found["subgroups/sex/F/cases"] == 120
    assert 0 < found["test/flip_variance"] < 0.25
    assert all(isinstance(value, float) for value in found.values())


def test_one_case_that_is_right_has_an_interval_that_says_how_little_that_is():
    run = grouped()
    text = " ".join(read(run_page(run)).text.split())
    # Of the one case of neither sex: Wilson's interval of 1 of 1.
    assert "0.207 to 1.000" in text
    assert "1.000 to 1.000" not in text
