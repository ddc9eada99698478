"""Folders of images and masks: found, split by patient, dealt to sites."""

import numpy as np
import pytest

from federated.data.folders.dataset import folder_md5, read_folder
from federated.data.folders.families import FAMILIES
from federated.data.folders.phantom import write_phantom
from federated.data.load import load, locate
from federated.data.partition import leave_out
from federated.data.partitioning import partition_dataset
from federated.errors import ConsiliumError
from federated.settings.sections import DataSettings, SitesSettings

SMALL = {2: (24, 24), 3: (8, 8, 8)}
SPLITS = ("train", "val", "test")


@pytest.fixture
def dataset(tmp_path):
    def make(name, cases=24):
        family = FAMILIES[name]
        write_phantom(family, tmp_path / name, cases, 0, SMALL[family.dims])
        return read_folder(tmp_path / name, name)

    return make


@pytest.mark.parametrize("name", ["brain", "retina"])
def test_a_patient_is_in_one_split_and_at_one_site(dataset, name):
    found = dataset(name)
    patients = {split: {case.patient for case in found.cases[split]} for split in SPLITS}
    assert sum(map(len, patients.values())) == len(set.union(*patients.values()))
    assert all(patients.values())
    partition = partition_dataset(
        found, SitesSettings(count=3, partition="iid", min_cases=1), seed=1
    )
    for split in SPLITS:
        everyone = [i for splits in partition.sites.values() for i in splits[split]]
        assert sorted(everyone) == list(range(len(found.cases[split])))
    owners = {}
    for site, splits in partition.sites.items():
        for case in (found.cases["train"][i] for i in splits["train"]):
            assert owners.setdefault(case.patient, site) == site
    assert len({len(owners), len(found.cases["train"])}) == 2, "no patient has several cases here"


def test_the_split_does_not_depend_on_the_seed_of_a_run_and_the_sites_do(dataset):
    found = dataset("hippocampus")
    iid = SitesSettings(count=3, partition="iid", min_cases=1)
    assert partition_dataset(found, iid, 0) == partition_dataset(found, iid, 0)
    assert partition_dataset(found, iid, 0) != partition_dataset(found, iid, 1)
    assert found.info.cases == {"train": 17, "val": 2, "test": 5}


def test_natural_sites_are_those_of_the_data_and_each_has_all_splits(dataset):
    partition = partition_dataset(
        dataset("retina"), SitesSettings(count=2, partition="natural", min_cases=1), seed=0
    )
    assert list(partition.sites) == ["site-chasedb1", "site-drive"]
    assert all(partition.cases(s, split) for s in partition.sites for split in SPLITS)


def test_more_natural_sites_than_the_data_have_divide_each_of_them_by_patient(dataset):
    found = dataset("retina")
    natural = SitesSettings(count=2, partition="natural", min_cases=1)
    whole = partition_dataset(found, natural, seed=0)
    four = natural.model_copy(update={"count": 4})
    parts = partition_dataset(found, four, seed=0)
    assert parts != partition_dataset(found, four, seed=1)
    assert list(parts.sites) == [
        *("site-chasedb1-00", "site-chasedb1-01", "site-drive-00", "site-drive-01")
    ]
    for name, splits in whole.sites.items():
        first, second = (parts.sites[f"{name}-{part}"] for part in ("00", "01"))
        for split in SPLITS:
            assert sorted(first[split] + second[split]) == list(splits[split])
        one, other = (
            {found.cases["train"][i].patient for i in part["train"]} for part in (first, second)
        )
        assert one
        assert other
        assert not one & other


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("retina", {"count": 3}, r"has 2 sites \(chasedb1, drive\).*Set sites\.count to 2, or"),
        ("retina", {"count": 30}, r"into 15, but chasedb1 has 4 patients.*Set sites\.count=8 or"),
        ("kidney", {"count": 2}, r"do not say which site 24 cases.*use sites\.partition=iid"),
    ],
)
def test_natural_sites_that_the_data_do_not_have_are_refused(dataset, name, settings, said):
    with pytest.raises(ConsiliumError, match=said):
        partition_dataset(
            dataset(name),
            SitesSettings(**{"partition": "natural", "min_cases": 1} | settings),
            seed=0,
        )


def test_a_folder_is_named_by_the_content_of_all_its_files(tmp_path):
    write_phantom(FAMILIES["hippocampus"], tmp_path / "a", 3, 0, SMALL[3])
    before = folder_md5(tmp_path / "a")
    assert before == folder_md5(tmp_path / "a")
    (tmp_path / "linked").mkdir()
    for part in ("images", "labels"):
        (tmp_path / "linked" / part).symlink_to(tmp_path / "a" / part)
    assert before == folder_md5(tmp_path / "linked")
    next((tmp_path / "a" / "labels").iterdir()).write_bytes(b"another")
    assert folder_md5(tmp_path / "a") != before


class TestLocate:
    def test_a_missing_folder_says_where_it_should_be_and_what_it_holds(self, tmp_path):
        settings = DataSettings(dataset="skin", source="files", root=tmp_path)
        with pytest.raises(ConsiliumError, match=r"no folder .*skin.*HAM10000.*source=phantom"):
            locate(settings)

    def test_an_empty_one_too(self, tmp_path):
        (tmp_path / "skin").mkdir()
        settings = DataSettings(dataset="skin", source="files", root=tmp_path)
        with pytest.raises(ConsiliumError, match="holds no image of the data set skin"):
            load(locate(settings), settings)

    def test_auto_takes_a_phantom_only_where_there_are_no_files(self, tmp_path):
        settings = DataSettings(dataset="retina", source="auto", root=tmp_path)
        made = locate(settings)
        assert made.source == "phantom"
        assert locate(settings) == made
        assert len(load(made, settings).cases["train"]) == 17
        write_phantom(FAMILIES["retina"], tmp_path / "retina", 8, 0, SMALL[2])
        assert locate(settings).source == "files"


def test_dropped_cases_leave_a_partition(dataset):
    partition = partition_dataset(
        dataset("hippocampus"), SitesSettings(count=2, partition="iid", min_cases=1), seed=0
    )
    first = partition.sites["site-00"]["train"][0]
    left = leave_out(partition, {"site-00": {"train": [first]}})
    assert first not in left.sites["site-00"]["train"]
    assert left.cases("site-00", "train") == partition.cases("site-00", "train") - 1
    assert left.sites["site-01"] == partition.sites["site-01"]
    assert np.all(left.sites["site-00"]["val"] == partition.sites["site-00"]["val"])
