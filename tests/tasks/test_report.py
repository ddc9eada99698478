"""report: from the files of a run, and what is said where they are not there."""

from pathlib import Path

import pytest

import flows.round
from federated.errors import ConsiliumError
from federated.files import write_json
from federated.run.folder import RunFolder
from federated.run.statistics_file import write_statistics
from tasks.report import LARGEST_PICTURE, write_comparison, write_report
from tests.federated.report.made_runs import made_comparison, made_run
from tests.federated.report.reading import read


def test_a_run_that_is_not_finished_has_no_report_and_says_how_to_finish_it(tmp_path):
    folder = RunFolder(tmp_path / "adrenal" / "20260101-000000-abcd")
    with pytest.raises(ConsiliumError, match="consilium resume adrenal 20260101-000000-abcd"):
        write_report(folder)
    assert not (folder.root / "report.html").exists()


def test_a_comparisons_page_is_made_again_from_its_file(tmp_path):
    write_json(tmp_path / "runs.json", made_comparison(["fedavg", "fedbn"], 2))
    path = write_comparison(tmp_path)
    assert path == tmp_path / "report.html"
    assert "fedbn" in path.read_text()


@pytest.mark.parametrize("content", [None, "{}", "[]", "no json"])
def test_a_comparison_without_its_file_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "runs.json").write_text(content)
    with pytest.raises(ConsiliumError, match=r"runs\.json"):
        write_comparison(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_run_ends_well_where_its_page_cannot_be_made(tmp_path, monkeypatch):
    def fail(folder: RunFolder) -> None:
        raise ValueError("no room")

    told: list[str] = []
    monkeypatch.setattr(flows.round, "report", fail)
    monkeypatch.setattr(flows.round, "tell", told.append)
    flows.round._report(RunFolder(tmp_path / "adrenal" / "20260101-000000-abcd"))
    assert told == [
        "there is no report of this run (no room); `consilium report adrenal` tries again"
    ]


@pytest.fixture
def made(tmp_path) -> RunFolder:
    """The folder of a finished run that was never run."""
    run = made_run()
    folder = RunFolder(tmp_path / "runs" / "made" / run.summary["run_id"])
    write_json(folder.config_path, run.experiment.to_json())
    write_json(folder.summary_path, run.summary)
    write_json(folder.partition_path, {"draws": 1, "moved": 0, "cases": run.cases})
    for record in run.records:
        write_json(folder.record_path(record["round"]), record)
    write_statistics(folder.statistics_path(3), run.statistics)
    write_json(folder.root / "validation.json", run.validation)
    told = {"sites": {s: {"cases": c["train"]} for s, c in run.cases.items()}, "privacy": None}
    told |= {"data_source": "files", "min_count": 0, "all_sites": {"sex": {"female": 90}}}
    write_json(tmp_path / "runs" / "statistics" / "made" / "1" / "statistics.json", told)
    return folder


def text_of(path: Path) -> str:
    return " ".join(read(path.read_text()).text.split())


WHOLE = ("Whom the training cases are of", "All rules held", "ROC curve")
FILES = {
    "../../statistics/made/1/statistics.json": (0, "Whom the training cases are of"),
    "validation.json": (1, "What validation found"),
    "round-003/evaluation.safetensors": (2, "Curves and intervals"),
}


def test_a_page_is_made_of_the_files_of_a_run(made):
    text = text_of(write_report(made))
    assert all(part in text for part in WHOLE)
    assert "not told here" not in text


NONE = ("", "[]", "{", '{"sites": 3, "broken": [1], "failures": 3}')
POPULATION = next(iter(FILES))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        *((file, content) for file in FILES for content in NONE),
        (POPULATION, '{"sites": {"a": {}}}'),
        (POPULATION, None),
    ],
)
def test_what_cannot_be_read_is_left_out_of_the_page_which_says_so(made, file, content):
    path = made.root / file
    path.unlink()
    if content is None:
        path.symlink_to(path.parent)
    else:
        path.write_text(content)
    text = text_of(write_report(made))
    number, what = FILES[file]
    (said,) = [part for part in text.split("What this page does not show")[1:] if what in part]
    assert "not told here" in said
    assert path.name in said
    assert str(made.root.parent) not in text
    for other, part in enumerate(WHOLE):
        assert other == number or part in text


def test_a_picture_that_cannot_be_shown_is_named(made):
    place = made.root / "overlays"
    place.mkdir()
    (place / "site-00-worst.png").symlink_to(place / "gone")
    (place / "site-00-best.png").write_bytes(b"x" * (LARGEST_PICTURE + 1))
    (place / "site-01-best.png").write_bytes(b"x")
    page = read(write_report(made).read_text())
    assert len(page.named("img")) == 1
    for name in ("site-00-worst.png", "site-00-best.png"):
        assert f"The picture {name}: not here" in page.text


@pytest.mark.parametrize("key", ["kept_round", "metrics", "per_site", "bytes", "privacy"])
def test_a_summary_of_something_else_is_refused_in_a_paragraph(made, key):
    other = {k: v for k, v in made_run().summary.items() if k != key}
    write_json(made.summary_path, other)
    with pytest.raises(ConsiliumError, match=r"summary\.json: it is damaged, of another version"):
        write_report(made)
    write_json(made.summary_path, other | {key: []})
    with pytest.raises(ConsiliumError, match=r"summary\.json: it is damaged, of another version"):
        write_report(made)


@pytest.mark.parametrize("key", ["task", "rows", "runs", "curves", "sites"])
@pytest.mark.parametrize("value", [3, [1]])
def test_a_comparison_of_something_else_is_refused_in_a_paragraph(tmp_path, key, value):
    write_json(tmp_path / "runs.json", made_comparison(["fedavg", "fedbn"], 2) | {key: value})
    with pytest.raises(ConsiliumError, match=r"runs\.json: it is damaged, of another version"):
        write_comparison(tmp_path)
