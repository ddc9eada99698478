"""A run's page: what it says, what it must not say, and that others' words are text in it."""

import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from typing import Any, get_args

import pytest

from federated.configuration.experiment import Experiment
from federated.report.intervals import intervals_of
from federated.report.run_page import run_page
from federated.report.values import MOST_LISTED, RunValues
from federated.report.words import (
    left_sites,
    protection_sentences,
    said_of,
    training_sentences,
)
from tests.federated.report.made_runs import DP_SGD, made_run
from tests.federated.report.reading import Page, at, read

ATTACK = "<script>alert(1)</script>"
PROCESSES = {"name": "processes", "workers": 2}
IN_QUOTES = "\"' onload=alert(1) x='"


@pytest.fixture(scope="module")
def plain() -> RunValues:
    return made_run()


@pytest.fixture(scope="module")
def private() -> RunValues:
    return made_run(changes={"privacy": DP_SGD})


@pytest.fixture(scope="module")
def segmented() -> RunValues:
    run = made_run("segmentation", ("background", "anterior", "posterior"))
    return replace(
        run, pictures={"site-00-worst": b"\x89PNG\r\n\x1a\n", "site-00-best": b"\x89PNG"}
    )


@pytest.mark.parametrize("part", ["strategy", "privacy", "compression", "protection"])
def test_what_an_implementation_does_is_said_without_the_marks_of_a_docstring(part):
    for implementation in get_args(Experiment.model_fields[part].annotation):
        name = get_args(implementation.model_fields["name"].annotation)[0]
        said = said_of(implementation.model_construct(name=name))
        assert said.startswith(f"{name} (")
        assert "`" not in said


def page_of(run: RunValues) -> Page:
    return read(run_page(run))


@pytest.mark.parametrize("which", ["plain", "private", "segmented"])
def test_every_number_on_the_page_is_that_of_the_summary(which, request):
    run: RunValues = request.getfixturevalue(which)
    shown = page_of(run).named("data")
    assert len(shown) > 30
    for element in shown:
        pointer, value = element.attributes["data-at"], element.attributes["value"]
        assert float(value) == at(run.summary, pointer), pointer
        scales = (1, 1e3, 1e6, 1e9, 60, 3600, 1e-3)
        said = float(element.text.replace("−", "-"))
        digits = len(element.text.partition(".")[2])
        assert any(
            float(f"{float(value) / scale:.{digits}f}") == said
            or float(f"{float(value) / scale:.3g}") == said
            for scale in scales
        ), (pointer, value, element.text)


@pytest.mark.parametrize("which", ["plain", "private", "segmented"])
def test_the_main_numbers_are_there(which, request):
    run: RunValues = request.getfixturevalue(which)
    places = {element.attributes["data-at"] for element in page_of(run).named("data")}
    metric = "dice" if which == "segmented" else "auc"
    wanted = {f"/metrics/test/{metric}", f"/metrics/val/{metric}", f"/spread/test/{metric}/worst"}
    wanted |= {f"/per_site/{site}/test/{metric}" for site in run.summary["sites"]}
    wanted |= {"/bytes/up", "/bytes/down", "/seconds/total", "/seed"}
    if which == "private":
        wanted |= {"/privacy/epsilon", "/privacy/epsilon_patient"}
        wanted |= {f"/privacy/per_site/{site}/budget" for site in run.summary["sites"]}
    else:
        wanted |= {"/seconds/overhead", "/peak_rss_mb"}
    assert wanted <= places


def test_a_phantom_is_told_before_anything_else(plain):
    first = "Generated images (phantom): no number on this page says anything about patients."
    generated = page_of(made_run(source="phantom")).text
    assert generated.split("To the content")[1].strip().startswith(first)
    assert first not in page_of(plain).text
    assert "phantom" not in page_of(plain).text


