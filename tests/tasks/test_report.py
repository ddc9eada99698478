"""report: from the files of a run, and what is said where they are not there."""

import pytest

import flows.round
from federated.errors import ConsiliumError
from federated.files import write_json
from federated.run.folder import RunFolder
from tasks.report import write_comparison, write_report
from tests.federated.report.made_runs import made_comparison


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
