"""What a private run leaves where others read it: no label counts, no case indices, no times."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.run_folder import RunFolder
from flows.round import KEPT_IN_MLFLOW
from tests.conftest import tiny_arrays

pytestmark = pytest.mark.usefixtures("prefect_server")

DP_SGD = ["privacy.name=dp_sgd", "privacy.noise_multiplier=2", "privacy.delta=1e-3"]
SITE = ["privacy.name=site_level", "privacy.clip=1", "privacy.noise_multiplier=2"]
BROKEN = 5


@pytest.fixture
def spoilt(write_npz):
    """A training case without any contrast, which validation drops and names."""

    def write() -> None:
        arrays = tiny_arrays()
        arrays["train_images"][BROKEN] = 7
        write_npz(arrays)

    return write


def shared_texts(folder: RunFolder) -> dict[str, str]:
    """The text files of a run but for those of the sites, and those of its MLflow run."""
    project = folder.root.parents[2]
    places = [path for path in folder.root.rglob("*") if "sites" not in path.parts[-3:]]
    places = [p for p in places if not p.is_relative_to(folder.root / "sites")]
    artifacts = list((project / "mlruns" / "artifacts").rglob("*"))
    texts = {}
    for path in [*places, *artifacts]:
        if path.is_file() and path.suffix in (".json", ".html", ".md", ".txt", ".csv"):
            texts[str(path.relative_to(project))] = path.read_text(encoding="utf-8")
    return texts


def number_lists(value: object) -> Iterator[list[int]]:
    """All lists of whole numbers in plain values; confusion is of validation and test cases."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key != "confusion":
                yield from number_lists(item)
    if isinstance(value, list):
        if value and all(type(item) is int for item in value):
            yield value
        for item in value:
            yield from number_lists(item)


def secrets_of(
    folder: RunFolder, project: Path
) -> tuple[dict[str, list[int]], dict[str, set[int]]]:
    """Of each site its training cases of each class, and which cases they are."""
    with np.load(project / "data" / "medmnist" / "adrenalmnist3d.npz") as arrays:
        labels = arrays["train_labels"].reshape(-1)
    partition = folder.partition()
    cases = {site: set(splits["train"]) for site, splits in partition.sites.items()}
    counts = {s: np.bincount(labels[sorted(own)], minlength=2).tolist() for s, own in cases.items()}
    return counts, cases


@pytest.mark.parametrize("privacy", [DP_SGD, SITE], ids=["dp_sgd", "site_level"])
def test_no_label_counts_or_case_indices_leave_the_sites(run, project, spoilt, caplog, privacy):
    spoilt()
    overrides = [*privacy, "validate.on_failure=drop-case", "sites.min_cases=4"]
    folder = run(overrides=overrides, rounds=1, prepared=None)
    counts, cases = secrets_of(folder, project)
    texts = shared_texts(folder)
    names = {Path(name).name for name in texts}
    assert {"partition.json", "validation.json", "summary.json", "round.json"} <= names
    assert any(name.startswith("mlruns") for name in texts)
    for name, text in texts.items():
        assert not re.search(r"class_counts|class_cases|train case|dropped_cases", text), name
        if not name.endswith(".json"):
            continue
        for found in number_lists(json.loads(text)):
            for site in cases:
                assert found != counts[site], (name, site)
                assert not (len(found) > 2 and set(found) <= cases[site]), (name, site)
    assert f"train case {BROKEN}" not in caplog.text
    # The numbers of cases stay: weights and sampling rates follow from them.
    told = json.loads((folder.root / "partition.json").read_text())["cases"]
    assert {s: splits["train"] for s, splits in told.items()} == {
        s: len(c) for s, c in cases.items()
    }
    dropped = json.loads((folder.root / "validation.json").read_text())["dropped"]
    assert list(dropped.values()) == [{"train": 1}]


def test_what_validation_finds_in_a_private_runs_cases_lies_with_the_sites(run, project, spoilt):
    spoilt()
    with pytest.raises(ConsiliumError) as failed:
        run(overrides=[*DP_SGD, "sites.min_cases=4"], rounds=1, prepared=None)
    assert "train case" not in str(failed.value)
    assert "told in the site's own report" in str(failed.value)
    (root,) = (path.parent for path in (project / "runs").glob("tiny/*/config.json"))
    whole = root / "sites" / ".validation" / "validation.json"
    assert f"train case {BROKEN}" in whole.read_text()
    assert whole.stat().st_mode & 0o077 == 0
    assert (root / "sites").stat().st_mode & 0o077 == 0
    assert f"train case {BROKEN}" not in (root / "validation.json").read_text()
    assert not (root / "data_docs").exists()
    for path in root.glob("sites/*/cases.json"):
        assert path.stat().st_mode & 0o077 == 0


def test_a_prepared_folders_report_is_not_copied_whole_into_a_private_run(run, prepared_tiny):
    assert "class_counts" in (Path(prepared_tiny) / "partition.json").read_text()
    folder = run(overrides=DP_SGD, rounds=1)
    for name in KEPT_IN_MLFLOW:
        path = folder.root / name
        if path.is_file() and path.suffix == ".json":
            assert "class_counts" not in path.read_text()
    assert json.loads((folder.own_reports / "validation.json").read_text())["broken"] == {}


def test_a_run_whose_sites_lack_their_cases_says_which_file_is_missing(run):
    folder = run(rounds=1)
    folder.cases_path("site-01").unlink()
    assert folder.case_counts().cases("site-01", "train") > 0
    with pytest.raises(ConsiliumError, match=r"site-01/cases\.json cannot be read"):
        folder.partition()
