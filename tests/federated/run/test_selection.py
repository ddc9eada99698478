import pytest

from federated.run.selection import best_round, is_evaluated, kept_round, stops_early
from federated.settings.sections import SelectionSettings


def records(*values, name="auc"):
    return [{"round": n, "metrics": {"val": {name: v}}} for n, v in enumerate(values, 1)]


def test_the_best_round_is_the_first_with_the_best_value():
    assert best_round(records(0.5, 0.8, 0.7, 0.8), "val/auc") == 2
    assert best_round(records(0.5, 0.3, 0.4, name="loss"), "val/loss") == 2
    assert best_round(records(0.5, 0.3, 0.4, name="mae"), "val/mae") == 2
    assert best_round(records(-4.0, 0.3, 0.2, name="r2"), "val/r2") == 2


def test_a_round_without_a_value_is_never_the_best_unless_none_has_one():
    assert best_round(records(None, 0.6, None), "val/auc") == 2
    assert best_round(records(None, None, None), "val/auc") == 3


def test_the_last_round_is_kept_on_request():
    assert kept_round(records(0.9, 0.8), SelectionSettings()) == 1
    assert kept_round(records(0.9, 0.8), SelectionSettings(keep="last")) == 2


@pytest.mark.parametrize(
    ("values", "stops"),
    [((), False), ((0.5, 0.4), False), ((0.5, 0.4, 0.5), True), ((0.5, 0.4, 0.6), False)],
)
def test_a_run_stops_after_patience_rounds_without_a_better_value(values, stops):
    assert stops_early(records(*values), SelectionSettings(patience=2)) == stops
    assert not stops_early(records(*values), SelectionSettings())


def test_rounds_that_were_not_evaluated_are_neither_kept_nor_stopped_at():
    sparse = records(0.0, 0.6, 0.0, 0.5, 0.0)
    for number in (0, 2, 4):
        sparse[number]["metrics"] = {}
    assert kept_round(sparse, SelectionSettings()) == 2
    assert kept_round(sparse, SelectionSettings(keep="last")) == 4
    assert not stops_early(sparse, SelectionSettings(patience=2))
    assert stops_early(sparse[:4], SelectionSettings(patience=2))
    assert kept_round(sparse[:1], SelectionSettings()) == 1


def test_every_so_many_rounds_and_the_last_are_evaluated():
    evaluated = [n for n in range(1, 9) if is_evaluated(SelectionSettings(every=3), n, 8)]
    assert evaluated == [3, 6, 8]