def test_nothing_is_loaded_and_nothing_but_its_own_style_is_applied(segmented):
    html = run_page(segmented)
    page = read(html)
    (policy,) = (
        element.attributes["content"]
        for element in page.named("meta")
        if element.attributes.get("http-equiv") == "Content-Security-Policy"
    )
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    digest = b64encode(sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; script-src 'none'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    for element in page.elements:
        assert element.name not in {"script", "link", "iframe", "object", "embed", "form", "base"}
        assert "style" not in element.attributes
        assert not [name for name in element.attributes if name.startswith("on")]
        for name in ("src", "href"):
            value = element.attributes.get(name, "#")
            assert value.startswith(("#", "data:image/png;base64,")), value
    assert "url(" not in style
    assert "@import" not in style


def hostile(run: RunValues) -> RunValues:
    """The same run in the words of sites, data and messages that would rather be markup."""
    evil = f"evil{ATTACK}{IN_QUOTES}"
    first = run.summary["sites"][0]
    summary: dict[str, Any] = {
        **run.summary,
        "experiment": evil,
        "run_id": evil,
        "git_commit": evil,
        "overrides": [f"data.dataset={evil}"],
        "sites": [evil, *run.summary["sites"][1:]],
        "per_site": {evil if s == first else s: v for s, v in run.summary["per_site"].items()},
        "absent": {evil: f"no power {ATTACK}\x1b[2J\u202e"},
        "not_evaluated": {evil: ATTACK},
        "classes_absent": {"test": [evil]},
        "versions": {evil: evil},
    }
    own = summary["per_site"][evil]
    summary["per_site"][evil] = {**own, "classes_absent": {"test": [evil]}}
    if run.private:
        own = run.summary["privacy"]["per_site"][first]
        summary["privacy"] = {**run.summary["privacy"], "per_site": {evil: own}}
        summary["privacy"]["unreported"] = [evil]
    records = [
        {**r, "per_site": {evil if s == first else s: v for s, v in r["per_site"].items()}}
        for r in run.records
    ]
    classes = (run.info.classes[0], evil, *run.info.classes[2:])
    info = replace(run.info, name=evil, classes=classes, licence=evil)
    findings = [{"rule": evil, "said": evil, "where": [evil] * 9, "rows": []}]
    validation = {
        "failures": {evil: [evil]},
        "broken": {evil: findings},
        "excluded_sites": [evil],
        "dropped": {evil: {"train": 9}},
        "sites": [evil],
    }
    pictures = {f"{evil}-worst": b"\x89PNG"} if run.pictures else {}
    cases = {evil: run.cases[first], **run.cases}
    return replace(
        run,
        summary=summary,
        records=records,
        info=info,
        validation=validation,
        pictures=pictures,
        cases=cases,
    )


@pytest.mark.parametrize("which", ["plain", "private", "segmented"])
def test_words_of_sites_and_data_are_text_and_never_markup(which, request):
    html = run_page(hostile(request.getfixturevalue(which)))
    page = read(html)
    assert "alert(1)" in page.text
    assert ATTACK not in html
    assert not page.named("script")
    for element in page.elements:
        assert not [name for name in element.attributes if name.startswith("on")], element
    # Nor do they command whoever reads the page's source in a terminal, or turn letters around.
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_every_figure_has_a_name_and_a_text_in_its_place(segmented, plain):
    for run in (segmented, plain):
        page = page_of(run)
        names = [e.attributes["id"] for e in page.elements if e.attributes.get("id")]
        assert len(names) == len(set(names))
        drawn = [e for e in page.named("svg") if e.attributes.get("aria-hidden") != "true"]
        assert len(drawn) >= 5
        texts = {e.attributes["id"]: e.text for e in page.elements if e.attributes.get("id")}
        for figure in drawn:
            assert figure.attributes["role"] == "img"
            title, description = figure.attributes["aria-labelledby"].split()
            assert texts[title].strip()
            assert len(texts[description]) > 20
        for picture in page.named("img"):
            assert "true mask" in picture.attributes["alt"]


def test_pictures_are_on_the_page_unless_they_are_left_out(segmented):
    assert len(page_of(segmented).named("img")) == 2
    assert "--without-pictures" in page_of(segmented).text
    without = page_of(replace(segmented, pictures={}))
    assert not without.named("img")
    assert "Pictures of some test cases" not in without.text


def test_a_private_run_has_no_times_of_stages_and_no_finding_of_a_case(private):
    found = {
        "failures": {"site-01": ["this is told in the site's own report"]},
        "excluded_sites": [],
        "dropped": {"site-01": {"train": 1}},
        "sites": ["site-00", "site-01"],
    }
    page = page_of(replace(private, validation=found))
    assert "Times of stages are not told" in page.text
    assert not [e for e in page.named("svg") if "times-title" in str(e.attributes)]
    assert "told in the site's own report" in page.text


def test_files_that_break_a_rule_are_counted_and_not_named(plain):
    broken = {"site-01": [{"rule": "no empty image", "said": "", "where": ["jane-doe.nii"] * 3}]}
    report = {"failures": {"site-01": ["no empty image (jane-doe.nii)"]}, "broken": broken}
    html = run_page(replace(plain, validation={**report, "sites": ["site-01"]}))
    assert "jane-doe" not in html
    assert "no empty image" in html
    assert "3 cases" in html


def test_counts_below_min_count_are_not_told(plain):
    run = made_run(changes={"evaluation": {"share": "statistics", "min_count": 5}})
    # As if a site had told what it should not have.
    summary = {**run.summary, "confusion": {"test": [[4, 70], [0, 166]]}}
    broken = {"site-01": [{"rule": "no empty image", "where": ["x"] * 3}]}
    validation = {"failures": {}, "broken": broken, "dropped": {"site-02": {"train": 2}}}
    page = page_of(replace(run, summary=summary, validation=validation))
    cells = [e.text for e in page.named("td")]
    assert "<5" in cells
    assert "4" not in cells
    assert "5%" not in page.text.split("What was taken for what")[1][:400]
    assert page.text.count("fewer than 5 cases") == 2


def test_what_epsilon_means_is_said_with_its_unit_and_delta(private):
    text = " ".join(page_of(private).text.split())
    assert "ε = 7.94 and δ = 10⁻⁵, for each training case, composed over all rounds" in text
    assert "change by a factor of at most eε = 2800" in text
    assert "one in 100 000" in text
    assert "recognises at most 99.96 % of those that were" in text
    assert "A patient has up to 2 training cases here; for such a patient ε is 17.5." in text
    assert "Validation and test cases are not covered" in text


def test_seeded_noise_is_said_to_protect_nobody():
    run = made_run(changes={"privacy": {**DP_SGD, "noise": "seeded"}})
    text = page_of(run).text
    assert "so it protects nobody" in text
    assert "kept nowhere" not in text
    assert "whoever knows it can take it away again" in text


def test_where_sites_share_the_noise_the_guarantee_is_said_to_be_of_sums():
    alone = "sees all that its site sent in this run"
    assert alone in page_of(made_run(changes={"privacy": DP_SGD})).text
    settings = {"name": "site_level_distributed", "clip": 1.0, "epsilon": 8, "delta": 1e-4}
    protection = {"protection": {"name": "secagg_plus"}, "compression": {"name": "none", "bits": 8}}
    text = page_of(made_run(changes={"privacy": settings, **protection})).text
    assert alone not in text
    assert "sees the sums of the run over all sites" in text
    assert "It holds in the sum alone" in text


def test_a_run_of_an_older_version_that_does_not_say_when_it_was_resumed_has_its_page():
    run = made_run()
    summary = {k: v for k, v in run.summary.items() if k != "rounds_before_resume"}
    assert "Bytes and time" in page_of(replace(run, summary=summary)).text


def test_a_run_without_privacy_says_so(plain):
    text = page_of(plain).text
    assert "There is no differential privacy in this run." in text
    assert "lets an attacker do" not in text


@pytest.mark.parametrize("share", ["sums", "metrics", "predictions"])
def test_pages_are_made_of_whatever_sites_share(share):
    protection = {"protection": {"name": "secagg_plus"}, "compression": {"name": "none", "bits": 8}}
    changes = {"evaluation": {"share": share}, **(protection if share == "sums" else {})}
    run = made_run(changes=changes)
    page = page_of(run)
    assert ("There are no intervals" in page.text) == (share == "metrics")
    assert ("nothing is known of a single one" in page.text) == (share == "sums")
    curves = [e for e in page.named("svg") if "roc-0" in str(e.attributes.get("aria-labelledby"))]
    assert len(curves) == (0 if share == "metrics" else 1)


def test_a_run_of_an_older_version_has_a_page(plain):
    known = {k: v for k, v in plain.summary.items() if k not in ("overrides", "versions")}
    page = page_of(replace(plain, summary=known, statistics=None, validation=None))
    assert "config.json of the run's folder" in page.text
    assert "Each site checks its own data" in page.text


def test_of_a_program_whose_commit_is_not_known_its_version_is_told(plain):
    versions = {**plain.summary["versions"], "consilium": "7.0"}
    told = {"git_commit": "unknown", "versions": versions}
    page = page_of(replace(plain, summary={**plain.summary, **told}))
    assert "version 7.0, commit unknown" in page.text
    assert "Which commit the program was of is not known" in page.text
    assert "git checkout" not in page.text
    assert "Which commit" not in page_of(plain).text


def test_the_command_that_makes_the_run_again_is_quoted_for_a_shell(plain):
    summary = {**plain.summary, "overrides": ["data.dataset=a b;rm -rf x"]}
    page = page_of(replace(plain, summary=summary))
    (command,) = (e.text for e in page.named("pre"))
    assert "consilium run made --set 'data.dataset=a b;rm -rf x'" in command


def counted(run: RunValues, **changes: Any) -> RunValues:
    """The run, with statistics of its training cases."""
    told = {
        "data_source": "files",
        "min_count": 0,
        "privacy": None,
        "sites": {site: {"cases": cases["train"]} for site, cases in run.cases.items()},
        "all_sites": {"age": {"60-69": 100, "70-79": 80}, "sex": {"female": 177, "male": 3}},
        **changes,
    }
    return replace(run, population=told)


def test_groups_of_patients_are_counted_where_sites_have_counted_them(plain):
    page = page_of(counted(plain))
    assert "Whom the training cases are of" in page.text
    cells = {element.text for element in page.elements if element.name in ("th", "td")}
    assert {"60-69", "100", "female", "177"} <= cells
    assert "Whom" not in page_of(plain).text
    clear = page_of(counted(plain, told="clear", protection="plain")).text
    assert "The coordinator has read the counts of each site." in clear
    assert "has read the counts" not in page_of(counted(plain, told="sums")).text
    noised = {"privacy": {"unit": "patient", "epsilon": 2.0, "delta": 1e-5}}
    assert "ε 2 and δ 10⁻⁵ of one patient" in page_of(counted(plain, **noised)).text


@pytest.mark.parametrize("changes", [{"data_source": "phantom"}, {"sites": {}}])
def test_counts_of_other_cases_are_not_on_the_page(plain, changes):
    assert "Whom" not in page_of(counted(plain, **changes)).text


def test_a_group_with_few_cases_is_not_told_at_all(plain):
    """One number alone could be worked out from the others."""
    run = counted(made_run(changes={"evaluation": {"share": "statistics", "min_count": 5}}))
    text = page_of(run).text
    assert "60-69" in text
    assert "177" not in text
    hidden = {"min_count": 5, "all_sites": {"sex": {"female": None, "male": None}}}
    assert page_of(counted(plain, **hidden)).text.count("fewer than 5 are not") == 2


@pytest.mark.parametrize(
    ("most", "said"),
    [
        (None, "no ε can be stated for a patient"),
        (1, "no patient has more than one training case"),
        (4, "A patient has up to 4 training cases here"),
    ],
)
def test_what_a_guarantee_for_cases_is_for_a_patient(private, most, said):
    told = private.summary["privacy"]
    sites = {s: {**own, "cases_of_one_patient": most} for s, own in told["per_site"].items()}
    summary = {**private.summary, "privacy": {**told, "per_site": sites}}
    assert said in page_of(replace(private, summary=summary)).text


def test_no_bound_and_not_told_are_told_apart(private):
    told = private.summary["privacy"]
    first, second, third = told["per_site"]
    own = told["per_site"][first]
    sites = {
        first: {**own, "epsilon_ledger": None},
        second: dict.fromkeys(own),
        third: own,
    }
    privacy = {**told, "epsilon": None, "per_site": sites, "unreported": [second]}
    page = page_of(replace(private, summary={**private.summary, "privacy": privacy}))
    assert [e.text for e in page.named("td")].count("no bound") == 1
    assert f"Not told, or not believed: {second}." in page.text
    assert "Nobody can state an ε for this run." in page.text


@pytest.mark.parametrize(
    ("task", "classes", "intervals"),
    [
        ("multilabel", ("effusion", "nodule", "mass"), {"auc_effusion", "auc"}),
        ("regression", ("age",), {"mae", "bias"}),
    ],
)
def test_pages_are_made_of_every_task(task, classes, intervals):
    run = made_run(task, classes)
    assert run.statistics is not None
    assert intervals <= set(intervals_of(run.statistics, run.info, 7).of)
    page = page_of(run)
    drawn = [str(e.attributes.get("aria-labelledby")) for e in page.named("svg")]
    assert sum("roc-" in name for name in drawn) == (3 if task == "multilabel" else 0)
    assert sum("site-curve-" in name for name in drawn) == 3


def test_a_run_in_which_nothing_travelled_has_a_page(plain):
    nothing = dict.fromkeys(("up", "down", "up_dense_float32"), 0)
    page = page_of(replace(plain, summary={**plain.summary, "bytes": nothing}))
    assert "0 B" in page.text


def test_a_run_whose_rounds_were_hardly_ever_evaluated_has_a_page(plain):
    empty = {"metrics": {}, "per_site": {s: {"cases": {}} for s in plain.summary["sites"]}}
    records = [{**empty, "round": 1}, {**empty, "round": 2}, plain.records[2]]
    page = page_of(replace(plain, records=records))
    value = plain.records[2]["metrics"]["val"]["auc"]
    assert f"over the cases of all sites is {value:.3f} after round 3. It is known" in page.text
    assert "There are no curves of single sites" in page.text
    assert "site-00 " + f"{plain.records[2]['per_site']['site-00']['val']['auc']:.3f}" in page.text
    assert not [e for e in page.named("svg") if "curve-" in str(e.attributes)]


def test_of_very_many_sites_a_few_are_drawn_and_all_are_in_the_table():
    sites = [f"site-{number:03d}" for number in range(40)]
    page = page_of(made_run(sites=sites))
    drawn = [e for e in page.named("svg") if "site-curve" in str(e.attributes)]
    assert len(drawn) == 24
    assert "24 of 40 sites; all are in the table." in page.text
    assert "the 24 lowest sites" in page.text
    assert set(sites) <= {e.text for e in page.named("th")}


def named_rows(page: Page, names: set[str], heading: str) -> list[str]:
    """The sites that have a row in the table that comes after a heading."""
    start = next(
        n for n, e in enumerate(page.elements) if e.attributes.get("aria-label") == heading
    )
    end = next(n for n, e in enumerate(page.elements) if n > start + 1 and e.name == "table")
    rest = page.elements[end + 1 :]
    rows = rest[: next((n for n, e in enumerate(rest) if e.name == "table"), len(rest))]
    return [e.text for e in rows if e.name == "th" and e.text in names]


def test_of_more_sites_than_a_person_reads_a_page_has_the_worst_and_says_where_all_are():
    sites = [f"site-{number:03d}" for number in range(MOST_LISTED + 40)]
    made = made_run(sites=sites, changes={"privacy": DP_SGD})
    told = made.summary["privacy"]
    spent = {s: {**own, "epsilon": float(n)} for n, (s, own) in enumerate(told["per_site"].items())}
    away = dict.fromkeys(sites, "it was late")
    summary = {
        **made.summary,
        "privacy": {**told, "per_site": spent, "unreported": sites},
        "absent": away,
    }
    page = page_of(replace(made, summary=summary))
    worst = sorted(sites, key=lambda site: made.summary["per_site"][site]["test"]["auc"])
    assert named_rows(page, set(sites), "Sites") == sorted(worst[:MOST_LISTED])
    assert named_rows(page, set(sites), "Privacy spent at each site") == sites[-MOST_LISTED:]
    assert f"{MOST_LISTED} of {len(sites)} sites, those with the worst test AUC" in page.text
    assert "all are in per_site of summary.json" in page.text
    assert "all are in privacy.per_site of summary.json" in page.text
    assert page.text.count("did not take part: it was late") == MOST_LISTED
    assert "And 40 more, which are in absent" in page.text
    assert "the 24 sites that have spent most" in page.text
    assert f"Not told, or not believed: {', '.join(sites[:12])} and 128 more." in page.text
    assert len(run_page(replace(made, summary=summary))) < 600_000


NO_NUMBERS = (float("nan"), float("inf"), float("-inf"))


def everywhere(value: Any, other: float) -> Any:
    """A document with another number in place of each that is no whole one."""
    if isinstance(value, dict):
        return {key: everywhere(own, other) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [everywhere(own, other) for own in value]
    return other if isinstance(value, float) else value


def drawn_numbers(html: str) -> str:
    """What stands in the figures of a page."""
    return " ".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL)).lower()


