"""A comparison's page: its numbers, its tests over seeds, and a script that only sorts."""

import re
from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import pytest

from federated.comparison.significance import difference_interval, holm
from federated.report.charts import APART, Frame, Point, on_frontier, set_apart
from federated.report.comparison_page import comparison_page
from tests.federated.report.made_runs import made_comparison
from tests.federated.report.reading import at, read
from tests.federated.report.test_run_page import NO_NUMBERS, drawn_numbers, everywhere

ATTACK = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def document():
    return made_comparison(["fedavg", "fedprox:mu=0.1", "local"], 5, {"fedprox:mu=0.1": 4.0})


def test_every_number_is_that_of_the_document(document):
    shown = read(comparison_page(document)).named("data")
    places = {element.attributes["data-at"] for element in shown}
    assert {f"/rows/{n}/{key}" for n in (1, 2) for key in ("p", "p_holm", "difference")} <= places
    assert {f"/rows/{n}/auc/mean" for n in (0, 1, 2)} <= places
    for element in shown:
        value = at(document, element.attributes["data-at"])
        assert float(element.attributes["value"]) == value
        said = float(element.text.replace("−", "-"))
        assert said == pytest.approx(value, rel=5e-3, abs=5e-3)


def test_both_frontiers_and_a_phantom_are_told(document):
    text = read(comparison_page(document)).text
    assert "Test AUC against megabytes up and down, all sites." in text
    assert "Test AUC against composed ε of the run." in text
    assert "phantom" not in text
    made = {**document, "runs": [{"data_source": "phantom"}]}
    assert "Generated images (phantom)" in read(comparison_page(made)).text


def test_without_privacy_there_is_no_frontier_of_it():
    text = read(comparison_page(made_comparison(["fedavg", "fedbn"], 3))).text
    assert "No run was private" in text
    assert "composed ε" not in text


def test_few_seeds_are_said_to_show_nothing():
    text = read(comparison_page(made_comparison(["fedavg", "fedbn"], 2))).text
    assert "with 2 pairs of seeds one cannot tell" in text
    assert "more than chance (p" not in text
    more = read(comparison_page(made_comparison(["fedavg", "fedbn"], 5))).text
    assert "higher by more than chance" in more
    assert "Wilcoxon's test has no p below 0.0625" in more


def test_the_script_is_the_only_one_and_known_by_its_hash(document):
    html = comparison_page(document)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    policies = [str(e.attributes.get("content")) for e in read(html).named("meta")]
    assert [p for p in policies if f"script-src 'sha256-{digest}';" in p]
    for word in ("fetch", "XMLHttpRequest", "innerHTML", "eval", "import", "document.write"):
        assert word not in script


def test_labels_and_sites_are_text_and_never_markup(document):
    evil = f"fedprox:mu=0.1{ATTACK}"
    rows = [
        {**row, "label": row["label"] + ATTACK, "baseline": row["baseline"] + ATTACK}
        for row in document["rows"]
    ]
    sites = [{**row, "site": row["site"] + ATTACK} for row in document["sites"]]
    named = {"experiment": evil, "command": evil, "note": evil, "rows": rows, "sites": sites}
    html = comparison_page({**document, **named})
    assert ATTACK not in html
    assert len(read(html).named("script")) == 1


