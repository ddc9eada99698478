"""What a person at a site reads and decides on the command line."""

from pathlib import Path

import pytest

from federated.errors import ConsiliumError, RefusalError
from federated.weights.planned import planned_layout
from flows.site import decision_line, open_home, proposal_lines
from tests.federated.staged_run import Staged, begin, small_experiment, small_images

SITE = "site-00"


@pytest.fixture
def run(tmp_path: Path) -> Staged:
    sites = {"count": 3, "partition": "iid", "min_cases": 2}
    return begin(small_experiment(small_images(tmp_path), sites=sites), tmp_path / "runs")


def test_a_run_that_waits_is_shown_in_words_approved_and_begins(run: Staged) -> None:
    home = open_home(run.home(SITE).root)
    assert list(proposal_lines(home)) == ["site-00: nothing waits for a decision"]
    policy = home.policy_path.read_text()
    home.write_policy(policy.replace("approval: not-required", "approval: required"))
    with pytest.raises(RefusalError, match=r"consilium site approve \S+ --home") as told:
        run.resume()
    run_id = run.folder.run_id
    assert f"consilium site approve {run_id} --home {home.root}" in str(told.value)
    first, *rest = proposal_lines(home)
    assert first == f"run {run_id}: waits for a decision"
    text = "\n".join(rest)
    for word in ("small", "bloodmnist", "2 rounds", "fedavg", "name=none", "plain", "site-02"):
        assert word in text
    values = planned_layout(run.folder.experiment()).size
    cases = run.folder.case_counts().sites[SITE]
    told = "cases of this site: " + ", ".join(f"{split} {n}" for split, n in cases.items())
    for line in ("  evaluation.share=statistics", f"  a model of {values} values", f"  {told}"):
        assert line in rest
    assert "protection plain; fewest sites in a sum: 1" in text
    (own,) = [line for line in rest if line.endswith("(this site's own key)")]
    assert own.split(" ", 5)[4] == SITE
    assert "site-00: run" in decision_line(home, run_id, "approved")
    assert next(proposal_lines(home)) == f"run {run_id}: approved"
    run.resume()
    assert [line["event"] for line in home.audit.lines()].count("approved") == 1


def test_a_run_that_does_not_wait_cannot_be_decided(run: Staged) -> None:
    home = open_home(run.home(SITE).root)
    with pytest.raises(ConsiliumError, match="Nothing of run x waits for a decision"):
        decision_line(home, "x", "approved")
    with pytest.raises(ConsiliumError, match="cannot be a run's id"):
        decision_line(home, "../x", "approved")


def test_a_folder_that_is_no_home_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConsiliumError, match="is no site's home"):
        open_home(tmp_path)


def test_what_is_kept_with_the_model_is_shown_before_a_run_is_approved(tmp_path: Path) -> None:
    experiment = small_experiment(
        small_images(tmp_path),
        sites={"count": 3, "partition": "iid", "min_cases": 2},
        evaluation={"calibration": "temperature", "conformal": {"alpha": 0.2}},
    )
    run = begin(experiment, tmp_path / "runs")
    home = open_home(run.home(SITE).root)
    policy = home.policy_path.read_text()
    home.write_policy(policy.replace("approval: not-required", "approval: required"))
    with pytest.raises(RefusalError):
        run.resume()
    said = "  evaluation.share=statistics, evaluation.calibration=temperature, "
    assert f"{said}evaluation.conformal.alpha=0.2" in list(proposal_lines(home))
