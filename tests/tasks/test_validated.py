"""What validation has found is found once for the same data and rules, and shown as such again."""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tasks.validate
from federated.configuration.load import resolve
from federated.data.dataset import SPLITS, Dataset, LocatedFile
from federated.data.folders.dataset import folder_md5
from federated.data.label_partition import partition_labels
from federated.data.medmnist import files as medmnist
from federated.errors import ConsiliumError
from federated.files import md5_of
from tasks import validated
from tasks.validate import begin_validation, validate
from tasks.validated import LONGEST, MOST_KEPT
from tests.conftest import TINY_PARAMS, tiny_volumes

SITES = {"count": 3, "partition": "iid", "min_cases": 8}


def experiment(**sections: object):
    usual = {"sites": SITES, "validate": {"on_failure": "drop-case"}}
    return resolve("tiny", TINY_PARAMS["defaults"] | usual | sections, "")


@pytest.fixture
def given(tmp_path):
    """What is validated: the experiment, its data set, the cases of each site, and the file."""
    arrays = tiny_volumes()
    dataset = Dataset(
        medmnist.dataset_info("adrenalmnist3d"),
        {split: arrays[f"{split}_images"][:, None] for split in SPLITS},
        {split: arrays[f"{split}_labels"][:, 0].astype(np.int64) for split in SPLITS},
    )
    partition = partition_labels(dataset.labels, experiment().sites, 0)
    dataset.images["train"][partition.sites["site-01"]["train"][0]] = 7
    located = LocatedFile(file_of(tmp_path, b"data"), "files", "0" * 32)
    return experiment(), dataset, partition, located


