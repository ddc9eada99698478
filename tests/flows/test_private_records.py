"""What a private run leaves where others read it: no label counts, no case indices, no times."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tasks.local_train
from federated.data.dataset import Split
from federated.data.load import load, locate
from federated.errors import ConsiliumError
from federated.exchange.message import open_message
from federated.run.folder import RunFolder
from federated.site.holder import held_cases
from federated.stages.evaluate import evaluate_site
from federated.stages.local_train import train_site
from federated.stages.site import SiteCall
from flows.describe import result_lines
from flows.round import KEPT_IN_MLFLOW
from tasks import track
from tests.conftest import tiny_pictures
from tests.flows.conftest import call_of, kept_at

pytestmark = pytest.mark.usefixtures("plainly")

DP_SGD = ["privacy.name=dp_sgd", "privacy.noise_multiplier=2", "privacy.delta=1e-3"]
SITE = ["privacy.name=site_level", "privacy.clip=1", "privacy.noise_multiplier=2"]
BROKEN = 5
TEXTS = (".json", ".jsonl", ".html", ".md", ".txt", ".csv")


@pytest.fixture
def spoilt(write_npz):
    """A training case without any contrast, which validation drops and names."""

    def write() -> None:
        arrays = tiny_pictures()
        arrays["train_images"][BROKEN] = 7
        write_npz(arrays)

    return write


def shared_texts(folder: RunFolder) -> dict[str, str]:
    """The text files of a run but for those of the sites, and those of its MLflow run.

    What the parties have sent each other is among them: of a message its JSON, or all of its bytes.
    """
    project = folder.root.parents[2]
    places = [path for path in folder.root.rglob("*") if "sites" not in path.parts[-3:]]
    places = [p for p in places if not p.is_relative_to(folder.root / "sites")]
    artifacts = list((project / "mlruns" / "artifacts").rglob("*"))
    texts = {}
    for path in [*places, *artifacts]:
        name = str(path.relative_to(project))
        if path.is_file() and path.suffix in TEXTS:
            texts[name] = path.read_text(encoding="utf-8")
        if path.suffix == ".message":
            content = path.read_bytes()
            with open_message(path) as unread:
                body = content[len(content) - unread.header.length :]
            is_json = body.startswith(b"{")
            texts[f"{name}.json" if is_json else name] = (body if is_json else content).decode(
                "utf-8" if is_json else "latin-1"
            )
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
    with np.load(project / "data" / "medmnist" / "bloodmnist.npz") as arrays:
        labels = arrays["train_labels"].reshape(-1)
    cases = {site: set(kept_at(folder, site).data()[1][site]["train"]) for site in folder.sites()}
    counts = {s: np.bincount(labels[sorted(own)], minlength=8).tolist() for s, own in cases.items()}
    return counts, cases


def digests_of(folder: RunFolder, split: Split) -> list[str]:
    """The digest of every record of a split, of all sites."""
    experiment = folder.experiment()
    cases = held_cases(experiment, load(locate(experiment.data), experiment.data))
    return [record for site in folder.sites() for record in cases.of(site, split).records]


@pytest.mark.parametrize("privacy", [DP_SGD, SITE], ids=["dp_sgd", "site_level"])
def test_no_label_counts_or_case_indices_leave_the_sites(run, project, spoilt, caplog, privacy):
    spoilt()
    overrides = [*privacy, "validate.on_failure=drop-case", "sites.min_cases=4"]
    folder = run(overrides=overrides, rounds=1, prepared=None)
    counts, cases = secrets_of(folder, project)
    texts = shared_texts(folder)
    names = {Path(name).name for name in texts}
    assert {"partition.json", "validation.json", "summary.json", "round.json"} <= names
    assert "report.html" in names
    assert {"audit.jsonl", "state", "joining"} <= names | {Path(n).parts[-3] for n in texts}
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


@pytest.mark.parametrize("privacy", [DP_SGD, SITE], ids=["dp_sgd", "site_level"])
def test_nothing_by_which_a_guess_of_the_records_could_be_checked_leaves_the_sites(
    run, consilium_home, privacy
):
    """A hash of them tells who knows all records but one which one that is."""
    folder = run(overrides=privacy, rounds=1)
    sets = [path.stem for path in (consilium_home / "ledger" / "records").glob("*")]
    ledger = (consilium_home / "ledger" / "bloodmnist.jsonl").read_text()
    records = {r for split in ("train", "val") for r in digests_of(folder, split)}
    assert len(sets) >= 6
    assert len(records) > 40
    for name, text in shared_texts(folder).items():
        assert not any(digest in text for digest in (*sets, *records)), name
        assert folder.data().md5 not in text or name.endswith("inputs.json"), name
    for entry in map(json.loads, ledger.splitlines()):
        # The hash of an entry is told, so it is of something that cannot be guessed.
        assert len(entry["salt"]) == 32


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
    kept = kept_at(folder, "site-01")
    assert kept.data_path.stat().st_mode & 0o077 == 0
    kept.data_path.unlink()
    assert folder.case_counts().cases("site-01", "train") > 0
    with pytest.raises(ConsiliumError, match=r"site-01/runs/.*/data\.json, cannot be read"):
        evaluate_site(call_of(folder, "site-01"), 1)


def times_in(value: object, path: str = "") -> Iterator[str]:
    """Where in a record of a run there are seconds or memory."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from times_in(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from times_in(item, path)
    elif value is not None and ("seconds" in path or "rss" in path):
        yield path


