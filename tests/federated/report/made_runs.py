"""Values of runs that were never run: metrics follow from predictions that are drawn at random."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from federated.configuration.experiment import Experiment
from federated.data.dataset import DatasetInfo
from federated.learning import TASKS, evaluate_here, task_of
from federated.learning.evaluation import Evaluation
from federated.report.values import RunValues
from federated.settings.sections import EvaluationSettings
from federated.settings.target import Target

CASES = {"train": 60, "val": 30, "test": 80}
NO_PRIVACY: Mapping[str, Any] = {
    "name": "none",
    "unit": None,
    "delta": None,
    "epsilon": None,
    "epsilon_ledger": None,
    "per_site": {},
    "unreported": [],
}


def info_of(task: str, classes: Sequence[str], name: str = "madeset") -> DatasetInfo:
    """A data set of volumes."""
    target = Target(low=0, high=100) if task == "regression" else None
    return DatasetInfo(name, tuple(classes), 3, 1, {}, "CC BY 4.0", task, target)


def predictions(
    info: DatasetInfo, cases: int, rng: np.random.Generator, skill: float
) -> dict[str, np.ndarray]:
    """What a model of some skill predicts of cases that are drawn."""
    count = len(info.classes)
    if info.task == "segmentation":
        dice = rng.beta(2 + 12 * skill, 3, (cases, count - 1))
        return {
            "dice": dice,
            "hd95": 20 * (1 - dice),
            "assd": 6 * (1 - dice),
            "absent": np.zeros((cases, count - 1), np.bool_),
            "loss": 1 - dice.mean(axis=1),
            "patients": np.arange(cases) // 2,
        }
    if info.task == "regression":
        labels = rng.uniform(20, 80, cases)
        return {"labels": labels, "predicted": labels + rng.uniform(-15, 15, cases) * (1 - skill)}
    if info.task == "multilabel":
        labels = rng.integers(0, 2, (cases, count))
        odds = np.exp(rng.normal(size=(cases, count)) + 3 * skill * (labels - 0.5))
        return {"labels": labels, "probabilities": odds / (1 + odds)}
    labels = rng.integers(0, count, cases)
    logits = rng.normal(size=(cases, count))
    logits[np.arange(cases), labels] += 3 * skill
    odds = np.exp(logits)
    return {"labels": labels, "probabilities": odds / odds.sum(axis=1, keepdims=True)}


def evaluation_of(
    info: DatasetInfo, sites: Sequence[str], skill: float, seed: int, settings: EvaluationSettings
) -> Evaluation:
    """The evaluation of all sites after a round."""
    rng = np.random.default_rng(seed)
    sent = {
        site: {s: predictions(info, CASES[s], rng, skill - 0.15 * n) for s in ("val", "test")}
        for n, site in enumerate(sites)
    }
    return evaluate_here(task_of(info, settings), sent, info, settings)


def record_of(number: int, found: Evaluation, sites: Sequence[str]) -> dict[str, Any]:
    """The part of a round's record that a page reads."""
    return {
        "round": number,
        "sites": list(sites),
        "metrics": dict(found.overall),
        "per_site": {
            site: {"cases": CASES, "train_loss": 1 / number, **found.per_site[site]}
            for site in sites
        },
    }


def made_run(
    task: str = "classification",
    classes: Sequence[str] = ("healthy", "ill"),
    sites: Sequence[str] = ("site-00", "site-01", "site-02"),
    changes: Mapping[str, Any] | None = None,
    source: str = "files",
) -> RunValues:
    """The values of a run of three rounds.

    Args:
        task: what was learned.
        classes: their names.
        sites: their names.
        changes: sections of the experiment.
        source: where the data are from.
    """
    info = info_of(task, classes)
    experiment = Experiment.model_validate(
        {
            "name": "made",
            "rounds": 3,
            "data": {"dataset": "adrenalmnist3d", "source": "files"},
            "sites": {"count": len(sites)},
            "selection": {"metric": f"val/{TASKS[task].primary_metric}"},
            "strategy": {"name": "fedprox", "mu": 0.01},
            "privacy": {"name": "none"},
            "compression": {"name": "none"},
            "protection": {"name": "plain"},
            **(changes or {}),
        }
    )
    found = [evaluation_of(info, sites, 0.3 * n, n, experiment.evaluation) for n in (1, 2, 3)]
    records = [record_of(n, one, sites) for n, one in enumerate(found, start=1)]
    summary = summary_of(experiment, found[-1], records[-1], sites, source)
    return RunValues(
        summary,
        experiment,
        info,
        records,
        dict.fromkeys(sites, CASES),
        found[-1].statistics.get("test"),
        {"on_failure": "abort", "failures": {}, "broken": {}, "sites": list(sites)},
    )


