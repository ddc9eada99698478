"""What a model card says, and that others' words are text in it."""

from dataclasses import replace
from html import escape

import pytest

from federated.release.card import ReleasedModel, card_of
from federated.release.card_blocks import Card, Section, Table, Text
from federated.release.card_text import card_markdown, card_page
from federated.report.run_page import run_page
from federated.report.values import RunValues
from tests.federated.release.made_models import PICTURES, VESSELS
from tests.federated.report.made_runs import DP_SGD, made_run
from tests.federated.report.reading import read

ATTACK = "<script>alert(1)</script>"
FINGERPRINT = "0123 4567 89ab cdef 0123 4567 89ab cdef"
MODEL = ReleasedModel(
    "made",
    "2",
    ("champion",),
    None,
    PICTURES,
    12345,
    None,
    None,
    [("model.onnx", "ONNX")],
    FINGERPRINT,
)
CLASSES = {
    "classification": ("healthy", "ill"),
    "multilabel": ("nodule", "mass", "effusion"),
    "regression": ("grade",),
    "segmentation": ("background", "vessel"),
}


def card(run: RunValues, **changes: object) -> Card:
    return card_of(run, replace(MODEL, **changes))


def part(found: Card, title: str) -> Section:
    (section,) = [section for section in found.sections if section.title == title]
    return section


def said(section: Section) -> str:
    whole = Card("", [], [section])
    return card_markdown(whole)


@pytest.mark.parametrize("task", CLASSES)
def test_metrics_stand_in_it_with_their_intervals(task):
    run = made_run(task, CLASSES[task])
    header = VESSELS if task == "segmentation" else PICTURES
    table = next(
        block
        for block in part(card(run, header=header), "How good it is").blocks
        if isinstance(block, Table)
    )
    shown = [row[1] for row in table.rows]
    metrics = run.summary["metrics"]["test"]
    named = [value for value in metrics.values() if isinstance(value, float)]
    assert {f"{value:.3f}".replace("-", "−") for value in named} >= set(shown) - {"–"}
    assert any(" to " in row[2] for row in table.rows)


def test_the_card_has_all_that_a_reviewer_asks_for():
    titles = [section.title for section in card(made_run()).sections]
    assert titles == [
        "The model",
        "What it is for",
        "Data",
        "Training",
        "How good it is",
        "Sites",
        "Groups of patients",
        "Calibration",
        "Privacy",
        "Attacks on this model",
        "Limits",
        "Licence",
        "Files of the model, and how they were checked",
        "How it was made, and how to make it again",
        "Who has signed this dossier",
    ]


def test_a_model_with_one_answer_to_everything_is_called_so_before_its_numbers():
    run = made_run()
    counts = {"confusion": {"test": [[80, 0], [40, 0]]}}
    first = part(card(replace(run, summary=run.summary | counts)), "How good it is").blocks[0]
    assert isinstance(first, Text)
    assert first.warns
    assert first.text.startswith("All 120 test cases are predicted as healthy, and none as any")
    # Of a site's own model that is not known: the counts are of all own models together.
    told = {"confusion": {"test": [[80, 1], [40, 3]]}}
    for other in (
        card(replace(run, summary=run.summary | told)),
        card(replace(run, summary=run.summary | counts), site="site-01"),
    ):
        assert "are predicted as" not in said(part(other, "How good it is"))


def test_a_phantom_is_told_in_the_first_lines():
    phantom = card(made_run(source="phantom"))
    lines = card_markdown(phantom).splitlines()
    assert lines[2].startswith("**The data are a phantom")
    page = read(card_page(phantom)).text.split("To the content")[1].strip()
    assert page.startswith("The data are a phantom")
    assert "phantom" not in card_markdown(card(made_run())).lower()


def test_privacy_is_told_with_its_unit_in_plain_words():
    text = said(part(card(made_run(changes={"privacy": DP_SGD})), "Privacy"))
    assert "ε = 7.94 and δ = 10⁻⁵, for each training case, composed over all rounds" in text
    assert "at most e^ε" in text
    assert "A patient has up to 2 training cases here; for such a patient ε is 17.5." in text
    assert "| site-01 | 7.94 | 9.5 | 16 |" in text
    assert "There is no differential privacy" not in text


def test_no_privacy_is_told_first():
    first = part(card(made_run()), "Privacy").blocks[0]
    assert isinstance(first, Text)
    assert first.warns
    assert first.text.startswith("There is no differential privacy in this run.")


def test_seeded_noise_is_told_first():
    seeded = {**DP_SGD, "noise": "seeded"}
    first = part(card(made_run(changes={"privacy": seeded})), "Privacy").blocks[0]
    assert isinstance(first, Text)
    assert "protects nobody" in first.text


