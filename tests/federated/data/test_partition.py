import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.data.dataset import SPLITS
from federated.data.label_partition import floors, partition_labels
from federated.data.partition_file import read_partition, write_partition
from federated.errors import ConsiliumError
from federated.settings.sections import SitesSettings


@st.composite
def problems(draw):
    classes = draw(st.integers(2, 11))
    count = draw(st.integers(1, 12))
    kind = draw(st.sampled_from(["iid", "dirichlet", "pathological", "quantity"]))
    held = draw(st.integers(-(-classes // count), classes))
    sites = SitesSettings(
        count=count,
        partition=kind,
        beta=draw(st.floats(0.05, 5)),
        classes_per_site=held,
        min_cases=draw(st.integers(1, 8)),
    )
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    least = count * sites.min_cases
    labels = {
        "train": rng.integers(0, classes, draw(st.integers(least, least + 200))),
        "val": rng.integers(0, classes, draw(st.integers(1, 60))),
        "test": rng.integers(0, classes, draw(st.integers(1, 60))),
    }
    labels["train"][0] = classes - 1
    return labels, sites, draw(st.integers(0, 2**20))


@given(problems())
@settings(max_examples=150, deadline=None)
def test_every_case_belongs_to_exactly_one_site_and_every_site_has_its_floor_of_cases(problem):
    labels, sites, seed = problem
    partition = partition_labels(labels, sites, seed)
    for split in SPLITS:
        dealt = [i for site in partition.sites.values() for i in site[split]]
        assert sorted(dealt) == list(range(len(labels[split])))
    least = floors(sites, labels)
    assert least["train"] == sites.min_cases
    for site in partition.sites:
        for split in SPLITS:
            assert partition.cases(site, split) >= least[split]


@given(problems())
@settings(max_examples=25, deadline=None)
def test_equal_seeds_give_equal_partitions(problem):
    labels, sites, seed = problem
    assert partition_labels(labels, sites, seed) == partition_labels(labels, sites, seed)


def test_other_seeds_give_other_partitions():
    labels = {split: np.arange(200) % 4 for split in SPLITS}
    sites = SitesSettings(count=4, partition="dirichlet")
    assert partition_labels(labels, sites, 0) != partition_labels(labels, sites, 1)


def class_counts(partition, labels, classes):
    return {
        site: {s: np.bincount(labels[s][list(own)], minlength=classes) for s, own in splits.items()}
        for site, splits in partition.sites.items()
    }


def shares_of_class_zero(partition, labels, classes):
    counts = class_counts(partition, labels, classes)
    return np.array([c["train"][0] for c in counts.values()]) / (labels["train"] == 0).sum()


def test_iid_gives_every_site_an_even_share_of_each_class():
    labels = {split: np.arange(1000) % 5 for split in SPLITS}
    partition = partition_labels(labels, SitesSettings(count=10, partition="iid"), 0)
    assert np.allclose(shares_of_class_zero(partition, labels, 5), 0.1, atol=0.006)


def test_a_small_beta_skews_more_than_a_large_one():
    labels = {split: np.arange(4000) % 4 for split in SPLITS}

    def skew(beta):
        sites = SitesSettings(count=8, partition="dirichlet", beta=beta, min_cases=1)
        runs = [
            shares_of_class_zero(partition_labels(labels, sites, s), labels, 4) for s in range(9)
        ]
        return np.mean([run.std() for run in runs])

    assert skew(0.1) > 2 * skew(10.0)


def test_pathological_sites_hold_only_their_classes():
    labels = {split: np.arange(1100) % 11 for split in SPLITS}
    sites = SitesSettings(count=10, partition="pathological", classes_per_site=2)
    partition = partition_labels(labels, sites, 3)
    assert partition.moved == 0
    for counts in class_counts(partition, labels, 11).values():
        for split in SPLITS:
            assert np.count_nonzero(counts[split]) == 2


def test_quantity_skew_mixes_classes_evenly_over_unequal_sites():
    labels = {split: np.arange(4000) % 2 for split in SPLITS}
    sites = SitesSettings(count=6, partition="quantity", beta=0.5, min_cases=20)
    partition = partition_labels(labels, sites, 0)
    sizes = [partition.cases(site, "train") for site in partition.sites]
    assert max(sizes) > 3 * min(sizes)
    for counts in class_counts(partition, labels, 2).values():
        zeros, ones = counts["train"]
        assert abs(zeros - ones) <= 2


def test_more_sites_than_cases_are_refused_with_the_remedy():
    labels = {split: np.zeros(30, dtype=np.int64) for split in SPLITS}
    with pytest.raises(ConsiliumError, match=r"sites.count=40.*has 30.*Lower sites.count"):
        partition_labels(labels, SitesSettings(count=40, min_cases=1), 0)


def test_classes_that_no_site_would_hold_are_refused():
    labels = {split: np.arange(500) % 11 for split in SPLITS}
    sites = SitesSettings(count=4, partition="pathological", classes_per_site=2)
    with pytest.raises(ConsiliumError, match="belong to no site"):
        partition_labels(labels, sites, 0)


def test_a_partition_survives_its_file(tmp_path):
    labels = {split: np.arange(100) % 3 for split in SPLITS}
    partition = partition_labels(labels, SitesSettings(count=3), 0)
    write_partition(tmp_path / "partition.json", partition, {"seed": 0})
    assert read_partition(tmp_path / "partition.json") == partition


def test_a_damaged_partition_file_is_named(tmp_path):
    (tmp_path / "partition.json").write_text('{"sites": 3')
    with pytest.raises(ConsiliumError, match=r"partition.json cannot be read"):
        read_partition(tmp_path / "partition.json")