@pytest.mark.parametrize("number", NO_NUMBERS)
@pytest.mark.parametrize("which", ["plain", "private", "segmented"])
def test_what_is_no_finite_number_is_drawn_nowhere_and_that_is_said(which, number, request):
    run: RunValues = request.getfixturevalue(which)
    delta = run.summary["privacy"]["delta"]
    summary = everywhere(run.summary, number)
    summary["privacy"]["delta"] = delta
    html = run_page(replace(run, summary=summary, records=everywhere(run.records, number)))
    assert not re.search(r"[^a-z](nan|inf)[^a-z]", drawn_numbers(html))
    text = read(html).text
    assert "There is no curve of validation loss: it is no finite number after any round" in text
    assert "site-curve" not in html
    if which == "private":
        assert "Nobody can state an ε for this run." in text


def test_rounds_and_sites_without_a_number_are_named_and_the_others_drawn(plain):
    records = [plain.records[0], everywhere(plain.records[1], float("nan")), plain.records[2]]
    per_site = plain.summary["per_site"]
    spoiled = {**per_site, "site-01": everywhere(per_site["site-01"], float("nan"))}
    summary = {**plain.summary, "per_site": spoiled}
    html = run_page(replace(plain, records=records, summary=summary))
    text = read(html).text
    assert text.count("It is no finite number after round 2, and not drawn there.") >= 4
    assert "It is no finite number at site-01." in text
    assert not re.search(r"[^a-z](nan|inf)[^a-z]", drawn_numbers(html))


