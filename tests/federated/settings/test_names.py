"""Names of sites, experiments and runs: none leaves the folder that it is meant for."""

import csv
import json
from pathlib import Path

import pytest

from federated.configuration.load import load_experiment
from federated.data.dataset import LocatedFile
from federated.data.folders.dataset import read_folder
from federated.data.folders.families import FAMILIES
from federated.data.folders.phantom import write_phantom
from federated.data.partition import Partition
from federated.data.partition_file import read_partition, write_partition
from federated.data.partitioning import partition_dataset
from federated.errors import ConsiliumError
from federated.exchange.folder import FolderExchange, Place
from federated.run.folder import RunFolder
from federated.run.runs import latest_run, reopen_run
from federated.settings.names import refuse_name, refuse_site_name
from federated.settings.sections import SitesSettings
from federated.site.home import SiteHome, SiteRun
from tests.conftest import PROJECT

BAD = [
    *("", ".", "..", "a/b", "a/../../x", "/etc", "..\\x", ".hidden", "-rf", "_x", "a b", "a\nb"),
    *("a\0b", "a'b", 'a"b', "a$b", "a..b", "x" * 101, "ä" * 51, "a\u0301", "a\u202eb"),
]


@pytest.mark.parametrize("name", BAD)
def test_what_could_leave_a_folder_or_pass_for_an_option_is_no_name(name):
    with pytest.raises(ConsiliumError, match="Use letters, digits, - and _"):
        refuse_name(name, "a run's id")
    with pytest.raises(ConsiliumError, match="cannot be a site's name"):
        refuse_site_name(name)


@pytest.mark.parametrize("name", ["pooled", "sum", "latest", "site.update"])
def test_names_that_stand_for_something_else_are_no_sites(name):
    with pytest.raises(ConsiliumError, match="cannot be a site's name"):
        refuse_site_name(name)


@pytest.mark.parametrize("name", ["clinic-north", "Klinik_Süd", "site-00", "7", "東京"])
def test_ordinary_names_are_kept_as_they_are(name):
    assert refuse_site_name(name) == name
    assert refuse_name(f"{name}.2", "an experiment's name") == f"{name}.2"


def test_a_table_cannot_name_a_site_out_of_the_runs_folder(tmp_path):
    folder = tmp_path / "skin"
    write_phantom(FAMILIES["skin"], folder, 12, seed=0, shape=(16, 16))
    images = sorted(path.stem for path in (folder / "images").iterdir())
    with (folder / "HAM10000_metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["lesion_id", "image_id", "dataset"])
        writer.writeheader()
        for number, image in enumerate(images):
            site = "a/../../x" if number == 7 else "vienna"
            writer.writerow({"lesion_id": image, "image_id": image, "dataset": site})
    settings = SitesSettings(count=2, partition="natural", min_cases=1)
    with pytest.raises(ConsiliumError, match=rf"'a/../../x' cannot be.*table.*{images[7]}"):
        partition_dataset(read_folder(folder, "skin"), settings, seed=0)


def test_a_partitions_file_cannot_either(tmp_path):
    held = {"train": (0,), "val": (1,), "test": (2,)}
    path = tmp_path / "partition.json"
    write_partition(path, Partition({"a/../../x": held}, 1, 0), {})
    with pytest.raises(ConsiliumError, match=r"a/../../x.*partition\.json"):
        read_partition(path)
    folder = RunFolder(tmp_path / "run")
    folder.write_partition(Partition({"good": held}, 1, 0), {})
    value = json.loads(folder.partition_path.read_text())
    value["cases"]["../../x"] = value["cases"].pop("good")
    folder.partition_path.write_text(json.dumps(value))
    with pytest.raises(ConsiliumError, match="cannot be a site's name"):
        folder.case_counts()


@pytest.mark.parametrize("cases", [[-1], [0.5], ["0"], [True], "012", None, {"0": 1}])
def test_a_sites_cases_are_numbers_of_cases(tmp_path, cases):
    run = SiteRun(tmp_path / "a" / "runs" / "run")
    data, parts = LocatedFile(tmp_path, "files", ""), {"a": {"train": (0,), "val": (), "test": ()}}
    run.write_data(data, parts)
    assert run.data()[1] == parts
    value = json.loads(run.data_path.read_text())
    value["parts"]["a"]["train"] = cases
    run.data_path.write_text(json.dumps(value))
    with pytest.raises(ConsiliumError, match=r"run/data\.json, cannot be read"):
        run.data()


def test_no_path_of_a_run_is_made_from_another_name(tmp_path):
    folder = RunFolder(tmp_path)
    for make in (folder.home_path, folder.style_path, folder.ledger_path):
        with pytest.raises(ConsiliumError, match="cannot be a site's name"):
            make("../x")


def test_no_path_of_a_sites_home_is_made_from_another_name(tmp_path):
    home = SiteHome(tmp_path / "site-00")
    for make in (home.run, home.run("run").style_path):
        with pytest.raises(ConsiliumError, match="Use letters, digits"):
            make("../x")


@pytest.mark.parametrize("field", ["run", "recipient", "kind", "sender"])
def test_no_path_of_an_exchange_is_made_from_another_name(tmp_path, field):
    names = {"run": "run", "recipient": "all", "kind": "payload", "sender": "site-00"}
    place = Place(round=1, attempt=1, **(names | {field: "../x"}))
    with pytest.raises(ConsiliumError, match="Use letters, digits"):
        FolderExchange(tmp_path).find(place)


def test_the_command_lines_experiments_and_runs_stay_below_the_folder_of_runs(tmp_path):
    outside = tmp_path / "elsewhere" / "run"
    outside.mkdir(parents=True)
    (outside / "config.json").write_text("{}")
    runs = tmp_path / "runs"
    for name, run_id in (("../elsewhere", "run"), ("tiny", "../../elsewhere/run")):
        with pytest.raises(ConsiliumError, match="Use letters, digits"):
            reopen_run(runs, name, run_id, None)
    with pytest.raises(ConsiliumError, match="Use letters, digits"):
        latest_run(runs, "../elsewhere")


def test_an_experiment_cannot_be_named_out_of_the_folder_of_runs(tmp_path):
    params = tmp_path / "params.yaml"
    text = (PROJECT / "params.yaml").read_text(encoding="utf-8")
    params.write_text(text.replace("\nexperiments:\n", "\nexperiments:\n  ../x: {}\n"))
    assert "../x" in params.read_text()
    with pytest.raises(ConsiliumError, match=r"'\.\./x' under .experiments:. .* cannot be a name"):
        load_experiment("../x", params=Path(params))
