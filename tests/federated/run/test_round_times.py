"""Where the time of a round goes, of which the next one may have been begun beside it."""

from federated.learning.evaluation import Evaluation
from federated.run.result import Stage, StageResult
from federated.run.round_record import RoundRecord
from federated.run.timing import Evaluating, Interval

NOTHING = Evaluation({}, {}, {}, {})


def stage(name: Stage, started: float, ended: float) -> StageResult:
    return StageResult("site-00", name, started, ended, 1.0, 8, None, 0, 0, None)


def record(began: float, ended: float, earlier: Evaluating, *stages: StageResult) -> RoundRecord:
    """A round of two workers, whose metrics the coordinator takes from 26 to 28."""
    return RoundRecord(
        2, ["site-00"], {}, stages, [Interval(19, 20)], Interval(26, 28), NOTHING, began, 2, True,
        ended=ended, earlier=earlier,
    )  # fmt: skip


def test_a_rounds_time_has_the_evaluation_of_the_one_before_where_it_was_beside_it():
    earlier = Evaluating([Interval(10, 12)], [Interval(12, 13)])
    own = record(10, 20, earlier, stage("local_train", 12, 18), stage("evaluate", 20, 26))
    seconds = own.seconds()
    assert seconds["total"] == 10
    # The stages of the round itself are told whole.
    assert seconds["local_train"] == 6
    assert seconds["evaluate"] == 8
    # From 18 to 20 nobody trains or evaluates; the workers do so for 2 + 6 of 20 seconds.
    assert seconds["overhead"] == 2
    assert seconds["idle"] == 10 - 8 / 2
    assert own.evaluating == Evaluating([Interval(20, 26)], [Interval(26, 28)])


def test_what_is_in_the_time_of_another_round_makes_nothing_negative():
    earlier = Evaluating([Interval(0, 12)], [Interval(8, 11)])
    own = record(10, 20, earlier, stage("local_train", 12, 25), stage("evaluate", 20, 26))
    seconds = own.seconds()
    assert seconds["overhead"] == 0
    assert seconds["idle"] == 10 - (2 + 8) / 2


def test_no_worker_is_idle_for_less_than_no_time():
    """As where a run was resumed with fewer workers than have trained in the round."""
    trained = [stage("local_train", 10, 20)] * 3
    assert record(10, 20, Evaluating(), *trained).seconds()["idle"] == 0
