"""Statistics over the sites of an experiment as a flow: what they leave, and what they refuse."""

import pytest
from mlflow import MlflowClient

from federated.errors import ConsiliumError
from federated.files import read_json
from federated.run.folder import RunFolder
from flows.describe import statistics_lines
from flows.statistics import fl_statistics
from tasks.track import tracking_uri

pytestmark = pytest.mark.usefixtures("prefect_server")

MASKED = ["compression.bits=8", "protection.name=secagg_plus", "runner.name=processes"]


def test_statistics_leave_a_report_that_is_tracked_and_nothing_to_go_on_with(project, in_process):
    folder = RunFolder(project / fl_statistics("tiny", MASKED))
    assert folder.root.parent == project / "runs" / "statistics" / "tiny"
    assert not (project / "runs" / "tiny").exists()
    value = read_json(folder.root / "statistics.json")
    counts = folder.case_counts()
    cases = {site: counts.cases(site, "train") for site in counts.sites}
    assert value["all_sites"]["cases"] == sum(cases.values())
    assert sum(value["all_sites"]["classes"].values()) == sum(cases.values())
    assert {site: told["cases"] for site, told in value["sites"].items()} == cases
    assert all(0 <= told["distances"]["labels"] <= 1 for told in value["sites"].values())
    assert (value["told"], value["privacy"], value["absent"]) == ("sums", None, {})
    page = (folder.root / "statistics.md").read_text()
    assert "# Statistics of tiny over 3 sites" in page
    assert "only their sum was opened" in page
    lines = [part for part in statistics_lines(folder.root) if isinstance(part, str)]
    assert lines[0] == f"tiny: {sum(cases.values())} training cases"
    client = MlflowClient(tracking_uri())
    found = client.get_run((folder.root / "mlflow_run_id").read_text().strip())
    assert found.data.metrics["statistics/cases"] == sum(cases.values())
    assert found.data.tags["purpose"] == "statistics"
    assert found.info.status == "FINISHED"
    assert {"statistics.json", "statistics.md"} <= {
        each.path for each in client.list_artifacts(found.info.run_id)
    }
    # What is secret of the sum is erased.
    assert not list(folder.root.rglob("sites/*/runs/*/secagg/*.secret*"))


CKKS = ["protection.name=ckks", "runner.name=processes"]
PRIVATE = ["privacy.name=dp_sgd", "privacy.noise_multiplier=1", "privacy.clip=1"]


@pytest.mark.parametrize(("overrides", "said"), [
    (CKKS, r"protection\.name=ckks is not made for.*plain or"),
    (PRIVATE, r"Set statistics\.epsilon"),
])  # fmt: skip
def test_what_would_not_be_exact_or_breaks_a_privacy_is_refused_before_anything_is_made(
    project, overrides, said
):
    with pytest.raises(ConsiliumError, match=said):
        fl_statistics("tiny", overrides)
    assert not (project / "runs").exists()