def test_what_nobody_has_done_is_told_as_such():
    found = card(made_run())
    for title in ("Attacks on this model", "Groups of patients"):
        assert said(part(found, title)).splitlines()[4].startswith("Not run.")
    assert "is not stated" in said(part(found, "Licence"))


def test_attacks_and_a_licence_are_told_where_somebody_gives_them():
    found = card(made_run(), attacks="AUC\n0.51.\r\n\r\nOf 100 cases.\n", licence="CC-BY-4.0")
    assert "AUC 0.51." in said(part(found, "Attacks on this model"))
    assert "Not run" not in said(part(found, "Attacks on this model"))
    assert "released under: CC-BY-4.0" in said(part(found, "Licence"))


def test_calibration_is_told_where_it_is_known():
    run = made_run()
    text = said(part(card(run), "Calibration"))
    assert f"{run.summary['metrics']['test']['ece']:.3f}" in text


def test_a_sites_own_model_is_told_from_those_of_others():
    text = card_markdown(card(made_run(), site="site-01"))
    assert "site-01 (this model)" in text
    assert "those of all sites' own models together" in text


def test_a_form_that_is_left_out_is_told():
    forms = [("model.onnx", "left out. This network cannot be written as ONNX (no such operator).")]
    text = card_markdown(card(made_run(), formats=forms))
    assert "| model.onnx | left out. This network cannot be written as ONNX" in text


def test_others_words_are_text_on_the_page_and_in_markdown():
    run = made_run(classes=(ATTACK, "`ill` | *x* [a](b)"), sites=(ATTACK, "site-01"))
    found = card(run, licence=ATTACK, attacks=ATTACK, name=ATTACK)
    page = card_page(found)
    assert ATTACK not in page
    assert escape(ATTACK, quote=False) in page
    text = card_markdown(found)
    assert "<script>" not in text.replace("\\<", "")
    assert "[a](b)" not in text
    widths = [line.count("|") - line.count("\\|") for line in text.splitlines() if line[:1] == "|"]
    assert min(widths) > 2


def test_a_description_ends_within_what_the_registry_holds():
    found = card(made_run())
    whole, short = card_markdown(found), card_markdown(found, 3000)
    assert len(whole) > 3000 > len(short) > 1000
    assert "In the whole card, model_card.md: " in short
    assert short.rstrip().endswith("Who has signed this dossier.")
    assert card_markdown(found, 100_000) == whole


def test_a_calibration_of_the_run_stands_in_it_with_what_the_files_alone_give():
    asked = {"calibration": "temperature", "conformal": {"alpha": 0.1}}
    run = made_run(changes={"evaluation": asked})
    fitted = run.summary["calibration"]
    text = said(part(card(run), "Calibration"))
    assert f"at the temperature {fitted['temperature']['temperature']:.2f}" in text
    assert "divide logits by it" in text
    assert "asked to cover 90 %" in text
    sets = fitted["conformal"]
    for own in (sets["pooled"], *(site["own"] for site in sets["sites"].values())):
        assert repr(own["threshold"]) in text
    assert "before the temperature" in text
    assert "chosen by the same validation cases" in text
    pooled = fitted["conformal"]["pooled"]
    assert f"{100 * pooled['coverage']:.1f} %" in text
    assert "Probabilities are the network's own." in said(part(card(made_run()), "Calibration"))


def test_who_has_the_network_alone_is_told_what_it_takes_and_of_a_phantom_no_licence():
    text = card_markdown(card(made_run()))
    assert "as values of 0 to 1, which are intensities of 0 to 255 divided by 255" in text
    assert "a logit for each class" in text
    run = made_run()
    drawn = replace(run, summary={**run.summary, "data_source": "phantom"})
    assert run.info.licence in said(part(card(run), "Licence"))
    assert run.info.licence not in card_markdown(card(drawn))


def test_of_a_consortium_it_says_that_numbers_are_sites_signed_words_and_what_is_not_known():
    run = made_run(changes={"runner": {"name": "sites"}})
    run = replace(run, validation=None, summary={**run.summary, "data_md5": None})
    found = card(run)
    sites = said(part(found, "Sites"))
    assert "The coordinator has no case of any site, and has evaluated nothing itself" in sites
    assert "signed by its own key" in sites
    assert "not told, so that it is not here: which files the sites have (their MD5), and" in sites
    again = said(part(found, "How it was made, and how to make it again"))
    assert "--set runner.name=sites" in again
    assert "signed by its own key" in read(run_page(run)).text
    alone = card(made_run())
    assert "signed by its own key" not in card_markdown(alone)
    assert "runner.name" not in card_markdown(alone)


def test_of_a_program_whose_commit_is_not_known_the_version_is_told():
    run = made_run("classification", CLASSES["classification"])
    told = {"git_commit": "unknown", "versions": {"consilium": "7.0"}}
    found = card_markdown(card(replace(run, summary={**run.summary, **told})))
    assert "version 7.0, commit unknown" in found