@pytest.mark.parametrize("number", [3e-5, 2.5e-11, 7e-200, 5e-324])
def test_very_small_numbers_are_shown_with_their_digits_and_have_a_scale(plain, number):
    records = [
        {**record, "metrics": {"val": {"auc": 0.5, "loss": n * number}}}
        for n, record in enumerate(plain.records, start=1)
    ]
    metrics = {split: {**own, "loss": number} for split, own in plain.summary["metrics"].items()}
    html = run_page(replace(plain, records=records, summary={**plain.summary, "metrics": metrics}))
    shown = [e for e in read(html).named("data") if e.attributes["data-at"] == "/metrics/test/loss"]
    assert shown
    assert all(float(e.text.replace("−", "-")) == float(f"{number:.3g}") for e in shown)
    (figure,) = re.findall(r'<svg[^>]*aria-labelledby="curve-loss-title.*?</svg>', html, re.DOTALL)
    assert f"It is {number:.3g} after round 1".replace("-", "−") in figure
    ticks = re.findall(r'class="tick">([^<]*)<', figure)
    assert len(ticks) > len(set(ticks) & {"0"})
    heights = set(re.findall(r'transform="translate\(\S+ (\S+)\)"', figure))
    # Of numbers that no drawing could tell apart, one height.
    assert len(heights) == (3 if number > 1e-300 else 1)


