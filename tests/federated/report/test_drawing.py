"""Axes hold what is drawn on them, between two of their ticks."""

from hypothesis import example, given
from hypothesis import strategies as st

from federated.report.charts import ends_of
from federated.report.drawing import Scale, room_for

# As results are told: to six digits, and to a billionth.
TOLD = st.floats(-1e6, 1e6).map(lambda value: float(f"{round(value, 9):.6g}"))
NUMBERS = st.lists(TOLD, min_size=1, max_size=9)


@given(NUMBERS, st.sampled_from([3, 4, 5, 6]))
@example([39784.0], 5)
def test_every_value_is_between_two_ticks(values: list[float], ticks: int) -> None:
    low, high = room_for(values, ticks=ticks)
    drawn = Scale(low, high, 0, 1).ticks(ticks)
    slack = 1e-6 * (high - low)
    assert abs(drawn[0] - low) <= slack
    assert abs(drawn[-1] - high) <= slack
    assert 2 <= len(drawn) <= ticks + 2
    assert min(values) > low or low == 0 == min(values)
    assert max(values) < high


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.sampled_from([3, 4, 5]))
def test_a_share_is_within_0_and_1(values: list[float], ticks: int) -> None:
    low, high = ends_of(values, True, ticks)
    assert 0 <= low <= min(values)
    assert max(values) <= high <= 1


def test_a_single_value_is_in_the_middle() -> None:
    low, high = ends_of([1.24], share=False)
    assert 0.25 < (1.24 - low) / (high - low) < 0.75