def test_holm_is_the_published_procedure():
    # Of Holm's procedure: 0.01 · 4, then the largest of that and 0.02 · 3, and so on.
    assert holm([0.02, 0.01, None, 0.04, 0.03]) == pytest.approx([0.06, 0.04, None, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([None]) == [None]
    assert holm([]) == []


def test_chance_is_taken_for_a_difference_in_no_more_than_one_of_twenty_comparisons():
    """Eight strategies that do not differ: uncorrected, a third of comparisons would find one."""
    from federated.comparison.significance import paired_p

    rng, found, uncorrected = np.random.default_rng(1), 0, 0
    for _ in range(300):
        scores = rng.normal(size=(9, 6))
        values = [paired_p(list(own), list(scores[0]))["p"] for own in scores[1:]]
        found += min(holm(values)) < 0.05
        uncorrected += min(values) < 0.05
    assert found <= 0.085 * 300
    assert uncorrected > 0.15 * 300


def test_the_interval_of_a_difference_is_students():
    low, high = difference_interval([0.5, 0.7, 0.9], [0.4, 0.5, 0.6])
    half = 4.302653 * 0.1 / 3**0.5
    assert [low, high] == pytest.approx([0.2 - half, 0.2 + half], abs=1e-6)
    assert difference_interval([0.5], [0.4]) is None
    assert difference_interval([0.5, np.nan], [0.4, 0.4]) is None


@dataclass(frozen=True)
class _Case:
    point: tuple[float, float]
    on: bool


def test_the_frontier_is_of_what_nothing_cheaper_beats():
    cases = [_Case((1, 0.5), True), _Case((2, 0.7), True), _Case((2, 0.6), False)]
    cases += [_Case((3, 0.7), False), _Case((4, 0.9), True)]
    points = [Point(str(n), *case.point, n) for n, case in enumerate(cases)]
    assert [on_frontier(point, points) for point in points] == [case.on for case in cases]


@pytest.mark.parametrize("number", NO_NUMBERS)
def test_what_is_no_finite_number_is_in_no_figure_and_in_no_sentence(document, number):
    html = comparison_page(everywhere(document, number))
    text = read(html).text
    assert "There is no figure: no strategy has a finite AUC and a cost." in text
    assert "chart" not in drawn_numbers(html)
    assert not re.search(r"[^a-z](nan|inf)[^a-z]", text.lower())


def test_a_strategy_without_a_number_is_named_below_the_figure(document):
    first = document["rows"][0]
    rows = [first, {**document["rows"][1], "auc": {"mean": float("nan"), "sd": None}}]
    html = comparison_page({**document, "rows": rows, "sites": []})
    said = "Without a finite number, and not drawn: fedprox:mu=0.1."
    assert said in read(html).text
    assert not re.search(r"[^a-z](nan|inf)[^a-z]", drawn_numbers(html))


def test_a_strategy_that_spends_next_to_nothing_is_drawn(document):
    for epsilon in (0.0, 1e-200):
        rows = [{**row, "epsilon": epsilon if n else 4.0} for n, row in enumerate(document["rows"])]
        html = comparison_page({**document, "rows": rows})
        assert f"{epsilon:.3g} ε" in drawn_numbers(html)


def test_every_run_of_a_frontier_is_seen_and_those_set_aside_are_named(document):
    first = document["rows"][0]
    labels = ["fedavg", "fedprox:mu=0.1", "fedbn", "scaffold", "ditto"]
    rows = [{**first, "label": label} for label in labels]
    html = comparison_page({**document, "rows": rows, "sites": [], "curves": {}})
    (picture,) = re.findall(r'<svg class="chart.*?</svg>', html, re.DOTALL)
    places = [
        tuple(map(float, place))
        for place in re.findall(r'translate\(([\d.]+) ([\d.]+)\)" class="mark', picture)
    ]
    assert len(places) == len(labels)
    for number, (x, y) in enumerate(places):
        assert all(abs(x - a) >= APART or abs(y - b) >= APART for a, b in places[:number])
    assert f"so that each mark is seen: {', '.join(labels[1:])}." in read(html).text


def test_marks_that_hide_nothing_are_where_they_belong():
    frame = Frame((0, 1), (0, 1))
    points = [Point(str(n), 0.5, 0.1 * n, n) for n in range(8)]
    assert set(set_apart(frame, points)) == {frame.scales()[0](0.5)}


def test_one_round_makes_no_curve_and_a_sentence(document):
    curves = {row["label"]: [[3, 0.7]] for row in document["rows"]}
    text = read(comparison_page({**document, "curves": curves})).text
    assert "no curves by round: test AUC is known after round 3 alone" in text
    assert "Test AUC after each round" not in text


def test_it_says_of_which_metric_and_which_runs_the_worst_site_is(document):
    html = comparison_page(document)
    heads = [element.text for element in read(html).named("th")]
    assert "worst site’s AUC" in heads
    assert "in each run the lowest AUC that any site has on its own test cases" in read(html).text
    assert "the mean over a strategy's runs, one for each seed" in read(html).text
