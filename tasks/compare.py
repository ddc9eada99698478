"""compare: what a comparison found, written to its folder and to MLflow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.comparison.figure import comparison_figure
from federated.comparison.table import (
    Result,
    by_label,
    markdown,
    mean_curves,
    per_site_markdown,
    rows,
    site_rows,
)
from federated.files import write_json, write_text
from federated.provenance import short_commit, told_commit
from federated.stages.sensitivity import mean_shares, sensitivity_figure
from tasks.report import REPORT, RUNS, write_comparison
from tasks.sensitivity import FIGURE
from tasks.track import (
    NOTE,
    adopt,
    client,
    experiment_id,
    found_run,
    unusable,
    unusable_errors,
)


@dataclass(frozen=True)
class Compared:
    """The folder of a comparison, and its table as Markdown."""

    folder: Path
    table: str


@task(name="compare-start", task_run_name="compare-start {name}", cache_policy=NO_CACHE)
def begin_comparison(name: str, folder: Path, command: str) -> str:
    """Open the MLflow run of a comparison, below which its runs are shown; return its id.

    The same comparison, begun again, has the one that it had before.

    Args:
        name: the experiment's.
        folder: the comparison's.
        command: the command that makes it.

    Raises:
        ConsiliumError: MLflow cannot be used.
    """
    marker = folder / "mlflow_run_id"
    try:
        mlflow = client()
        if marker.is_file() and (before := found_run(marker.read_text().strip())):
            mlflow.update_run(before, status="RUNNING")
            return before
        note = f"Runs of `{name}` side by side, made by `{command}`; each is below this one."
        tags = {"kind": "comparison", "command": command, NOTE: note}
        opened = experiment_id(mlflow, name)
        run = mlflow.create_run(opened, run_name=folder.name, tags=tags)
    except unusable_errors() as error:
        raise unusable(error) from error
    write_text(marker, run.info.run_id + "\n")
    return str(run.info.run_id)


@task(name="compare", task_run_name="compare {name}", cache_policy=NO_CACHE)
def compare(
    name: str, results: Sequence[Result], folder: Path, command: str, mlflow_run_id: str
) -> Compared:
    """Write ``report.html``, ``table.md``, ``runs.json`` and a figure; keep them in MLflow.

    They are artifacts of the comparison's run there.

    The figure is named after the task's primary metric: ``auc.png`` or ``dice.png``. Where layers
    were found sensitive to the domain, ``sensitive_layers.png`` shows which.

    Args:
        name: the experiment's.
        results: the finished runs.
        folder: where the files are written.
        command: the command that makes this comparison.
        mlflow_run_id: what :func:`begin_comparison` gave.
    """
    table, task = rows(results), results[0].task
    note = _note(results, table[0]["baseline"])
    text = markdown(table, task, command, note) + per_site_markdown(results)
    write_text(folder / "table.md", text)
    document = {
        "experiment": name,
        "command": command,
        "note": note,
        "task": results[0].summary.get("task", "classification"),
        "rows": [_without_nan(row) for row in table],
        "sites": [_without_nan(row) for row in site_rows(results)],
        "curves": mean_curves(results),
        "runs": [_run(result) for result in results],
    }
    write_json(folder / RUNS, document)
    write_comparison(folder, document)
    figure = folder / f"{task.primary_metric}.png"
    comparison_figure(results, figure, f"{name}: {note.split('.')[0]}")
    files = [REPORT, "table.md", RUNS, figure.name]
    if shares := _sensitive_layers(results):
        sensitivity_figure(shares, folder / FIGURE, f"{name}: mean over seeds")
        files.append(FIGURE)
    # Those that were done before were begun by themselves, or for another comparison.
    for result in results:
        if tracked := found_run(result.summary["mlflow_run_id"]):
            adopt(tracked, mlflow_run_id)
    _track(mlflow_run_id, table, task.primary_metric, folder, files)
    return Compared(folder, text)


def _sensitive_layers(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """For every label that has any, the shares of each layer at its sites, averaged over seeds."""
    found = [result for result in results if result.summary.get("sensitive_layers")]
    return {
        f"{label}, {site}": layers
        for label, group in by_label(found).items()
        for site, layers in mean_shares([r.summary["sensitive_layers"] for r in group]).items()
    }


def _note(results: Sequence[Result], baseline: str) -> str:
    """The line above a table: where the data come from, seeds, rounds, which code."""
    summaries = [result.summary for result in results]
    sources = sorted({summary["data_source"] for summary in summaries})
    seeds = sorted({result.planned.seed for result in results})
    commits = sorted(
        {
            told_commit(short_commit(summary["git_commit"]), summary.get("versions", {}))
            for summary in summaries
        }
    )
    rounds = sorted({summary["rounds_done"] for summary in summaries})
    task = results[0].task
    pooled = (
        " AUC is over the cases of all sites together, which favours models that differ between "
        "sites (local, fedbn), since they can tell sites apart; mean site AUC is within sites."
    )
    return (
        f"Data source: {', '.join(sources)}. Seeds {', '.join(map(str, seeds))}; rounds "
        f"{', '.join(map(str, rounds))}; commit {', '.join(commits)}. Metrics are those of the "
        "test split: mean ± sample standard deviation over seeds. The difference is that of the "
        f"{task.title} to {baseline}, and p is that of a paired t-test over seeds. Rounds to 90 %: "
        f"after how many a run has 90 % of its own final {task.title}. MB are those of all sites "
        "in all rounds." + (pooled if task.primary_metric == "auc" else "")
    )


def _without_nan(row: Any) -> Any:
    """A row with ``null`` for what has no value: JSON has no NaN."""
    if isinstance(row, dict):
        return {key: _without_nan(value) for key, value in row.items()}
    return None if isinstance(row, float) and math.isnan(row) else row


def _run(result: Result) -> dict[str, Any]:
    summary = result.summary
    kept = ("run_id", "kept_round", "metrics", "spread", "bytes", "data_source", "git_commit")
    return {
        "label": result.planned.label,
        "seed": result.planned.seed,
        "overrides": list(result.planned.overrides),
        **{key: summary[key] for key in kept},
        "seconds": summary["seconds"]["total"],
        "peak_rss_mb": summary["peak_rss_mb"],
    }


def _track(
    run_id: str,
    table: Sequence[dict[str, Any]],
    primary_metric: str,
    folder: Path,
    files: Sequence[str],
) -> None:
    from mlflow.entities import Metric, RunTag

    mlflow = client()
    metrics = []
    for row in table:
        # MLflow allows no + in a name.
        label = row["label"].replace("+", "-").replace(":", "-").replace("=", "-")
        values = {
            f"{label}/{primary_metric}_mean": row[primary_metric]["mean"],
            f"{label}/p": row["p"],
        }
        metrics += [
            Metric(name, value, 0, 0)
            for name, value in values.items()
            if value is not None and math.isfinite(value)
        ]
    labels = ",".join(row["label"] for row in table)
    mlflow.log_batch(run_id, metrics=metrics, tags=[RunTag("labels", labels)])
    for file in files:
        mlflow.log_artifact(run_id, str(folder / file))
    mlflow.set_terminated(run_id, "FINISHED")