def file_of(folder: Path, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "adrenalmnist3d.npz"
    path.write_bytes(content)
    return path


def looked(given, folder: Path):
    folder.mkdir()
    asked, dataset, partition, located = given
    return validate.fn(asked, dataset, partition, folder, data=located)


def test_what_judges_is_begun_before_data_are_read_only_where_nothing_was_ever_judged(
    given, tmp_path, monkeypatch
):
    begun = []
    monkeypatch.setattr(tasks.validate, "begin_judging", begun.append)
    begin_validation(given[0])
    assert begun == [given[0]]
    looked(given, tmp_path / "first")
    begin_validation(given[0])
    assert begun == [given[0]]


def test_what_was_begun_to_judge_is_ended_where_it_was_judged_since(given, tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr(tasks.validate, "end_judging", lambda: ended.append(True))
    looked(given, tmp_path / "first")
    assert not ended
    looked(given, tmp_path / "again")
    assert ended


def test_the_same_data_and_rules_are_judged_once(given, tmp_path, monkeypatch):
    first = looked(given, tmp_path / "first")
    assert first.dropped
    assert first.line() == ""
    monkeypatch.delattr(tasks.validate, "broken_rules")
    again = looked(given, tmp_path / "again")
    assert replace(again, before=None) == first
    assert again.line().startswith(f"validation: as found on {again.before}")
    told = [json.loads((tmp_path / n / "validation.json").read_text()) for n in ("first", "again")]
    assert told[1].pop("found_before") == again.before
    assert told[0] == told[1]
    pages = [
        sorted((path.relative_to(root), path.read_bytes()) for path in root.rglob("*.html"))
        for root in (tmp_path / "first" / "data_docs", tmp_path / "again" / "data_docs")
    ]
    assert pages[0] == pages[1]
    assert any("after_dropping" in path.parts for path, _ in pages[0])


@pytest.fixture
def counted(monkeypatch):
    """The folders of pages for which the rules are looked at, without Great Expectations."""
    times: list[Path] = []

    def look(asked, info, tables, docs):
        docs.mkdir(parents=True)
        (docs / "index.html").write_text("pages")
        times.append(docs)
        return {site: [] for site in tables}

    monkeypatch.setattr(tasks.validate, "broken_rules", look)
    return times


VALUES = TINY_PARAMS["defaults"]["data"]
OTHERS = {
    "a place": lambda e, d, p, f: (
        e, d, p, replace(f, path=file_of(f.path.with_name("moved"), b"data")),
    ),
    "rules": lambda e, d, p, f: (
        experiment(validate={"on_failure": "drop-case", "min_cases_per_class": 2}), d, p, f,
    ),
    "what follows": lambda e, d, p, f: (experiment(validate={"on_failure": "abort"}), d, p, f),
    "how data are read": lambda e, d, p, f: (experiment(data=VALUES | {"size": 64}), d, p, f),
    "fewest cases": lambda e, d, p, f: (experiment(sites=SITES | {"min_cases": 9}), d, p, f),
    "cases of a site": lambda e, d, p, f: (
        e, d, replace(p, sites=p.sites | {"site-00": p.sites["site-01"]}), f,
    ),
    "a stray file": lambda e, d, p, f: (e, replace(d, unmatched=(f.path.with_name("x"),)), p, f),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_anything_else_is_judged_anew(given, counted, tmp_path, what):
    for name, asked in (("one", given), ("two", given), ("other", OTHERS[what](*given))):
        looked(asked, tmp_path / name)
    assert [docs.relative_to(tmp_path).parts[0] for docs in counted] == ["one", "other"]
    # And what was found first is still known.
    looked(given, tmp_path / "three")
    assert len(counted) == 2


# Two blocks that have the same MD5, by X. Wang and others, "Collisions for hash functions MD4, MD5,
# HAVAL-128 and RIPEMD", 2004.
COLLIDING = (
    "d131dd02c5e6eec4693d9a0698aff95c2fcab58712467eab4004583eb8fb7f89"
    "55ad340609f4b30283e488832571415a085125e8f7cdc99fd91dbdf280373c5b"
    "d8823e3156348f5bae6dacd436c919c6dd53e2b487da03fd02396306d248cda0"
    "e99f33420f577ee8ce54b67080a80d1ec69821bcb6a8839396f9652b6ff72a70",
    "d131dd02c5e6eec4693d9a0698aff95c2fcab50712467eab4004583eb8fb7f89"
    "55ad340609f4b30283e4888325f1415a085125e8f7cdc99fd91dbd7280373c5b"
    "d8823e3156348f5bae6dacd436c919c6dd53e23487da03fd02396306d248cda0"
    "e99f33420f577ee8ce54b67080280d1ec69821bcb6a8839396f965ab6ff72a70",
)


@pytest.mark.parametrize("is_folder", [False, True])
def test_other_data_of_the_same_md5_are_judged_too(given, counted, tmp_path, is_folder):
    asked, dataset, partition, located = given
    path = located.path
    if is_folder:
        located = replace(located, path=tmp_path / "set")
        path = file_of(located.path, b"")
    sums = set()
    for number, block in enumerate(COLLIDING):
        path.write_bytes(bytes.fromhex(block))
        sums.add(folder_md5(located.path) if is_folder else md5_of(path))
        looked((asked, dataset, partition, located), tmp_path / f"{number}")
    assert len(sums) == 1
    assert len(counted) == 2


@pytest.mark.parametrize("reader", ["pillow", "nibabel", "pydicom", "pandas", "pylibjpeg-libjpeg"])
def test_what_another_version_reads_is_judged_anew(given, counted, tmp_path, monkeypatch, reader):
    looked(given, tmp_path / "one")
    known = validated.installed
    monkeypatch.setattr(
        validated, "installed", lambda name: "0.0.1" if name == reader else known(name)
    )
    looked(given, tmp_path / "two")
    assert len(counted) == 2


def test_data_that_are_gone_are_said_to_be(given, tmp_path):
    given[3].path.unlink()
    with pytest.raises(ConsiliumError, match=r"adrenalmnist3d.npz.*it is not there"):
        looked(given, tmp_path / "one")


def test_without_knowing_where_the_data_lie_nothing_is_kept(given, counted, tmp_path):
    asked, dataset, partition, _ = given
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        validate.fn(asked, dataset, partition, tmp_path / name)
    assert len(counted) == 2


def test_what_is_kept_and_damaged_or_open_to_others_is_found_anew(
    given, counted, tmp_path, consilium_home
):
    looked(given, tmp_path / "one")
    (kept,) = (consilium_home / "validated").iterdir()
    # It has names of files, and intensities: for the site alone.
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    found = kept / "found.json"
    whole = found.read_text()
    for number, spoiled in enumerate(("", "[]", '{"when": "then"}', whole[:-20])):
        found.write_text(spoiled)
        looked(given, tmp_path / f"spoiled-{number}")
    assert len(counted) == 5
    found.write_text(whole)
    looked(given, tmp_path / "whole")
    assert len(counted) == 5
    shutil.rmtree(kept / "data_docs")
    looked(given, tmp_path / "without pages")
    assert len(counted) == 6
    kept.parent.chmod(0o755)
    looked(given, tmp_path / "open")
    assert len(counted) == 7


def test_what_a_killed_process_has_left_is_removed_and_not_what_another_one_writes(
    given, counted, tmp_path, consilium_home
):
    looked(given, tmp_path / "one")
    kept = consilium_home / "validated"
    for name, age in ((".old", 2 * LONGEST), (".new", 0)):
        (kept / name).mkdir()
        os.utime(kept / name, (time.time() - age,) * 2)
    given[3].path.write_bytes(b"other")
    looked(given, tmp_path / "two")
    assert {path.name for path in kept.iterdir() if path.name.startswith(".")} == {".new"}
    assert len(list(kept.iterdir())) == 3


def test_the_newest_are_kept(given, counted, tmp_path, consilium_home):
    asked, dataset, partition, located = given
    for number in range(MOST_KEPT + 2):
        located.path.write_bytes(b"%d" % number)
        looked((asked, dataset, partition, located), tmp_path / f"{number}")
    assert len(list((consilium_home / "validated").iterdir())) == MOST_KEPT


@pytest.mark.parametrize("error", [ValueError, ConsiliumError])
def test_why_the_cases_of_a_private_run_cannot_be_validated_stays_with_the_sites(
    given, tmp_path, monkeypatch, error
):
    """What cannot be read is named by its file, and a file by its patient."""

    def fail(*_):
        raise error("jane-doe.nii.gz is cut short")

    monkeypatch.setattr(tasks.validate, "broken_rules", fail)
    asked, dataset, partition, _ = given
    own = tmp_path / "sites"
    with pytest.raises(ConsiliumError, match="the reason stays with the sites") as told:
        validate.fn(asked, dataset, partition, tmp_path / "run", own)
    assert told.value.__suppress_context__
    assert "jane-doe" not in str(told.value)
    kept = own / tasks.validate.ERROR
    assert "jane-doe" in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0
    with pytest.raises(error, match="jane-doe"):
        validate.fn(asked, dataset, partition, tmp_path / "run")
