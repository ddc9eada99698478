"""What a page says of how good a model is: tables of metrics with their intervals."""

from typing import Any

from markupsafe import Markup

from federated.learning import TASKS, smaller_is_better
from federated.report.figures import title_of
from federated.report.intervals import Intervals
from federated.report.values import Numbers, RunValues, is_number, written

HEAT_LEVELS = 9


def interval_text(found: Intervals, name: str, form: str = ".3f") -> str:
    if name not in found.of or not all(map(is_number, found.of[name])):
        return ""
    low, high = (written(end, form) for end in found.of[name])
    return f"{low} to {high}"


def metric_rows(run: RunValues, numbers: Numbers, intervals: Intervals) -> list[dict[str, Any]]:
    """The metrics over the cases of all sites, those of single classes aside."""
    rows = []
    for metric in TASKS[run.info.task].metrics:
        name = metric.name
        if (
            numbers.at("metrics", "test", name) is None
            and numbers.at("metrics", "val", name) is None
        ):
            continue
        rows.append(
            {
                "name": title_of(name, run.info.task, run.info.dims),
                "better": "lower" if smaller_is_better(name) or name == "ece" else "higher",
                "val": numbers("metrics", "val", name),
                "test": numbers("metrics", "test", name),
                "interval": interval_text(intervals, name),
            }
        )
    return rows


def class_rows(run: RunValues, numbers: Numbers, intervals: Intervals) -> dict[str, Any] | None:
    """The metrics of each class, of segmentation, or of each label."""
    names = {
        "segmentation": ("dice", "hd95", "assd"),
        "multilabel": ("auc",),
    }.get(run.info.task)
    if names is None:
        return None
    labels = run.info.classes[1:] if run.info.task == "segmentation" else run.info.classes
    return {
        "heads": [title_of(name, run.info.task, run.info.dims) for name in names],
        "rows": [
            {
                "name": label,
                "cells": [
                    {
                        "value": numbers("metrics", "test", f"{name}_{label}"),
                        "interval": interval_text(intervals, f"{name}_{label}", ".3f"),
                    }
                    for name in names
                ],
            }
            for label in labels
        ],
    }


def bound_lines(run: RunValues, numbers: Numbers) -> list[Markup]:
    """Metrics that are known between bounds alone, since they follow from histograms."""
    found = (run.summary.get("evaluation", {}).get("intervals") or {}).get("test") or {}
    lines = []
    for name, (low, high) in found.items():
        if not (is_number(low) and is_number(high)) or high - low <= 1e-3:
            continue
        path = ("evaluation", "intervals", "test", name)
        lines.append(
            Markup("{} follows from histograms: the exact one is from {} to {}.").format(
                title_of(name, run.info.task, run.info.dims), numbers(*path, 0), numbers(*path, 1)
            )
        )
    return lines


def confusion_table(run: RunValues, numbers: Numbers) -> dict[str, Any] | None:
    """The confusion counts of test cases as a table, each shaded by its share of its row."""
    counts = (run.summary.get("confusion") or {}).get("test")
    if not counts or run.info.task != "classification":
        return None
    least = run.experiment.evaluation.min_count
    names = run.info.classes
    rows = []
    for true, row in enumerate(counts):
        total = sum(row)
        cells = [
            {
                "text": numbers("confusion", "test", true, predicted, form="d")
                if not 0 < count < least
                else f"<{least}",
                "heat": round((HEAT_LEVELS - 1) * count / total) if total else 0,
                "right": true == predicted,
            }
            for predicted, count in enumerate(row)
        ]
        recall = f"{row[true] / total:.0%}" if total and not 0 < row[true] < least else "–"
        rows.append({"name": names[true], "cells": cells, "recall": recall})
    return {"names": names, "rows": rows}
