"""The record of a round: metrics, bytes, and where its time went."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from federated.data.dataset import Split
from federated.data.partition import Partition
from federated.learning.classification_metrics import Metrics
from federated.learning.evaluation import Evaluation
from federated.run.memory import peak_rss_mb
from federated.run.result import StageResult
from federated.run.timing import Interval, covered

STAGES = (
    *("advertise", "share", "style", "local_train", "compress", "protect", "aggregate", "unmask"),
    *("decrypt", "evaluate"),
)


@dataclass(frozen=True)
class RoundRecord:
    """What happened in a round; ``began`` is in seconds since the epoch.

    ``sites`` are those whose updates arrived; ``dropped`` are the others that were selected, with
    the reason. ``aggregated`` and ``scored`` are when the coordinator added payloads and computed
    metrics. ``absent`` are the sites that were proposed to take part in the run and do not, with
    the reason. ``lost`` says why nobody has opened the round's sum, where nobody has: the model is
    that of the round before.
    """

    round_number: int
    sites: Sequence[str]
    dropped: Mapping[str, str]
    stages: Sequence[StageResult]
    aggregated: Sequence[Interval]
    scored: Interval
    evaluation: Evaluation
    began: float
    workers: int
    absent: Mapping[str, str] = field(default_factory=dict)
    lost: str | None = None

    def sizes(self, down: int, receivers: int, length: int) -> dict[str, int]:
        """Bytes that travelled, both ways, and what dense float32 updates would have taken.

        Args:
            down: the bytes that each of the ``receivers`` downloads at the end of the round.
            receivers: how many download; these are all sites, since all are evaluated.
            length: the number of values of a model.
        """
        return {
            "up": sum(stage.sent for stage in self.stages),
            "down": down * receivers + sum(stage.received for stage in self.stages),
            "up_dense_float32": 4 * length * len(self.sites),
        }

    @property
    def timed(self) -> bool:
        """Whether sites tell when their stages ran; those of a private run do not."""
        return all(stage.started is not None for stage in self.stages)

    def seconds(self) -> dict[str, float | None]:
        """Wall-clock seconds of the round so far: in all, for each stage, and what is left of it.

        The time of a stage is that in which at least one site is in it. ``overhead`` is the time in
        which no site trains or evaluates. ``idle`` is the workers' time without a stage, over the
        number of workers: it holds the overhead and the waiting for the slowest site. For a private
        run all are ``None``, since the sites' times would follow from them.
        """
        if not self.timed:
            return dict.fromkeys(("total", *STAGES, "overhead", "idle"))
        total = time.time() - self.began
        intervals: dict[str, list[Interval]] = {name: [] for name in STAGES}
        for stage in self.stages:
            if stage.started is not None and stage.ended is not None:
                intervals[stage.stage].append(Interval(stage.started, stage.ended))
        busy = sum(part.ended - part.started for parts in intervals.values() for part in parts)
        intervals["aggregate"] = list(self.aggregated)
        intervals["evaluate"].append(self.scored)
        return {
            "total": total,
            **{name: covered(parts) for name, parts in intervals.items()},
            "overhead": total - covered(intervals["local_train"] + intervals["evaluate"]),
            "idle": total - busy / self.workers,
        }

    def _absent_at(self, site: str) -> dict[str, dict[str, list[str]]]:
        """What a site's metrics leave out, where the round was evaluated."""
        found = self.evaluation.absent_at.get(site)
        return {} if found is None else {"classes_absent": _absent(found)}

    def to_json(
        self, partition: Partition, sizes: Mapping[str, int], seconds: Mapping[str, float | None]
    ) -> dict[str, Any]:
        """The round as plain values, for ``round.json``.

        Args:
            partition: the cases of each site.
            sizes: what :meth:`sizes` gave, in bytes.
            seconds: what :meth:`seconds` gave.
        """
        losses = {stage.site: stage.loss for stage in self.stages if stage.stage == "local_train"}
        spent = {stage.site: stage.epsilon for stage in self.stages if stage.epsilon is not None}
        # Of a round that was not evaluated, the sites that trained; not where all were pooled.
        trained: dict[str, dict[Split, Metrics]] = {s: {} for s in losses if s in partition.sites}
        evaluated = self.evaluation.per_site or trained
        per_site = {
            site: {
                "cases": {split: len(indices) for split, indices in partition.sites[site].items()},
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
        }

    def _not_evaluated(self) -> dict[str, dict[str, str]]:
        """The sites whose cases are in none of the metrics, with the reason, if there are any."""
        missing = dict(self.evaluation.missing)
        return {"not_evaluated": missing} if missing else {}

    def _peak_rss_mb(self) -> float | None:
        """The largest memory of any process in MiB; ``None`` for a private run."""
        peaks = [stage.peak_rss_mb for stage in self.stages]
        known = [peak for peak in peaks if peak is not None]
        return max(peak_rss_mb(), *known) if self.timed else None


def _absent(classes: Mapping[Split, Sequence[str]]) -> dict[str, list[str]]:
    """The classes that no case has, by split, as plain values."""
    return {split: list(names) for split, names in classes.items()}
