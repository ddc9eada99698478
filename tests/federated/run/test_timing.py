import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.run.timing import Interval, covered

STARTS = st.integers(0, 50)


def test_overlaps_count_once_and_gaps_not_at_all():
    assert covered([Interval(0, 2), Interval(1, 3), Interval(5, 6), Interval(5, 5.5)]) == 4.0


def test_nothing_covers_nothing():
    assert covered([]) == 0.0


@given(st.lists(st.tuples(STARTS, st.integers(0, 10))))
def test_the_union_counts_each_moment_once(parts):
    moments = {m for start, length in parts for m in range(start, start + length)}
    intervals = [Interval(start, start + length) for start, length in parts]
    assert covered(intervals) == pytest.approx(len(moments))


@given(STARTS, st.integers(0, 10), STARTS, st.integers(0, 10))
def test_the_part_within_another_is_what_both_have(started, length, other, others):
    one, window = Interval(started, started + length), Interval(other, other + others)
    both = set(range(started, started + length)) & set(range(other, other + others))
    part = one.within(window)
    assert part.seconds == len(both)
    assert window.started <= part.started <= part.ended <= window.ended
