"""Counts in bins that no data decide: they add up, and tell quantiles to half a per cent."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.planning.bins import Geometric, Symmetric, count, quantile, shortest

SIDES = Geometric(0.01, 100)
GREYS = Symmetric(1e6)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=40))
def test_a_spacing_is_known_to_half_a_per_cent(values: list[float]) -> None:
    known = SIDES.values[SIDES.place(values)]
    np.testing.assert_allclose(known, values, rtol=0.0101)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_an_intensity_is_known_to_a_hundredth_of_it_plus_one(values: list[float]) -> None:
    known = GREYS.values[GREYS.place(values)]
    assert (np.abs(known - values) <= 0.0102 * (np.abs(values) + 1)).all()


@pytest.mark.parametrize("side", [0.5, 0.98, 1, 1.5, 2, 2.5, 3, 5])
def test_round_spacings_come_out_as_they_are(side: float) -> None:
    assert SIDES.values[SIDES.place(side)] == side


def test_whole_numbers_below_a_hundred_come_out_as_they_are() -> None:
    sizes = Geometric(1, 2**14)
    whole = np.arange(1, 100)
    assert sizes.values[sizes.place(whole)].tolist() == whole.tolist()


def test_each_value_of_a_pixel_has_a_bin_of_its_own() -> None:
    pixels = np.arange(-255, 256)
    assert len(set(GREYS.place(pixels).tolist())) == 511
    assert GREYS.values[GREYS.place(pixels)].tolist() == pixels.tolist()


def test_what_lies_outside_is_in_the_outermost_bins() -> None:
    assert SIDES.place([0, -3, 1e9]).tolist() == [0, 0, SIDES.size - 1]
    assert GREYS.place([-1e30, 0, 1e30]).tolist() == [0, GREYS.size // 2, GREYS.size - 1]


@given(
    st.lists(st.floats(0.02, 90), min_size=1, max_size=60),
    st.lists(st.floats(0.02, 90), max_size=60),
    st.floats(0, 1),
)
def test_a_quantile_of_sums_is_numpys_of_all_values_together(
    one: list[float], other: list[float], share: float
) -> None:
    counted = count(SIDES, one) + count(SIDES, other)
    assert counted.sum() == len(one) + len(other)
    expected = np.quantile(SIDES.values[SIDES.place([*one, *other])], share)
    assert quantile(SIDES, counted, share) == pytest.approx(expected, rel=1e-12)


def test_nothing_counted_has_no_quantile() -> None:
    assert np.isnan(quantile(SIDES, np.zeros(SIDES.size, np.int64), 0.5))


def test_the_values_of_bins_rise() -> None:
    assert (np.diff(SIDES.values) > 0).all()
    assert (np.diff(GREYS.values) > 0).all()


def test_the_shortest_number_in_a_bin_has_the_fewest_digits() -> None:
    assert shortest(0.9755, 0.9853) == 0.98
    assert shortest(0.995, 1.005) == 1
