"""No group of few cases can be read from what is told."""

import itertools

import numpy as np
import pytest

from federated.data.folders.volume import Volume
from federated.planning.fingerprint import Scheme, fingerprint_of, sum_of
from federated.planning.summary import summary_of
from federated.planning.suppression import hidden_cells, hidden_classes, without_small

SCHEME = Scheme(3, 1, 3, voxelwise=True, attributes=("sex",))


@pytest.mark.parametrize("least", [2, 3, 5])
def test_of_every_small_row_nothing_between_1_and_the_least_can_be_read(least):
    """Neither a cell that is told, nor what is hidden together, which follows from the sum."""
    for row in itertools.product(range(7), repeat=3):
        counts = np.array(row)
        hidden = hidden_cells(counts, least)
        assert not ((counts[~hidden] > 0) & (counts[~hidden] < least)).any()
        together = counts[hidden].sum()
        assert together == 0 or together >= least or not counts[~hidden].any(), row


def test_few_who_have_a_class_not_are_hidden_too():
    assert hidden_classes(np.array([10, 9, 1, 5, 0]), 10, 3).tolist() == [
        *(False, True, True, False, False)
    ]


def case(seed, sex):
    labels = np.zeros((6, 6, 6), int)
    labels[:3] = 1
    labels[:1] = 2 * (seed % 5 == 0) + 1 * (seed % 5 != 0)
    values = np.random.default_rng(seed).normal(size=(1, 6, 6, 6))
    return fingerprint_of(SCHEME, [Volume(values, np.eye(4) * [1, 1, 2, 1])], labels, {"sex": sex})


def test_a_site_in_the_clear_tells_0_for_what_is_small():
    found = sum_of(SCHEME, [case(n, "f" if n else "m") for n in range(10)])
    told = without_small(found, 3)
    assert found.counts["with_class"].tolist() == [10, 10, 2]
    assert told.counts["with_class"].tolist() == [10, 10, 0]
    assert not told.counts["share"][1].any()
    # The one man would follow from the sum, so that nothing of the sex is told.
    assert found.counts["sex"].tolist() == [9, 1, 0, 0]
    assert told.counts["sex"].tolist() == [0, 0, 0, 0]
    assert told.counts["intensity"].any()
    assert not without_small(case(0, "f"), 3).counts["intensity"].any()
    assert without_small(found, 0) is found


def test_a_report_hides_small_numbers_and_outer_quantiles():
    found = sum_of(SCHEME, [case(n, "f" if n else "m") for n in range(10)])
    told = summary_of(found, ("background", "one", "two"), ("MRI",), 3)
    assert told["classes"] == {"background": 10, "one": 10, "two": None}
    assert told["sex"] == {"female": None, "male": None, "other": 0, "unknown": 0}
    assert told["spacing_mm"]["superior"] == {
        **{"0.05": None, "0.25": 2.0, "0.5": 2.0, "0.75": 2.0, "0.95": None}
    }
    whole = summary_of(found, ("background", "one", "two"), ("MRI",), 0)
    assert whole["sex"]["male"] == 1
    assert sum(whole["intensities"]["MRI"]["histogram"]["share"]) == pytest.approx(1)
