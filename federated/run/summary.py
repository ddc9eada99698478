"""``summary.json``: the machine-readable result of a run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from federated.configuration.experiment import Experiment
from federated.data.dataset import LocatedFile
from federated.provenance import versions
from federated.run.folder import RunFolder
from federated.run.key import public_context
from federated.run.record_file import read_record
from federated.run.round_record import STAGES
from federated.run.selection import kept_round

# They stand beside settings, and are easily taken for what a reader looks for.
ABOUT_INTERVALS = (
    "no confidence intervals: the bounds between which the exact metric lies, which follows from "
    "histograms here; 95 % intervals of metrics are in report.html"
)


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run at its end beside the rounds' own records.

    Args:
        task: what the network learns, as ``classification``.
        sites: the sites that took part.
        absent: the sites that were proposed to take part and did not, and why.
        no_own_model: the sites that were to hand over a model of their own and did not, and why.
        privacy: the summary's part on privacy.
        startup: seconds before the first round, by what took them.
        total_seconds: wall-clock time of the run, since it was last resumed.
        rounds_before_resume: how many rounds were complete then; 0 if it never was.
        peak_rss_mb: the largest memory of the flow's own process, in MiB.
        git_commit: the commit of the code.
        mlflow_run_id: where the run is tracked.
        model_version: the version in the registry, if it was registered.
        sensitive_layers: for each site, the shares of each layer that pFL-ResFIM left to it.
        overrides: what is set beside params.yaml; ``None`` where the experiment is not there.
        final: what sites have told at the end, by :func:`federated.run.final_record.final_record`.
    """

    task: str
    sites: Sequence[str]
    absent: Mapping[str, str]
    no_own_model: Mapping[str, str]
    privacy: Mapping[str, Any]
    startup: Mapping[str, float]
    total_seconds: float
    rounds_before_resume: int
    peak_rss_mb: float
    git_commit: str
    mlflow_run_id: str
    model_version: int | None
    sensitive_layers: Mapping[str, Mapping[str, float]] | None
    overrides: Sequence[str] | None = None
    final: Mapping[str, Any] = field(default_factory=dict)


def summarise(
    folder: RunFolder, experiment: Experiment, data: LocatedFile, facts: RunFacts
) -> dict[str, Any]:
    """The summary of a run whose rounds are done, from the rounds' own records.

    Metrics are those of ``kept_round``, the round whose model the run keeps; ``classes_absent`` are
    the classes that no case of a split has, which are in no mean over classes. ``evaluation`` says
    what sites sent for them, and between which bounds a metric lies that is not known exactly:
    these `intervals` are no confidence intervals, and `about_intervals` says so.

    Seconds are of wall-clock time. ``total`` and ``startup`` count from when the run was last
    resumed, if ever; ``rounds_before_resume`` of its rounds were complete then. Those of a stage,
    summed over all rounds, count the time in which at least one site was in it. ``overhead`` is
    what remains of the rounds, the time in which no site trains or evaluates: orchestration,
    compression, protection, aggregation, tracking and checkpoints together. ``startup`` tells apart
    the ``orchestration`` before the first round from ``data`` (download, reading, partition,
    validation). For a private run seconds are told in all alone, and memory is not.

    Bytes are those of the files that travel: payloads up, the initial state and the sum of each
    round down to every site. ``protection`` says what updates were protected by, and for how much
    it is made. ``overrides`` is what was set beside the entry of params.yaml, and ``versions`` are
    those of the libraries: with the commit, the seed and the data they make a run again.
    ``subgroups`` and ``uncertainty`` are of test cases by the model of ``kept_round``, as sites
    have told them at the end, where they were asked for.
    """
    records = folder.records(sites=())
    kept = kept_round(records, experiment.selection)
    chosen = read_record(folder.record_path(kept), kept)
    # Rounds of older versions do not have every stage.
    stages = {s: _total(record["seconds"].get(s, 0.0) for record in records) for s in STAGES}
    peaks = [facts.peak_rss_mb, *(record["peak_rss_mb"] for record in records)]
    return {
        "experiment": experiment.name,
        "run_id": folder.run_id,
        "task": facts.task,
        "data_source": data.source,
        "sites": list(facts.sites),
        "absent": dict(facts.absent),
        "no_own_model": dict(facts.no_own_model),
        "not_evaluated": chosen.get("not_evaluated", {}),
        "rounds_lost": [record["round"] for record in records if record.get("lost")],
        "rounds_done": len(records),
        "rounds_before_resume": facts.rounds_before_resume,
        "strategy": experiment.strategy.model_dump(mode="json"),
        "kept_round": kept,
        "metrics": chosen["metrics"],
        # Rounds of older versions do not tell.
        "classes_absent": chosen.get("classes_absent", {}),
        "spread": chosen["spread"],
        "confusion": chosen["confusion"],
        "per_site": chosen["per_site"],
        "sensitive_layers": facts.sensitive_layers,
        "privacy": dict(facts.privacy),
        "protection": experiment.protection.report(
            experiment.cohort(len(facts.sites)), public_context(folder, experiment)
        ),
        "bytes": {
            key: sum(record["bytes"][key] for record in records)
            for key in ("up", "down", "up_dense_float32")
        },
        "seconds": {
            "total": round(facts.total_seconds, 3),
            "startup": {key: round(value, 3) for key, value in facts.startup.items()},
            "rounds": [_total([record["seconds"]["total"]]) for record in records],
            **stages,
            "overhead": _total(record["seconds"]["overhead"] for record in records),
            "overhead_per_round": [_total([r["seconds"]["overhead"]]) for r in records],
        },
        "peak_rss_mb": None if None in peaks else round(max(peaks), 1),
        "seed": experiment.seed,
        "git_commit": facts.git_commit,
        "data_md5": data.told_md5(experiment.privacy.unit is not None),
        "mlflow_run_id": facts.mlflow_run_id,
        "model_version": facts.model_version,
        "evaluation": {
            **experiment.evaluation.model_dump(mode="json"),
            # Rounds of older versions do not tell: their metrics are exact.
            "intervals": (intervals := chosen.get("intervals", {})),
            **({"about_intervals": ABOUT_INTERVALS} if any(intervals.values()) else {}),
            # Sites whose cases are in none of the metrics, with the reason, if there are any.
            **({"missing": missing} if (missing := chosen.get("not_evaluated")) else {}),
        },
        # Where it was asked for.
        **({"calibration": found} if (found := chosen.get("calibration")) else {}),
        **facts.final,
        "overrides": None if facts.overrides is None else list(facts.overrides),
        "versions": versions(),
    }


def _total(seconds: Iterable[float | None]) -> float | None:
    """The sum of some seconds; ``None`` where one of them is not told."""
    known = list(seconds)
    told = [value for value in known if value is not None]
    return round(sum(told), 3) if len(told) == len(known) else None