def summary_of(
    experiment: Experiment,
    last: Evaluation,
    record: Mapping[str, Any],
    sites: Sequence[str],
    source: str,
) -> dict[str, Any]:
    """A summary as a run writes it."""
    private = experiment.privacy.unit is not None
    return {
        "experiment": experiment.name,
        "run_id": "20260101-000000-abcd",
        "task": "classification",
        "data_source": source,
        "sites": list(sites),
        "absent": {},
        "no_own_model": {},
        "not_evaluated": {},
        "rounds_lost": [],
        "rounds_done": 3,
        "rounds_before_resume": 0,
        "strategy": experiment.strategy.model_dump(mode="json"),
        "kept_round": 3,
        "metrics": dict(last.overall),
        "classes_absent": {},
        "spread": dict(last.site_spread),
        "confusion": dict(last.confusion),
        "per_site": record["per_site"],
        "sensitive_layers": None,
        "privacy": private_part(experiment, sites) if private else dict(NO_PRIVACY),
        "protection": {"name": experiment.protection.name},
        "bytes": {"up": 6_504_264, "down": 6_505_000, "up_dense_float32": 6_504_264},
        "seconds": {
            "total": 61.25,
            "startup": {"orchestration": 2.125, "data": 0.5},
            "rounds": [None if private else 12.5],
            "local_train": None if private else 30.5,
            "evaluate": None if private else 3.25,
            "overhead": None if private else 4.75,
            "overhead_per_round": [None if private else 1.5],
        },
        "peak_rss_mb": None if private else 812.5,
        "seed": 7,
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "data_md5": None if private else "0" * 32,
        "mlflow_run_id": "f" * 32,
        "model_version": 2,
        "evaluation": {
            **experiment.evaluation.model_dump(mode="json"),
            "intervals": dict(last.intervals),
        },
        **({"calibration": last.calibration.to_json()} if last.calibration else {}),
        "overrides": ["strategy.name=fedprox", "strategy.mu=0.01"],
        "versions": {"python": "3.11.9", "torch": "2.13.0"},
    }


def private_part(experiment: Experiment, sites: Sequence[str]) -> dict[str, Any]:
    """The summary's part on privacy."""
    own = {
        "epsilon": 7.9375,
        "epsilon_ledger": 9.5,
        "budget": 16.0,
        "noise_multiplier": 1.25,
        "sampling_rate": 0.25,
        "steps": 12,
        "cases_of_one_patient": 2,
        "epsilon_patient": 17.5,
    }
    return {
        "name": experiment.privacy.name,
        "mechanism": "made",
        "unit": experiment.privacy.unit,
        "delta": 1e-5,
        "epsilon": 7.9375,
        "epsilon_per_round": 3.5,
        "epsilon_ledger": 9.5,
        "epsilon_patient": 17.5,
        "accountant": "prv",
        "noise": experiment.privacy.noise,
        "missing": 0,
        "per_site": {site: dict(own) for site in sites},
        "unreported": [],
    }


DP_SGD = {"name": "dp_sgd", "clip": 1.0, "delta": 1e-5, "epsilon": 8.0}


def made_comparison(
    labels: Sequence[str], seeds: int, epsilons: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """``runs.json`` of a comparison of runs that were never run."""
    from federated.comparison.grid import PlannedRun
    from federated.comparison.table import Result, mean_curves, rows, site_rows

    run = made_run()
    results = []
    for number, label in enumerate(labels):
        for seed in range(seeds):
            rng = np.random.default_rng([number, seed])
            auc = 0.8 + 0.03 * number + 0.004 * rng.normal()
            summary = {
                **run.summary,
                "metrics": {"test": {**run.summary["metrics"]["test"], "auc": auc}},
                "bytes": {"up": 1e6 * 4**number, "down": 1e6 * 4**number},
                "privacy": {**NO_PRIVACY, "epsilon": (epsilons or {}).get(label)},
            }
            records = [
                {"metrics": {"test": {"auc": auc - 0.1 / n}}, "bytes": {"up": 1, "down": 1}}
                for n in (1, 2, 3)
            ]
            results.append(Result(PlannedRun(label, seed, ()), summary, records))
    return {
        "experiment": "made",
        "command": "consilium compare made",
        "note": "Data source: files.",
        "task": "classification",
        "rows": rows(results),
        "sites": site_rows(results),
        "curves": mean_curves(results),
        "runs": [{"data_source": "files"}],
    }
