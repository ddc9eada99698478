"""Scales of intensities that an experiment may not have are refused when it is read."""

import pytest

from federated.configuration.load import load_experiment, resolve
from federated.errors import ConsiliumError
from tests.conftest import PROJECT

RISING = "0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100"


def read(name, *overrides):
    return load_experiment(name, overrides, PROJECT / "params.yaml")


@pytest.mark.parametrize(
    ("landmarks", "said"),
    [
        ("{MRI: [0, 10, 20, 30, 50, 40, 60, 70, 80, 90, 100]}", "do not rise"),
        ("{MRI: [0, 10, 20, 30, 40, 40, 60, 70, 80, 90, 100]}", "do not rise"),
        ("{MRI: [0, 10, 20, 30, 40, 50, 60, 70, 80, .nan, 100]}", "nan"),
        ("{MRI: [0, 10, 20, 30, 40, 50, 60, 70, 80, .inf, 100]}", "inf"),
        ("{MRI: [1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]}", "from 1 to 100"),
        ("{MRI: [0, 100]}", "has 2 landmarks"),
        (f"{{T1: [{RISING}]}}", "states T1"),
        (f"{{MRI: [{RISING}], T1: [{RISING}]}}", "states MRI, T1"),
        ("{}", "states nothing"),
    ],
)
def test_a_standard_that_is_none_is_refused(landmarks, said):
    with pytest.raises(ConsiliumError, match=said):
        read("hippocampus", "data.harmonise=nyul", f"data.landmarks={landmarks}")


@pytest.mark.parametrize("told", ["data.landmarks=auto", "data.landmarks=null"])
def test_a_standard_that_is_not_stated_is_planned_from_the_sites_sums(told):
    for overrides in ((told,), ()):
        made = read("hippocampus", "data.harmonise=nyul", *overrides)
        assert made.planning.auto == ("data.landmarks",)
        assert made.data.landmarks is None


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.landmarks=auto"], "uses none"),
        (["data.harmonise=percentiles", "data.landmarks=auto"], "uses none"),
        (["data.harmonise=nyul", "statistics.epsilon=2"], "not told with noise"),
    ],
)
def test_a_standard_that_cannot_be_planned_is_refused(overrides, said):
    with pytest.raises(ConsiliumError, match=said):
        read("hippocampus", *overrides)


def test_a_plan_that_leaves_the_standard_out_is_refused():
    """As a coordinator could send it: without the list of what is still to be planned."""
    value = read("hippocampus", "data.harmonise=nyul").to_json()
    del value["planning"]
    with pytest.raises(ConsiliumError, match=r"needs data\.landmarks"):
        resolve(value.pop("name"), value, "a plan")


def test_ct_is_not_harmonised_by_a_standard_that_is_planned_either():
    with pytest.raises(ConsiliumError, match=r"data\.harmonise=nyul would take its unit"):
        read("kidney", "data.harmonise=nyul")


def test_a_standard_is_kept_with_six_decimals():
    told = RISING.replace("50", "50.123456789")
    data = read("hippocampus", "data.harmonise=nyul", f"data.landmarks={{MRI: [{told}]}}").data
    assert data.landmarks["MRI"][5] == 50.123457


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("kidney", "Hounsfield"),
        ("organ", "classified"),
        ("chest", "pictures"),
        ("chest-tb", "classified"),
        ("retina", "pictures"),
    ],
)
def test_what_has_a_unit_or_no_scale_is_not_harmonised(name, said):
    with pytest.raises(ConsiliumError, match=said):
        read(name, "data.harmonise=percentiles")