def test_a_guarantee_with_the_smallest_delta_has_a_page(private):
    for delta in (1e-300, 5e-324):
        privacy = {**private.summary["privacy"], "delta": delta}
        text = page_of(replace(private, summary={**private.summary, "privacy": privacy})).text
        assert "one in more than 10¹⁵" in text


def test_reliability_of_no_case_is_no_figure(plain):
    assert plain.statistics is not None
    arrays = dict(plain.statistics.arrays)
    arrays["reliability"] = arrays["reliability"] * 0
    html = run_page(replace(plain, statistics=replace(plain.statistics, arrays=arrays)))
    assert "reliability-0" not in html
    assert "nan" not in drawn_numbers(html)


def with_confusion(run: RunValues, counts: list[list[int]]) -> RunValues:
    return replace(run, summary={**run.summary, "confusion": {"test": counts}})


def head_of(run: RunValues) -> str:
    """What is read before the first section."""
    (header,) = page_of(run).named("header")
    return " ".join(header.text.split())


def test_a_model_with_one_answer_to_everything_is_called_so_before_its_numbers(plain):
    said = (
        "All 240 test cases are predicted as healthy, and none as any other class. By its answers "
        "the model tells no case from another, and its accuracy is the share of that class."
    )
    head = head_of(with_confusion(plain, [[180, 0], [60, 0]]))
    assert said in head
    assert head.index(said) < head.index("test AUC")
    for counts in ([[180, 0], [59, 1]], [[0, 0], [0, 0]], [[1, 0], [0, 0]]):
        assert "none as any other class" not in page_of(with_confusion(plain, counts)).text
    assert "none as any other class" not in page_of(plain).text
    untold = replace(plain, summary={**plain.summary, "confusion": {}})
    assert "none as any other class" not in page_of(untold).text


