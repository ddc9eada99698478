"""A run with subgroups, from its table to its page and its card; and what is refused before it."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

import tasks.final_evaluation
from federated.configuration.load import load_experiment
from federated.errors import ConsiliumError
from federated.release.card import card_of
from federated.release.card_text import card_markdown
from federated.run.folder import RunFolder
from federated.stages.site import SiteCall
from flows.consortium_up import deal_files
from flows.round import fl_round
from tasks.report import read_values
from tests.conftest import TINY_PARAMS
from tests.described_sets import CLASSES, PICTURES, describe, picture_set, write_table
from tests.federated.release.test_card import MODEL
from tests.federated.report.reading import at, read
from tests.flows.consortium import make_consortium

GROUPS = {"sex": ["F", "M"], "age": [40, 60], "scanner": ["A", "B"]}
RUN: dict[str, Any] = {
    "seed": 0,
    "data": {"dataset": "mine", "source": "files"},
    "sites": {"count": 2, "partition": "natural", "min_cases": 2},
    "validate": {},
}


@pytest.fixture
def mine(project) -> Callable[..., Path]:
    """Makes a project with a described set whose table has attributes, and an experiment on it."""

    def make(
        description: Any = CLASSES, cases: int = 96, attributes: bool = True, **sections: Any
    ) -> Path:
        folder = project / "data" / "mine"
        rows = picture_set(folder, cases)
        for number, row in enumerate(rows if attributes else ()):
            row["sex"] = "FM"[(number // 4) % 2]
            row["age"] = str(20 + number % 60)
            row["scanner"] = ("A", "B", "C")[(number // 3) % 3]
        if description is PICTURES:
            for row in rows:
                del row["label"]
        write_table(folder, rows)
        describe(folder, description)
        experiments = TINY_PARAMS["experiments"] | {"mine": RUN | sections}
        document = TINY_PARAMS | {"experiments": experiments}
        (project / "params.yaml").write_text(yaml.safe_dump(document))
        return project

    return make


@pytest.mark.usefixtures("plainly")
def test_a_run_tells_of_groups_in_its_summary_its_page_and_its_card(mine):
    mine(evaluation={"subgroups": GROUPS})
    folder = RunFolder(Path(fl_round("mine", rounds=2, register_model=False)))
    summary = json.loads(folder.summary_path.read_text())
    told = summary["subgroups"]
    assert told["missing"] == {}
    total = sum(own["cases"]["test"] for own in summary["per_site"].values())
    for groups in told["attributes"].values():
        assert sum(group["cases"] for group in groups) == total
        right = sum(g["metrics"]["accuracy"] * g["cases"] for g in groups if g["cases"])
        assert right / total == pytest.approx(summary["metrics"]["test"]["accuracy"])
    assert [g["group"] for g in told["attributes"]["age"]] == [
        *("below 40", "40 to below 60", "60 and above", "other or not stated"),
    ]
    page = read((folder.root / "report.html").read_text())
    places = [str(e.attributes["data-at"]) for e in page.named("data")]
    shown = [place for place in places if place.startswith("/subgroups/")]
    assert "/subgroups/attributes/sex/1/metrics/auc" in shown
    for element in page.named("data"):
        value = float(str(element.attributes["value"]))
        assert value == at(summary, str(element.attributes["data-at"]))
    card = card_markdown(card_of(read_values(folder), MODEL))
    assert "Not run" not in card.split("## Groups of patients")[1].split("## Calibration")[0]
    assert "| 40 to below 60 |" in card
    # What a site tells each round is what it was.
    assert "subgroups" not in json.loads(folder.record_path(1).read_text())


@pytest.mark.usefixtures("plainly")
def test_small_groups_are_hidden_in_all_that_a_run_leaves(mine):
    mine(
        evaluation={"subgroups": GROUPS, "min_count": 5},
        selection={"metric": "val/accuracy"},
    )
    folder = RunFolder(Path(fl_round("mine", rounds=1, register_model=False)))
    summary = json.loads(folder.summary_path.read_text())
    groups = [g for each in summary["subgroups"]["attributes"].values() for g in each]
    assert any(group["hidden_by"] for group in groups)
    for group in groups:
        assert group["cases"] is None or group["cases"] == 0 or group["cases"] >= 5
    page = read((folder.root / "report.html").read_text()).text
    assert "A site hides a group where fewer than 5 of its cases" in " ".join(page.split())


@pytest.mark.usefixtures("plainly")
def test_a_segmentation_tells_how_far_it_changes_with_images_turned_over(mine):
    mine(
        PICTURES,
        48,
        evaluation={"uncertainty": "flips", "subgroups": {"sex": ["F", "M"]}},
        selection={"metric": "val/dice"},
        model={"name": "unet"},
    )
    folder = RunFolder(Path(fl_round("mine", rounds=1, register_model=False)))
    summary = json.loads(folder.summary_path.read_text())
    told = summary["uncertainty"]
    assert told["cases"] == sum(own["cases"]["test"] for own in summary["per_site"].values())
    assert 0 < told["metrics"]["flip_variance"] <= 0.25
    sex = summary["subgroups"]["attributes"]["sex"]
    assert sum(g["metrics"]["flip_variance"] * g["cases"] for g in sex if g["cases"]) / told[
        "cases"
    ] == pytest.approx(told["metrics"]["flip_variance"])
    assert "flip_variance" not in summary["metrics"]["test"]
    text = " ".join(read((folder.root / "report.html").read_text()).text.split())
    assert "How far masks change with the image turned over" in text
    assert "predicted 4 times" in card_markdown(card_of(read_values(folder), MODEL))


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("share", ["statistics", "sums"])
def test_sites_of_a_consortium_tell_of_the_same_groups(mine, project, share):
    own = {"sites": {"count": 3, "partition": "iid", "min_cases": 2}}
    if share == "sums":
        own |= {"protection": {"name": "packed_bfv"}, "compression": {"name": "none", "bits": 8}}
        own |= {"runner": {"name": "processes", "workers": 1}}
    mine(evaluation={"subgroups": GROUPS, "share": share}, **own)
    alone = RunFolder(Path(fl_round("mine", rounds=1, register_model=False)))
    with ExitStack() as stack:
        for party in make_consortium(project, "mine").values():
            stack.enter_context(party.at_work())
        sites = ["runner.name=sites"]
        folder = RunFolder(Path(fl_round("mine", sites, rounds=1, register_model=False)))
    told, expected = (
        json.loads(each.summary_path.read_text())["subgroups"] for each in (folder, alone)
    )
    assert told["missing"] == {}
    assert sum(group["cases"] for group in told["attributes"]["sex"]) > 0
    assert told == expected


def test_generated_images_of_a_described_set_are_not_dealt_out(mine, project):
    mine()
    resolved = load_experiment("mine", ["data.source=phantom"], project / "params.yaml")
    with pytest.raises(ConsiliumError, match="Generated images of mine"):
        deal_files(resolved, {"site-0": project / "a", "site-1": project / "b"})


@pytest.mark.usefixtures("plainly")
@pytest.mark.parametrize("protection", ["secagg_plus", "packed_bfv"])
def test_a_run_of_sums_tells_of_groups_of_all_sites_and_of_none(mine, protection):
    mine(
        evaluation={"subgroups": GROUPS, "share": "sums"},
        sites={"count": 3, "partition": "iid", "min_cases": 2},
        protection={"name": protection},
        runner={"name": "processes", "workers": 1},
        compression={"name": "none", "bits": 8},
    )
    folder = RunFolder(Path(fl_round("mine", rounds=1, register_model=False)))
    summary = json.loads(folder.summary_path.read_text())
    assert summary["subgroups"]["missing"] == {}
    accuracy = summary["metrics"]["test"]["accuracy"]
    for groups in summary["subgroups"]["attributes"].values():
        cases = sum(group["cases"] for group in groups)
        right = sum(g["metrics"]["accuracy"] * g["cases"] for g in groups if g["cases"])
        assert right / cases == pytest.approx(accuracy)
        assert all(group["told_by"] == summary["sites"] for group in groups)
    assert "told by" in read((folder.root / "report.html").read_text()).text


SUMS = {
    "evaluation": {"subgroups": GROUPS, "share": "sums"},
    "sites": {"count": 4, "partition": "iid", "min_cases": 2, "on_dropout": "continue"},
    "runner": {"name": "processes", "workers": 1},
    "compression": {"name": "none", "bits": 8},
}


@pytest.mark.usefixtures("plainly", "in_process")
@pytest.mark.parametrize("protection", ["secagg_plus", "packed_bfv"])
def test_a_site_that_was_not_in_the_evaluation_of_the_model_is_not_in_its_groups(
    mine, failing, protection
):
    """What it counts would be the difference of the two sums."""
    mine(**SUMS, protection={"name": protection})
    failing("evaluate site-01 1")
    folder = RunFolder(Path(fl_round("mine", rounds=1, register_model=False)))
    told = json.loads(folder.summary_path.read_text())["subgroups"]
    assert list(told["missing"]) == ["site-01"]
    assert "was evaluated after round 1 in a sum of site-00, site-02" in told["missing"]["site-01"]
    for groups in told["attributes"].values():
        assert all(group["told_by"] == ["site-00", "site-02", "site-03"] for group in groups)


@pytest.mark.usefixtures("plainly", "in_process")
def test_where_a_site_of_the_evaluation_is_missing_at_the_end_there_are_no_groups(
    mine, monkeypatch
):
    mine(**SUMS, protection={"name": "secagg_plus"})
    honest = tasks.final_evaluation.sum_at_end

    def away(call: SiteCall, round_number: int) -> None:
        if call.site == "site-01":
            raise ConsiliumError("site-01 has no power.")
        honest(call, round_number)

    monkeypatch.setattr(tasks.final_evaluation, "sum_at_end", away)
    folder = RunFolder(Path(fl_round("mine", rounds=1, register_model=False)))
    told = json.loads(folder.summary_path.read_text())["subgroups"]
    assert set(told["missing"]) == {f"site-0{n}" for n in range(4)}
    assert "site-01 did not take part at the end" in told["missing"]["site-00"]
    assert not list(folder.root.rglob("final.answer"))


REFUSED = {
    "a set without a table": (
        ["evaluation.subgroups.sex=[F, M]"],
        "tiny",
        "it has no table of its cases",
    ),
    "generated images": (
        ["evaluation.subgroups.sex=[F, M]", "data.source=phantom"],
        "mine",
        "are generated \\(phantom\\), of nobody",
    ),
    "no attribute": (
        ["evaluation.subgroups.label=[a]"],
        "mine",
        "no attribute of data.dataset=mine: these are age, sex, scanner",
    ),
    "metrics alone": (
        ["evaluation.subgroups.sex=[F, M]", "evaluation.share=metrics"],
        "mine",
        "evaluation.share=metrics sends none",
    ),
    "a value twice": (
        ["evaluation.subgroups.sex=[F, female]"],
        "mine",
        "a value that means the same",
    ),
    "flips of a classifier": (["evaluation.uncertainty=flips"], "mine", "is for masks"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_nobody_can_tell_is_refused_when_the_configuration_is_read(mine, what):
    mine(cases=12)
    overrides, name, said = REFUSED[what]
    with pytest.raises(ConsiliumError, match=said):
        load_experiment(name, overrides)


@pytest.mark.usefixtures("plainly")
def test_a_column_that_no_table_has_is_refused_before_anything_is_trained(mine):
    mine(attributes=False, evaluation={"subgroups": GROUPS})
    with pytest.raises(ConsiliumError, match="has no such column") as told:
        fl_round("mine", rounds=1, register_model=False)
    assert all(name in str(told.value) for name in GROUPS)
