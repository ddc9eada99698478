"""What a page says of calibration: the numbers of the summary, and what they promise."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from federated.report.run_page import run_page
from federated.report.values import RunValues
from tests.federated.report.made_runs import made_run
from tests.federated.report.reading import Page, at, read

ASKED = {"calibration": "temperature", "conformal": {"alpha": 0.1}}


def calibrated(**changes: Any) -> RunValues:
    return made_run(changes={"evaluation": {**ASKED, **changes}})


def page_of(run: RunValues) -> Page:
    return read(run_page(run))


def shown(page: Page) -> set[str]:
    places = {str(element.attributes["data-at"]) for element in page.named("data")}
    return {place for place in places if place.startswith("/calibration")}


def test_temperature_coverage_and_size_are_on_the_page_as_the_summary_has_them():
    run = calibrated()
    page = page_of(run)
    for element in page.named("data"):
        value = float(str(element.attributes["value"]))
        assert value == at(run.summary, str(element.attributes["data-at"]))
    wanted = {
        "/calibration/temperature/temperature",
        *(
            f"/calibration/temperature/{k}/{w}"
            for k in ("loss", "ece")
            for w in ("before", "after")
        ),
        "/calibration/conformal/pooled/coverage",
        "/calibration/conformal/pooled/mean_size",
    }
    for site in run.summary["sites"]:
        own = f"/calibration/conformal/sites/{site}"
        wanted |= {f"{own}/own/{key}" for key in ("coverage", "mean_size", "cases")}
        wanted.add(f"{own}/pooled/coverage")
    assert wanted <= shown(page)


def test_reliability_is_drawn_before_and_after_the_temperature_and_coverage_of_each_site():
    run = calibrated()
    names = {str(e.attributes.get("aria-labelledby")) for e in page_of(run).named("svg")}
    assert {
        f"{name}-title {name}-desc"
        for name in ("reliability-before", "reliability-after", "coverage-dots")
    } <= names


def test_what_is_promised_and_what_is_not_stands_beside_the_numbers():
    said = " ".join(page_of(calibrated()).text.split())
    assert "the true one to be in it in 90 % of cases" in said
    assert (
        "It is none for a single class, for one kind of patient, or for another hospital." in said
    )
    assert "was chosen by the same validation cases" in said
    last = made_run(
        changes={"evaluation": ASKED, "selection": {"metric": "val/auc", "keep": "last"}}
    )
    assert "was chosen by the same validation cases" not in page_of(last).text


def test_a_coverage_that_chance_does_not_have_is_named():
    run = calibrated()
    told = run.summary["calibration"]["conformal"]["sites"]["site-01"]["own"]
    assert "Outside of that" not in page_of(replace(run, summary=alike(run.summary))).text
    low, high = told["by_chance"]
    for coverage in (low - 0.01, high + 0.001):
        summary = alike(run.summary)
        summary["calibration"]["conformal"]["sites"]["site-01"]["own"]["coverage"] = coverage
        assert "Outside of that: site-01." in page_of(replace(run, summary=summary)).text


def alike(summary: Any) -> Any:
    """A summary in which every coverage is one that chance has."""
    found = deepcopy(dict(summary))
    sets = found["calibration"]["conformal"]
    for each in (sets["pooled"], *(site["own"] for site in sets["sites"].values())):
        each["coverage"] = sum(each["by_chance"]) / 2
    return found


def test_of_sums_nothing_is_said_of_a_single_site():
    run = calibrated(share="sums")
    page = page_of(run)
    assert not any("/sites/" in place for place in shown(page))
    assert "/calibration/conformal/pooled/coverage" in shown(page)
    assert "nothing is known of the coverage at a single one" in " ".join(page.text.split())


@pytest.mark.parametrize("asked", [{"calibration": "temperature"}, {"conformal": {"alpha": 0.2}}])
def test_of_one_that_was_asked_for_alone_the_page_has_that_alone(asked):
    page = page_of(made_run(changes={"evaluation": asked}))
    other = "conformal" if "calibration" in asked else "temperature"
    assert shown(page)
    assert not any(other in place for place in shown(page))


def test_without_being_asked_the_page_says_nothing_of_it():
    page = page_of(made_run())
    assert not shown(page)
    assert "Calibration:" not in page.text
