"""What became of a round's sum, in a file of its own that is there before the evaluation begins.

A run that is stopped in the evaluation goes on from it: the model is that after the round already,
sites keep what belongs to that, and nothing is trained once more. Once the round has its record
the file says nothing new, and is removed.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf, isfinite
from pathlib import Path
from typing import Any

from federated.errors import ConsiliumError, why_unreadable
from federated.files import read_json, sha256_of, write_json
from federated.run.result import STAGES, Outcome, StageResult, Unreported
from federated.run.timing import Interval


@dataclass(frozen=True)
class SummedRound:
    """A round whose sum is done, and that is not evaluated yet.

    Attributes:
        round_number: the round.
        sites: those whose updates are in the sum, in order.
        dropped: the others that were selected, with the reasons.
        lost: why nobody has opened the sum, where nobody has.
        stages: what sites tell of theirs so far, or that they have not.
        aggregated: when the coordinator added payloads.
        began: when the round began, in seconds since the epoch.
        at: when the sum was done, likewise.
    """

    round_number: int
    sites: Sequence[str]
    dropped: Mapping[str, str]
    lost: str | None
    stages: Sequence[Outcome]
    aggregated: Sequence[Interval]
    began: float
    at: float

    def going_on_at(self, now: float) -> "SummedRound":
        """The same as if the sum were done ``now``: when nobody worked on a run is no round's."""
        later = now - self.at
        return replace(
            self,
            stages=[_later(stage, later) for stage in self.stages],
            aggregated=[interval.later(later) for interval in self.aggregated],
            began=self.began + later,
            at=now,
        )


def write_summed(path: Path, summed: SummedRound, state: Path, *, timed: bool) -> None:
    """Write what became of a round's sum; it is on the disk once this returns.

    Of a private run, which is not ``timed``, no time is written: the sites' would follow from it.

    Args:
        path: the file.
        summed: what became of it.
        state: the file of the state after the round, which the sum has led to.
        timed: whether times may be told.
    """
    if not timed:
        summed = replace(summed, aggregated=[], began=0.0, at=0.0)
    write_json(path, {**asdict(summed), "state": sha256_of(state)})


def read_summed(
    path: Path, number: int, sites: Collection[str] | None, state: Path
) -> SummedRound | None:
    """What became of the sum of a round that is not evaluated yet; ``None`` where it has none.

    Args:
        path: the file.
        number: the round that it has to be of.
        sites: those of the run; ``None`` where some may be away that were in the sum.
        state: the file of the state that it has to have led to.

    Raises:
        ConsiliumError: it cannot be read, or is of another round, run or state.
    """
    if not path.is_file():
        return None
    try:
        return _summed(read_json(path), number, sites, sha256_of(state))
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise ConsiliumError(
            f"What became of the sum of round {number}, {path}, cannot be read "
            f"({why_unreadable(error)}). Put the file back from a copy; or remove it, and the "
            "round is trained anew."
        ) from error


def _summed(value: Any, number: int, sites: Collection[str] | None, state: str) -> SummedRound:
    """What became of a round's sum, from what :func:`write_summed` has written of it.

    Raises:
        ValueError, TypeError, KeyError, OverflowError: it is something else.
    """
    if value["round_number"] != number:
        raise ValueError(f"it is of round {value['round_number']!r:.80}")
    if value["state"] != state:
        raise ValueError("it is of another model than the state of the round")
    summed, dropped, lost = value["sites"], dict(value["dropped"]), value["lost"]
    if not all(type(value[name]) is list for name in ("sites", "stages", "aggregated")):
        raise ValueError("what should be a list in it is none")
    stages = [_outcome(stage) for stage in value["stages"]]
    named = [*summed, *dropped, *(stage.site for stage in stages)]
    if not all(type(text) is str for text in [*named, *dropped.values(), lost or ""]):
        raise ValueError("its sites or their reasons are no texts")
    if unknown := [site for site in named if sites is not None and site not in sites]:
        raise ValueError(f"it names {unknown[0]!r:.80}, which is no site of the run")
    if len({*summed, *dropped}) < len(summed) + len(dropped):
        raise ValueError("it has a site twice")
    aggregated = [Interval(**interval) for interval in value["aggregated"]]
    began, at = value["began"], value["at"]
    times = [began, at, *(each for one in aggregated for each in (one.started, one.ended))]
    if not all(_is_number(each) for each in times):
        raise ValueError("a time in it is none")
    return SummedRound(number, summed, dropped, lost, stages, aggregated, began, at)


def _outcome(value: Mapping[str, Any]) -> Outcome:
    """What is known of a stage, from what :func:`write_summed` has written of it.

    Raises:
        ValueError, TypeError, KeyError: it is something else.
    """
    if "reason" in value:
        outcome = Unreported(value["site"], tuple(value["stages"]), value["reason"])
        if type(outcome.reason) is not str or not {*outcome.stages} <= {*STAGES}:
            raise ValueError("it says of a site that tells of no stage, and not which or why")
        return outcome
    told = StageResult(**value)
    numbers = [told.cases, told.sent, told.received, *_if_told(told.loss, told.peak_rss_mb)]
    numbers += _if_told(told.started, told.ended)
    # Without noise the ε is infinite.
    numbers += [spent for spent in _if_told(told.epsilon) if spent != inf]
    if told.stage not in STAGES or not all(map(_is_number, numbers)):
        raise ValueError("a stage in it is none, or what should be a number in it is none")
    return told


def _if_told(*numbers: float | None) -> list[float]:
    return [number for number in numbers if number is not None]


def _is_number(value: Any) -> bool:
    """Whether a value is a number, and a finite one."""
    return type(value) in (int, float) and isfinite(value)


def _later(stage: Outcome, seconds: float) -> Outcome:
    """What is known of a stage, as if it had run so many seconds later."""
    if isinstance(stage, Unreported) or stage.when is None:
        return stage
    moved = stage.when.later(seconds)
    return replace(stage, started=moved.started, ended=moved.ended)
