"""What a stage at a site tells of itself, and the names of the stages."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from federated.run.memory import peak_rss_mb
from federated.run.timing import Interval

Stage = Literal[
    "advertise",
    "share",
    "style",
    "local_train",
    "compress",
    "protect",
    "agree",
    "answer",
    "vouch",
    "decrypt",
    "evaluate",
    "count",
]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
# The stages after which a site tells of itself, and of which. What sends nothing is told of with
# the next that does, so that when a message is sent tells no more than it would without reports.
TOLD: Final[Mapping[Stage, tuple[Stage, ...]]] = {
    **{stage: (stage,) for stage in STAGES if stage not in ("local_train", "compress")},
    "protect": ("local_train", "compress", "protect"),
}


@dataclass(frozen=True)
class StageResult:
    """What a site tells of a stage: when it ran, in seconds since the epoch, and small numbers.

    ``peak_rss_mb`` is in MiB. ``sent`` and ``received`` are bytes that travelled for the stage, the
    round's sum and this report aside. ``epsilon`` is what the site has spent in the run so far, by
    RDP. For a private site there are no times and no memory: they follow the batches that its steps
    drew, and whoever knows these knows more of a case than the ledger accounts for.
    """

    site: str
    stage: Stage
    started: float | None
    ended: float | None
    peak_rss_mb: float | None
    cases: int
    loss: float | None
    sent: int
    received: int
    epsilon: float | None

    @property
    def when(self) -> Interval | None:
        """When it ran; ``None`` where that is not told."""
        if self.started is None or self.ended is None:
            return None
        return Interval(self.started, self.ended)


def stage_result(
    site: str,
    stage: Stage,
    started: float,
    *,
    cases: int = 0,
    loss: float | None = None,
    sent: int = 0,
    received: int = 0,
    epsilon: float | None = None,
) -> StageResult:
    """What there is to tell of a stage that ends now, in this process.

    Args:
        site: where it ran.
        stage: which stage it was.
        started: when it started, in seconds since the epoch.
        cases: how many cases it worked on.
        loss: the loss of the training, if it may be told.
        sent: bytes that travelled from the site.
        received: bytes that travelled to it, the round's sum aside.
        epsilon: what the site has spent in the run so far, by RDP.
    """
    ended = time.time()
    return StageResult(
        site, stage, started, ended, peak_rss_mb(), cases, loss, sent, received, epsilon
    )


@dataclass(frozen=True)
class Unreported:
    """A site did its stages, and what it told of them did not arrive or was refused."""

    site: str
    stages: tuple[Stage, ...]
    reason: str


# What is known of a stage that is done.
Outcome = StageResult | Unreported