def test_a_segmentation_that_meets_nothing_is_called_so(segmented):
    said = "In no test case does what the model marks overlap with what is there (Dice 0)."
    metrics = segmented.summary["metrics"]
    nothing = {**metrics, "test": {**metrics["test"], "dice": 0.0}}
    assert said in head_of(replace(segmented, summary={**segmented.summary, "metrics": nothing}))
    assert said not in page_of(segmented).text


def test_every_table_can_be_scrolled_by_keyboard_and_has_a_name(plain, private, segmented):
    many = made_run(classes=[f"organ {letter}" for letter in "abcdefghijk"])
    for run in (plain, private, segmented, many):
        page = page_of(run)
        places = [e for e in page.elements if e.attributes.get("class") == "scroll"]
        assert len(places) == len(page.named("table")) > 3
        for place in places:
            assert place.attributes["tabindex"] == "0"
            assert place.attributes["role"] == "region"
            assert place.attributes["aria-label"]
        names = [place.attributes["aria-label"] for place in places]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "the coordinator, of each site"),
        ({"statistics": {"epsilon": 1.0}}, "the coordinator, of each site, with noise"),
        ({"protection": {"name": "secagg_plus"}}, "the coordinator the sum over the sites alone"),
    ],
)
def test_counts_for_a_plan_are_among_what_left_the_sites(changes, said):
    sections = {**changes, "compression": {"name": "none", "bits": 8}, "runner": PROCESSES}
    run = made_run(changes=sections)
    counts = "counts of training cases"
    assert not [row for row in left_sites(run) if row[0].startswith(counts)]
    ((_, readers, bound),) = [
        row for row in left_sites(replace(run, planned=True)) if row[0].startswith(counts)
    ]
    assert readers == said
    assert bound == ("yes" if "statistics" in changes else "no")


