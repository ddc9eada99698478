"""A site's report of stages that it has done: its form in a message, and what is refused of it.

What stands in a report is the site's word. Of what the coordinator knows by itself, numbers of
cases, the time in which it waited, what can be sent at most and the ε that follows from the plan,
a report has to agree; of the rest, each number has to be one that there can be.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from federated.errors import ConsiliumError
from federated.run.result import Stage, StageResult
from federated.run.timing import Interval

# In bytes: of at most three stages, with some hundred bytes each.
MOST_REPORT = 4096
# By how many seconds a site's clock may differ from the coordinator's.
MOST_SKEW = 300.0
# In MiB: no machine has more memory, and a loss beyond float32 is none.
MOST_MEMORY_MB = 2.0**28
MOST_LOSS = 3.5e38
# The relative error of one ε that is computed by two machines.
ROUNDING = 1e-6


def pack_report(results: Sequence[StageResult]) -> bytes:
    """The body of a report's message; the sender is in the message's header."""
    stages = [
        {name: value for name, value in asdict(result).items() if name != "site"}
        for result in results
    ]
    return json.dumps(stages).encode()


@dataclass(frozen=True)
class Known:
    """What the coordinator knows of the stages of a report before it reads it.

    Attributes:
        site: whose report it is.
        stages: of which stages it has to be, in order.
        since: when the round began, in seconds since the epoch.
        until: when the report is read.
        private: whether the run is private: then no times or memory may be told.
        losses: whether the loss of a training may be told.
        cases: how many training cases the site has.
        most_bytes: how many bytes a site can send, or be sent, in a stage.
        most_epsilon: the largest ε that the plan lets the site spend; ``None`` where a report may
            have no ε.
    """

    site: str
    stages: tuple[Stage, ...]
    since: float
    until: float
    private: bool
    losses: bool
    cases: int
    most_bytes: int
    most_epsilon: float | None


def read_report(content: bytes, known: Known) -> list[StageResult]:
    """The results of a report, each cut to the time in which the coordinator waited for it.

    Raises:
        ConsiliumError: it is no such report, or disagrees with what the coordinator knows.
    """
    try:
        value = json.loads(content)
        if not isinstance(value, list) or len(value) != len(known.stages):
            raise ValueError(f"it is not of {', '.join(known.stages)}")
        return [_stage(own, stage, known) for own, stage in zip(value, known.stages, strict=True)]
    except (ValueError, TypeError, RecursionError) as error:
        raise ConsiliumError(
            f"What {known.site} tells of {', '.join(known.stages)} is refused: {error!s:.200}. It "
            "counts as not told; the site's part of the round is not touched by that."
        ) from error


FIELDS = frozenset(StageResult.__dataclass_fields__) - {"site"}
WITH_CASES: frozenset[Stage] = frozenset({"style", "local_train", "compress", "protect"})
WITH_EPSILON: frozenset[Stage] = frozenset({"local_train", "compress"})


def _stage(value: Any, stage: Stage, known: Known) -> StageResult:
    """One stage of a report.

    Raises:
        ValueError: a field is missing, not known, or out of range.
    """
    if not isinstance(value, dict) or value.keys() != FIELDS:
        raise ValueError("it has other fields than a report has")
    if value["stage"] != stage:
        raise ValueError(f"it is of {value['stage']!r:.40}, where {stage} is expected")
    cases = _within(value, "cases", 0, known.cases, int)
    if cases != (known.cases if stage in WITH_CASES else 0):
        raise ValueError(f"its cases are {cases}, and the site is known for {known.cases}")
    result = StageResult(
        known.site,
        stage,
        _time(value, "started", known),
        _time(value, "ended", known),
        _optional(value, "peak_rss_mb", MOST_MEMORY_MB, told=not known.private),
        cases,
        _optional(value, "loss", MOST_LOSS, told=stage == "local_train" and known.losses),
        _within(value, "sent", 0, known.most_bytes, int),
        _within(value, "received", 0, known.most_bytes, int),
        _epsilon(value, stage, known),
    )
    return _cut(result, known)


def _within(value: Mapping[str, Any], name: str, least: float, most: float, kind: type) -> Any:
    """A number of a report.

    Raises:
        ValueError: it is of another kind, not finite, or not from ``least`` to ``most``.
    """
    told = value[name]
    kinds = (int,) if kind is int else (int, float)
    # Of what is no number, as NaN, no comparison is true.
    if type(told) not in kinds or not least <= told <= most:
        raise ValueError(f"its {name} is {told!r:.40}, not one from {least:.6g} to {most:.6g}")
    return kind(told)


def _optional(value: Mapping[str, Any], name: str, most: float, *, told: bool) -> float | None:
    """A number that a report may leave out, and has to where it may not be ``told``."""
    if value[name] is None:
        return None
    if not told:
        raise ValueError(f"its {name} is told, which nobody asked for")
    found: float = _within(value, name, 0, most, float)
    return found


def _time(value: Mapping[str, Any], name: str, known: Known) -> float | None:
    """When a stage began or ended; it is there unless the run is private."""
    if known.private:
        return _optional(value, name, 0, told=False)
    found: float = _within(value, name, known.since - MOST_SKEW, known.until + MOST_SKEW, float)
    return found


def _epsilon(value: Mapping[str, Any], stage: Stage, known: Known) -> float | None:
    told = known.most_epsilon is not None and stage in WITH_EPSILON
    most = (known.most_epsilon or 0.0) * (1 + ROUNDING)
    return _optional(value, "epsilon", most, told=told)


def _cut(result: StageResult, known: Known) -> StageResult:
    """The result with its times within those in which the coordinator waited.

    Raises:
        ValueError: it ended before it began.
    """
    if result.when is None:
        return result
    if result.when.seconds < 0:
        raise ValueError("it ended before it began")
    cut = result.when.within(Interval(known.since, known.until))
    return replace(result, started=cut.started, ended=cut.ended)
