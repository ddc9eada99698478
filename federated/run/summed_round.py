"""What became of a round's sum, in a file of its own that is there before the evaluation begins.

A run that is stopped in the evaluation goes on from it: the model is that after the round already,
sites keep what belongs to that, and nothing is trained once more. Once the round has its record
the file says nothing new, and is removed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from federated.errors import ConsiliumError, why_unreadable
from federated.files import read_json, write_json
from federated.run.result import Outcome, StageResult, Unreported
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
            aggregated=[Interval(i.started + later, i.ended + later) for i in self.aggregated],
            began=self.began + later,
            at=now,
        )


def write_summed(path: Path, summed: SummedRound, *, timed: bool) -> None:
    """Write what became of a round's sum; it is on the disk once this returns.

    Of a private run, which is not ``timed``, no time is written: the sites' would follow from it.
    """
    if not timed:
        summed = replace(summed, aggregated=[], began=0.0, at=0.0)
    write_json(path, asdict(summed))


def read_summed(path: Path, number: int) -> SummedRound | None:
    """What became of the sum of a round that is not evaluated yet; ``None`` where it has none.

    Args:
        path: the file.
        number: the round that it has to be of.

    Raises:
        ConsiliumError: it cannot be read, or is of another round.
    """
    if not path.is_file():
        return None
    try:
        value = read_json(path)
        sites, dropped = list(value["sites"]), dict(value["dropped"])
        if value["round_number"] != number:
            raise ValueError(f"it is of round {value['round_number']!r:.80}")
        if not all(type(text) is str for text in [*sites, *dropped.values()]):
            raise ValueError("its sites or their reasons are no texts")
        return SummedRound(
            number,
            sites,
            dropped,
            value["lost"],
            [_outcome(stage) for stage in value["stages"]],
            [Interval(**interval) for interval in value["aggregated"]],
            float(value["began"]),
            float(value["at"]),
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConsiliumError(
            f"What became of the sum of round {number}, {path}, cannot be read "
            f"({why_unreadable(error)}). Put the file back from a copy; or remove it, and the "
            "round is trained anew."
        ) from error


def _outcome(value: Mapping[str, Any]) -> Outcome:
    """What is known of a stage, from what :func:`write_summed` has written of it."""
    if "reason" in value:
        return Unreported(value["site"], tuple(value["stages"]), value["reason"])
    return StageResult(**value)


def _later(stage: Outcome, seconds: float) -> Outcome:
    """What is known of a stage, as if it had run so many seconds later."""
    if isinstance(stage, Unreported) or stage.started is None or stage.ended is None:
        return stage
    return replace(stage, started=stage.started + seconds, ended=stage.ended + seconds)
