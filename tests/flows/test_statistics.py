"""Statistics over the sites of an experiment as a flow: what they leave, and what they refuse."""

import pytest
import yaml
from mlflow import MlflowClient

from federated.errors import ConsiliumError
from federated.files import read_json
from federated.run.folder import RunFolder
from federated.run.statistics_report import page_of
from flows.describe import statistics_lines
from flows.site_statistics import fl_statistics
from tasks.track import tracking_uri
from tests.conftest import TINY_PARAMS
from tests.described_sets import CLASSES, describe, picture_set, write_table

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
    assert "do not tell" not in page
    silent = {site: {**told, "distances": None} for site, told in value["sites"].items()}
    hidden = {**value["all_sites"], "classes": dict.fromkeys(value["all_sites"]["classes"])}
    said = page_of({**value, "sites": silent, "all_sites": hidden, "min_count": 3})
    assert "How far they are site-00, site-01, site-02 do not tell: by their policy" in said
    assert "- classes: basophil not told" in said
    assert "none where one of them is so small" in said
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


def test_a_described_set_is_counted_as_its_files_are_with_what_its_table_says(project, in_process):
    """Whatever is `auto`: what stands in its place until it is planned says nothing of a case."""
    rows = picture_set(project / "data" / "mine")
    ages = {"south": "41", "north": "67"}
    for row in rows:
        row |= {"age": ages[row["site"]], "sex": "f", "scanner": "Siemens Skyra"}
    write_table(project / "data" / "mine", rows)
    describe(project / "data" / "mine", {**CLASSES, "shape": "auto"})
    sites = {"count": 2, "partition": "natural", "min_cases": 1}
    mine = {"seed": 0, "data": {"dataset": "mine", "source": "files"}, "sites": sites}
    document = TINY_PARAMS | {"experiments": {"mine": {**mine, "validate": {}}}}
    (project / "params.yaml").write_text(yaml.safe_dump(document))
    folder = RunFolder(project / fl_statistics("mine"))
    value = read_json(folder.root / "statistics.json")
    assert folder.experiment().planning.auto == ("data.described.shape",)
    counts = folder.case_counts()
    cases = {site: counts.cases(site, "train") for site in counts.sites}
    assert value["all_sites"]["age"]["40-49"] == cases["site-south"]
    assert value["all_sites"]["age"]["60-69"] == cases["site-north"]
    assert value["all_sites"]["sex"]["female"] == sum(cases.values())
    assert value["all_sites"]["scanner"]["siemens"] == sum(cases.values())
    # South's pictures are 24 x 36, and North's 20 x 30.
    assert value["all_sites"]["shape"]["width"]["0.95"] == pytest.approx(36, rel=0.01)
    assert value["all_sites"]["shape"]["width"]["0.05"] == pytest.approx(30, rel=0.01)