@pytest.mark.parametrize("privacy", [DP_SGD, SITE], ids=["dp_sgd", "site_level"])
def test_no_times_or_memory_of_a_private_sites_stages_are_recorded(run, caplog, privacy):
    """They follow the batches that were drawn: a batch without a case is a little quicker."""
    folder = run(overrides=privacy)
    for record in folder.records():
        assert list(times_in(record)) == []
        assert {"total", "local_train", "overhead"} <= record["seconds"].keys()
    summary = json.loads(folder.summary_path.read_text())
    told = set(times_in(summary))
    assert told == {".seconds.total", ".seconds.startup.orchestration", ".seconds.startup.data"}
    assert {"rounds", "local_train", "overhead_per_round"} <= summary["seconds"].keys()
    mlflow = track.client()
    run_id = summary["mlflow_run_id"]
    names = mlflow.get_run(run_id).data.metrics
    assert not [name for name in names if "seconds" in name or "rss" in name]
    history = mlflow.get_metric_history(run_id, "val/auc")
    assert [metric.timestamp for metric in history] == [0, 0]
    assert "round 1/2: validation" in caplog.text
    assert not re.search(r"round \d/\d: .*\d s\)", caplog.text)
    assert "s; sent up" in " ".join(result_lines(folder.root))


def test_times_of_a_run_without_privacy_are_recorded_as_ever(run):
    folder = run(rounds=1)
    (record,) = folder.records()
    assert record["seconds"]["local_train"] > 0 < record["peak_rss_mb"]
    summary = json.loads(folder.summary_path.read_text())
    assert summary["seconds"]["rounds"][0] > 0 < summary["peak_rss_mb"]


def test_why_a_private_site_drops_out_is_told_to_the_site_alone(run, monkeypatch, caplog):
    """What cannot be read is named by its file, and a file by its patient."""

    def fail(call: SiteCall, round_number: int) -> object:
        if call.site == "site-01":
            raise ConsiliumError("The file jane-doe.nii.gz cannot be read.")
        return train_site(call, round_number)

    monkeypatch.setattr(tasks.local_train, "train_site", fail)
    folder = run(overrides=[*DP_SGD, "sites.on_dropout=continue"], rounds=1)
    (record,) = folder.records()
    assert "the reason stays with the site" in record["dropped"]["site-01"]
    assert "jane-doe" not in " ".join([*shared_texts(folder).values(), caplog.text])
    own = kept_at(folder, "site-01").error_path
    assert "jane-doe" in own.read_text()
    assert own.stat().st_mode & 0o077 == 0