@pytest.mark.parametrize(
    ("strategy", "said", "left"),
    [
        ("local", "No model of all sites came of it", "each site's own model, at the end"),
        ("central", "trained on the cases of all sites together", "all training cases"),
    ],
)
def test_of_a_baseline_in_which_no_update_travels_none_is_told(strategy, said, left):
    run = made_run(changes={"strategy": {"name": strategy}})
    lines = [*training_sentences(run), *protection_sentences(run)]
    assert not [line for line in lines if line.startswith(("Sites' updates", "Updates on"))]
    assert any(said in line for line in lines)
    ways = [row[0] for row in left_sites(run)]
    assert ways[0].startswith(left)
    assert "updates of the model" not in ways
    assert "updates of the model" in [row[0] for row in left_sites(made_run())]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, True),
        ({"strategy": {"name": "local"}}, True),
        ({"strategy": {"name": "central"}}, False),
        (
            {"protection": {"name": "secagg_plus"}, "compression": {"name": "none", "bits": 8}},
            False,
        ),
        ({"privacy": DP_SGD}, False),
    ],
)
def test_a_sites_loss_in_training_is_told_of_where_the_coordinator_gets_it(changes, told):
    """As docs/who-sees-what.md has it; by a model of the coordinator's choice it counts cases."""
    run = made_run(changes={**changes, "runner": PROCESSES})
    ways = [what for what, _, _ in left_sites(run)]
    assert any(what.startswith("the mean loss") for what in ways) == told


def test_distances_of_pictures_are_in_pixels(segmented):
    flat = replace(segmented, info=replace(segmented.info, dims=2))
    for run, unit, other in ((segmented, "mm", "pixels"), (flat, "pixels", "mm")):
        page = run_page(run)
        assert f"HD95, {unit}" in page
        assert f"ASSD, {unit}" in page
        assert f"HD95, {other}" not in page
