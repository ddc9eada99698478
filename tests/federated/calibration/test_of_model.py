"""What is kept with a model of its calibration, and what follows from it for a case."""

import numpy as np
import pytest

from federated.calibration.of_model import ModelCalibration
from federated.calibration.temperature import tempered
from federated.errors import ConsiliumError

FOUND = np.array([[0.7, 0.3], [0.5, 0.5], [0.95, 0.05]])


def record(threshold: float = 0.4, sites: int = 2) -> dict:
    own = {f"site-{n:02d}": {"own": {"threshold": 0.1 * n}} for n in range(sites)}
    return {
        "temperature": {"temperature": 2.0},
        "conformal": {"alpha": 0.2, "pooled": {"threshold": threshold}, "sites": own},
    }


def test_a_record_without_a_calibration_gives_none():
    assert ModelCalibration.of_record(None) is None
    assert ModelCalibration.of_record({}) is None


def test_temperature_and_thresholds_are_those_of_the_record():
    found = ModelCalibration.of_record(record())
    assert found == ModelCalibration(2.0, 0.2, 0.4, {"site-00": 0.0, "site-01": 0.1})
    np.testing.assert_array_equal(found.scaled(FOUND), tempered(FOUND, 2.0))


def test_a_temperature_alone_makes_no_sets():
    found = ModelCalibration.of_record({"temperature": {"temperature": 0.5}})
    assert found == ModelCalibration(0.5)
    assert found.sets(FOUND) is None


def test_a_set_has_each_class_from_the_threshold_on_of_the_site_that_is_named():
    found = ModelCalibration.of_record(record())
    assert found.sets(FOUND).tolist() == [[True, False], [True, True], [True, False]]
    assert found.sets(FOUND, "site-01").tolist() == [[True, True], [True, True], [True, False]]
    assert found.sets(FOUND, "site-00").all()
    with pytest.raises(ConsiliumError, match="none of 'site-07'"):
        found.sets(FOUND, "site-07")


def test_an_empty_set_is_possible_where_no_class_is_likely_enough():
    assert not ModelCalibration(1.0, 0.2, 0.6).sets(FOUND)[1].any()


def test_thresholds_of_more_sites_than_a_file_has_room_for_are_left_out():
    assert ModelCalibration.of_record(record(sites=1000)).sites == {}


def test_who_asks_for_a_sites_sets_is_told_where_there_are_none_of_sites():
    pooled = ModelCalibration(1.5, 0.1, 0.2)
    assert "threshold of all sites together and not by that of 'site-00'" in pooled.note("site-00")
    assert pooled.note(None) == ""
    assert ModelCalibration(1.5).note("site-00") == ""
    assert ModelCalibration(1.5, 0.1, 0.2, {"site-00": 0.3}).note("site-00") == ""
