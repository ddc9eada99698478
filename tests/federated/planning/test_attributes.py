"""Age, sex and scanner are counted in bins that nobody's data have chosen."""

import pytest

from federated.planning.attributes import ATTRIBUTE_BINS, UNKNOWN, attribute_place


@pytest.mark.parametrize(("name", "cell", "bin_"), [
    ("age", "63", "60-69"), ("age", "063Y", "60-69"), ("age", "9,5", "0-9"), ("age", "101", "90+"),
    ("age", "", UNKNOWN), ("age", "old", UNKNOWN), ("age", "-3", UNKNOWN), ("age", "nan", UNKNOWN),
    ("sex", "F", "female"), ("sex", "Male", "male"), ("sex", "Dr. X", UNKNOWN),
    ("scanner", "SIEMENS Skyra", "siemens"), ("scanner", "GE MEDICAL SYSTEMS", "ge"),
    ("scanner", "Genesis", "other"), ("scanner", "", UNKNOWN),
])  # fmt: skip
def test_a_cell_is_counted_in_a_known_bin_and_its_text_is_kept_by_nobody(name, cell, bin_):
    assert ATTRIBUTE_BINS[name][attribute_place(name, cell)] == bin_
