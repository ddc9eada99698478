"""No group of few cases can be read from what is told."""

import itertools
from collections import defaultdict

import numpy as np
import pytest

from federated.data.folders.volume import Volume
from federated.planning.fingerprint import Scheme, fingerprint_of, sum_of
from federated.planning.summary import summary_of
from federated.planning.suppression import hidden_cells, hidden_classes, without_small

SCHEME = Scheme(3, 1, 3, voxelwise=True, attributes=("sex",))


def small_counts_that_can_be_read(rule, least, cells, most):
    """Of how many sets of cells their small number follows from what is told, by the rule itself.

    Who reads a row knows how many cases there are, that a cell that is hidden is told as 0, and the
    rule: so what is the same in all rows that are told so is known.
    """
    told = defaultdict(list)
    for row in itertools.product(range(most + 1), repeat=cells):
        if least <= sum(row) <= most:
            counts = np.array(row)
            told[(*np.where(rule(counts, least), 0, counts).tolist(), sum(row))].append(row)
    found = 0
    for rows in map(np.array, told.values()):
        for several in range(1, cells):
            for places in itertools.combinations(range(cells), several):
                numbers = set(rows[:, places].sum(axis=1).tolist())
                found += len(numbers) == 1 and 0 < numbers.pop() < least
    return found


@pytest.mark.parametrize(
    ("least", "cells", "most"), [(3, 2, 12), (3, 3, 12), (3, 4, 9), (4, 3, 12), (5, 3, 14)]
)
def test_of_every_small_row_nothing_between_1_and_the_least_can_be_read(least, cells, most):
    assert small_counts_that_can_be_read(hidden_cells, least, cells, most) == 0


def test_that_is_an_attack_on_rows_of_which_the_smallest_cells_are_hidden():
    def smallest(row, least):
        hidden = (row > 0) & (row < least)
        for place in np.argsort(row, kind="stable"):
            if 0 < int(row[hidden].sum()) < least and row[place] > 0:
                hidden[place] = True
        return hidden

    assert small_counts_that_can_be_read(smallest, 3, 3, 10) > 0


def test_what_is_told_has_no_small_number_and_all_of_a_row_otherwise():
    for row in itertools.product(range(5), repeat=3):
        hidden = hidden_cells(np.array(row), 3)
        assert hidden.all() == any(0 < count < 3 for count in row)
        assert hidden.all() or not hidden.any()


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
    assert set(told["sex"].values()) == {None}
    assert told["spacing_mm"]["superior"] == {
        **{"0.05": None, "0.25": 2.0, "0.5": 2.0, "0.75": 2.0, "0.95": None}
    }
    whole = summary_of(found, ("background", "one", "two"), ("MRI",), 0)
    assert whole["sex"]["male"] == 1
    assert sum(whole["intensities"]["MRI"]["histogram"]["share"]) == pytest.approx(1)


def test_what_every_site_withholds_is_no_count_of_zero():
    """In the clear sites tell 0 for what is small: ten cases of no sex would be a false report."""
    found = without_small(sum_of(SCHEME, [case(n, "f" if n else "m") for n in range(10)]), 3)
    told = summary_of(found, ("background", "one", "two"), ("MRI",), 3)
    assert told["cases"] == 10
    assert set(told["sex"].values()) == {None}
    without = sum_of(SCHEME, [])
    assert set(summary_of(without, ("background", "one", "two"), ("MRI",), 3)["sex"].values()) == {
        0
    }
