"""The record of a round: metrics, bytes, and where its time went."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from federated.data.dataset import Split
from federated.data.partition import CaseCounts
from federated.learning.classification_metrics import Metrics
from federated.learning.evaluation import Evaluation
from federated.run.memory import peak_rss_mb
from federated.run.result import Outcome, Stage, StageResult, Unreported
from federated.run.timing import Evaluating, Interval, covered

STAGES = (
    *("advertise", "share", "style", "local_train", "compress", "protect", "aggregate", "unmask"),
    *("decrypt", "evaluate"),
)
# The names in a record of stages of which several do one thing.
RECORDED: Mapping[Stage, str] = {"agree": "unmask", "answer": "unmask", "vouch": "decrypt"}


@dataclass(frozen=True)
class RoundRecord:
    """What happened in a round; ``began`` is in seconds since the epoch.

    ``sites`` are those whose updates arrived; ``dropped`` are the others that were selected, with
    the reason. ``stages`` is what sites tell of theirs, or that they have not. ``aggregated`` and
    ``scored`` are when the coordinator added payloads and computed metrics. In a ``timed`` round it
    is told when stages ran; in one of a private run it is not. ``absent`` are the sites that were
    proposed to take part in the run and do not, with the reason. ``lost`` says why nobody has
    opened the round's sum, where nobody has: the model is that of the round before.

    Where the next round was begun beside the evaluation of this one, ``ended`` is when it was: what
    comes after it is in the time of the next one, whose record has it as ``earlier``.
    """

    round_number: int
    sites: Sequence[str]
    dropped: Mapping[str, str]
    stages: Sequence[Outcome]
    aggregated: Sequence[Interval]
    scored: Interval
    evaluation: Evaluation
    began: float
    workers: int
    timed: bool
    absent: Mapping[str, str] = field(default_factory=dict)
    lost: str | None = None
    ended: float | None = None
    earlier: Evaluating = field(default_factory=Evaluating)

    @property
    def told(self) -> list[StageResult]:
        """What sites tell of their stages."""
        return [stage for stage in self.stages if isinstance(stage, StageResult)]

    @property
    def unreported(self) -> dict[str, list[str]]:
        """For each site, the stages of which it has not told, or not what counts."""
        found: dict[str, list[str]] = {}
        for each in self.stages:
            if isinstance(each, Unreported):
                found.setdefault(each.site, []).extend(each.stages)
        return found

    def sizes(self, down: int, receivers: int, length: int) -> dict[str, int]:
        """Bytes that travelled, both ways, and what dense float32 updates would have taken.

        Args:
            down: the bytes that each of the ``receivers`` downloads at the end of the round.
            receivers: how many download; these are all sites, since all are evaluated.
            length: the number of values of a model.
        """
        return {
            "up": sum(stage.sent for stage in self.told),
            "down": down * receivers + sum(stage.received for stage in self.told),
            "up_dense_float32": 4 * length * len(self.sites),
        }

    def seconds(self) -> dict[str, float | None]:
        """Wall-clock seconds of the round so far: in all, for each stage, and what is left of it.

        The time of a stage is that in which at least one site is in it. ``overhead`` is the time in
        which no site trains or evaluates. ``idle`` is the workers' time without a stage, over the
        number of workers: it holds the overhead and the waiting for the slowest site. Both are of
        the time from where this round begins to where the next one does, whichever round's model is
        evaluated in it. For a private run all are ``None``, since the sites' times would follow
        from them.
        """
        if not self.timed:
            return dict.fromkeys(("total", *STAGES, "overhead", "idle"))
        window = Interval(self.began, time.time() if self.ended is None else self.ended)
        intervals: dict[str, list[Interval]] = {name: [] for name in STAGES}
        for stage in self.told:
            if stage.when:
                intervals[RECORDED.get(stage.stage, stage.stage)].append(stage.when)
        at_work = [*self.earlier.at_sites, *chain.from_iterable(intervals.values())]
        busy = sum(part.within(window).seconds for part in at_work)
        intervals["aggregate"] = list(self.aggregated)
        intervals["evaluate"].append(self.scored)
        learning = [*intervals["local_train"], *intervals["evaluate"]]
        learning += [*self.earlier.at_sites, *self.earlier.at_coordinator]
        return {
            "total": window.seconds,
            **{name: covered(parts) for name, parts in intervals.items()},
            "overhead": window.seconds - covered(part.within(window) for part in learning),
            # Stages of before a resume may have run in more workers than there are now.
            "idle": max(0.0, window.seconds - busy / self.workers),
        }

    @property
    def evaluating(self) -> Evaluating:
        """When the model after this round was evaluated, as far as sites tell."""
        evaluations = [stage for stage in self.told if stage.stage == "evaluate"]
        return Evaluating([stage.when for stage in evaluations if stage.when], [self.scored])

    def _trained(self) -> list[str]:
        """The sites that have trained, whether they tell of it or not."""
        did = "local_train"
        return [
            each.site
            for each in self.stages
            if did in (each.stages if isinstance(each, Unreported) else (each.stage,))
        ]

    def _absent_at(self, site: str) -> dict[str, dict[str, list[str]]]:
        """What a site's metrics leave out, where the round was evaluated."""
        found = self.evaluation.absent_at.get(site)
        return {} if found is None else {"classes_absent": _absent(found)}

    def to_json(
        self, counts: CaseCounts, sizes: Mapping[str, int], seconds: Mapping[str, float | None]
    ) -> dict[str, Any]:
        """The round as plain values, for ``round.json``.

        Args:
            counts: how many cases each site has.
            sizes: what :meth:`sizes` gave, in bytes.
            seconds: what :meth:`seconds` gave.
        """
        losses = {stage.site: stage.loss for stage in self.told if stage.stage == "local_train"}
        spent = {stage.site: stage.epsilon for stage in self.told if stage.epsilon is not None}
        # Of a round that was not evaluated, the sites that trained; not where all were pooled.
        trained: dict[str, dict[Split, Metrics]] = {
            site: {} for site in self._trained() if site in counts.sites
        }
        evaluated = self.evaluation.per_site or trained
        per_site = {
            site: {
                "cases": dict(counts.sites[site]),
                "train_loss": losses.get(site),
                **self._absent_at(site),
                **metrics,
            }
            for site, metrics in evaluated.items()
        }
        return {
            "round": self.round_number,
            "sites": list(self.sites),
            "dropped": dict(self.dropped),
            "absent": dict(self.absent),
            "lost": self.lost,
            "not_evaluated": dict(self.evaluation.missing),
            "unreported": self.unreported,
            "metrics": dict(self.evaluation.overall),
            "classes_absent": _absent(self.evaluation.classes_absent),
            "spread": dict(self.evaluation.site_spread),
            "epsilon_rdp": spent or None,
            "intervals": {s: dict(found) for s, found in self.evaluation.intervals.items()},
            "confusion": dict(self.evaluation.confusion),
            "per_site": per_site,
            "bytes": dict(sizes),
            "seconds": {
                key: None if value is None else round(value, 4) for key, value in seconds.items()
            },
            "peak_rss_mb": self._peak_rss_mb(),
            **self._not_evaluated(),
            **self._calibration(),
        }

    def _calibration(self) -> dict[str, Any]:
        """The calibration of probabilities, where it was asked for and is known."""
        found = self.evaluation.calibration
        return {} if found is None else {"calibration": found.to_json()}

    def _not_evaluated(self) -> dict[str, dict[str, str]]:
        """The sites whose cases are in none of the metrics, with the reason, if there are any."""
        missing = dict(self.evaluation.missing)
        return {"not_evaluated": missing} if missing else {}

    def _peak_rss_mb(self) -> float | None:
        """The largest memory of any process in MiB; ``None`` for a private run."""
        peaks = [stage.peak_rss_mb for stage in self.told]
        known = [peak for peak in peaks if peak is not None]
        return max([peak_rss_mb(), *known]) if self.timed else None


def _absent(classes: Mapping[Split, Sequence[str]]) -> dict[str, list[str]]:
    """The classes that no case has, by split, as plain values."""
    return {split: list(names) for split, names in classes.items()}
