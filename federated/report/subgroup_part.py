"""What a page says of subgroups of patients, and of how far masks change with the image turned."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from markupsafe import Markup

from federated.learning.coarse_scores import columns_of
from federated.learning.final_statistics import COARSE
from federated.learning.statistics import EvaluationStatistics
from federated.report.charts import DOT_TICKS, Dot, dot_chart, ends_of
from federated.report.curves import Interval, binned_interval, wilson
from federated.report.drawing import Text, clean
from federated.report.evaluation_part import interval_text
from federated.report.figures import Figure, is_share, primary_of, title_of
from federated.report.intervals import NONE as NO_INTERVALS
from federated.report.intervals import Intervals, intervals_of
from federated.report.values import Numbers, RunValues, count_of, is_number

# The paths in the summary.
AT, FLIPS = "subgroups", "uncertainty"
# In place of the number of cases of a group that nobody tells.
HIDDEN: Final = Markup('<span class="none">hidden</span>')
# Of fewer cases a metric says little.
FEW: Final = 30
# What is shown of a group, by task.
SHOWN: Mapping[str, tuple[str, ...]] = {
    "classification": ("auc", "accuracy", "balanced_accuracy"),
    "multilabel": ("auc", "accuracy", "f1"),
    "regression": ("mae", "bias", "r2"),
    "segmentation": ("dice", "hd95", "flip_variance"),
}
# How the intervals of a metric are found.
HOW: Mapping[str, str] = {
    "auc": "AUC: DeLong's method over cases, from histograms of few bins; what bins leave open is "
    "in no interval.",
    "accuracy": "Accuracy: Wilson, over cases.",
    "balanced_accuracy": "What else follows from confusion counts: the bootstrap over cases, of 30 "
    "cases and more.",
    "dice": "Dice and distances: Student's t over the patients of a group.",
    "mae": "MAE and bias: the normal distribution over cases.",
}
# What a page calls the means of variances over flips, in which voxels.
FLIP_NAMES: Mapping[str, str] = {
    "flip_variance": "in what was predicted or is there",
    "flip_variance_right": "of it, where predicted rightly",
    "flip_variance_wrong": "of it, where predicted wrongly",
}


def subgroup_part(run: RunValues, numbers: Numbers) -> dict[str, Any] | None:
    """The part of a page on subgroups; ``None`` where none were asked for."""
    told = run.summary.get(AT)
    if not told:
        return None
    names = [
        name
        for name in SHOWN[run.info.task]
        if any(
            group["metrics"].get(name) is not None
            for groups in told["attributes"].values()
            for group in groups
        )
    ]
    tables = [
        _table(run, numbers, attribute, groups, names)
        for attribute, groups in told["attributes"].items()
    ]
    return {
        "heads": [_title(name, run) for name in names],
        "tables": tables,
        "figures": [table["figure"] for table in tables if table["figure"]],
        "hidden": any(row["hidden"] for table in tables for row in table["rows"]),
        "few": FEW if any(row["few"] for table in tables for row in table["rows"]) else 0,
        "least": run.experiment.evaluation.min_count,
        "how": _how(run),
        "rough": "auc" in names,
        "missing": [f"{clean(site)}: {why}" for site, why in told["missing"].items()],
    }


def _title(name: str, run: RunValues) -> str:
    return (
        "flip variance" if name == "flip_variance" else title_of(name, run.info.task, run.info.dims)
    )


def _how(run: RunValues) -> Sequence[str]:
    """How intervals were found, in words; nothing where there are none."""
    known = [
        _intervals(run, groups, n) for groups in run.groups.values() for n in range(len(groups))
    ]
    there = {name for found in known for name in found.of}
    return [said for name, said in HOW.items() if name in there]


def _table(
    run: RunValues,
    numbers: Numbers,
    attribute: str,
    groups: Sequence[Mapping[str, Any]],
    names: Sequence[str],
) -> dict[str, Any]:
    """The table of one attribute, with a figure of the metric that models are judged by.

    Args:
        run: the run's values.
        numbers: writes numbers of the summary.
        attribute: the attribute.
        groups: what the summary has of its groups.
        names: of the metrics that are shown.
    """
    sums = run.groups.get(attribute, ())
    intervals = [_intervals(run, sums, place) for place in range(len(groups))]
    rows = []
    for place, group in enumerate(groups):
        path = (AT, "attributes", attribute, place)
        cases = group["cases"]
        rows.append(
            {
                "name": group["group"],
                "cases": HIDDEN if cases is None else numbers(*path, "cases", form="d"),
                "sites": _sites(group),
                "cells": [
                    {
                        "value": numbers(*path, "metrics", name),
                        "interval": interval_text(intervals[place], name),
                        "bounds": _bounds(group, name),
                    }
                    for name in names
                ],
                "hidden": bool(group["hidden_by"]),
                "few": cases is not None and 0 < cases < FEW,
            }
        )
    return {
        "name": attribute,
        "rows": rows,
        "figure": _figure(run, attribute, groups, intervals),
    }


def _sites(group: Mapping[str, Any]) -> str:
    """How many sites tell of a group, and how many hide it."""
    telling, hiding = len(group["told_by"]), len(group["hidden_by"])
    return f"{telling} of {telling + hiding}"


def _bounds(group: Mapping[str, Any], name: str) -> str:
    """Between which values a metric lies that is not known exactly, where they are apart."""
    ends = group["bounds"].get(name)
    if not ends or not all(map(is_number, ends)) or ends[1] - ends[0] <= 0.02:
        return ""
    return f"{ends[0]:.3f} to {ends[1]:.3f}"


def _intervals(
    run: RunValues, groups: Sequence[EvaluationStatistics | None], place: int
) -> Intervals:
    """The intervals of a group's metrics; none where its sums are not there."""
    statistics = groups[place] if place < len(groups) else None
    if statistics is None:
        return NO_INTERVALS
    found = intervals_of(statistics, run.info, int(run.summary["seed"]))
    if run.info.task == "classification":
        found = replace(found, of=_of_outcomes(statistics, found.of))
    counts = statistics.arrays.get(COARSE)
    if counts is None or not statistics.cases:
        return found
    columns = columns_of(counts, exclusive=run.info.task == "classification")
    area = binned_interval([counts[column] for column in columns])
    if area is None:
        return found
    return replace(found, of={**found.of, "auc": area})


def _of_outcomes(
    statistics: EvaluationStatistics, of: Mapping[str, Interval]
) -> dict[str, Interval]:
    """Intervals of what follows from counts of a group, which may be of few cases.

    Of few cases, as of those that are all right, the bootstrap knows no uncertainty.
    """
    kept = (
        {} if statistics.cases < FEW else {n: ends for n, ends in of.items() if ends[0] < ends[1]}
    )
    outcomes = statistics.arrays.get("outcomes")
    if outcomes is None or not statistics.cases:
        return kept
    low, high = wilson(outcomes[1:].astype(np.float64), np.array([statistics.cases]))
    return {**kept, "accuracy": (float(low[0]), float(high[0]))}


def _figure(
    run: RunValues,
    attribute: str,
    groups: Sequence[Mapping[str, Any]],
    intervals: Sequence[Intervals],
) -> Figure | None:
    """The metric that models are judged by, of each group of an attribute."""
    metric = primary_of(run)
    title = title_of(metric.name, run.info.task, run.info.dims)
    known = [
        (group, float(group["metrics"][metric.name]), own.of.get(metric.name))
        for group, own in zip(groups, intervals, strict=True)
        if is_number(group["metrics"].get(metric.name))
    ]
    if len(known) < 2:
        return None
    dots = [
        Dot(clean(group["group"]), value, f"{value:.3f}", interval)
        for group, value, interval in known
    ]
    of_all = run.summary["metrics"].get("test", {}).get(metric.name)
    of_all = of_all if is_number(of_all) else None
    values = [end for dot in dots for end in (dot.value, *(dot.interval or ()))]
    drawn = [*values, *([of_all] if of_all is not None else [])]
    ends = ends_of(drawn, is_share(metric), DOT_TICKS)
    text = Text(
        f"subgroup-dots-{list(run.summary[AT]['attributes']).index(attribute)}",
        f"Test {title} by {clean(attribute)}",
        "; ".join(
            f"{clean(group['group'])} {value:.3f} of {count_of(group['cases'], 'case')}"
            for group, value, _ in known
        )
        + (f". Over all test cases it is {of_all:.3f}." if of_all is not None else "."),
    )
    return Figure(
        dot_chart(text, dots, ends, of_all, f"test {title}"),
        f"Test {title} by {clean(attribute)}, with 95 % intervals where they are known."
        + (" The dashed line is that of all test cases." if of_all is not None else ""),
    )


def flip_part(run: RunValues, numbers: Numbers) -> dict[str, Any] | None:
    """The part of a page on flips; ``None`` where nobody asked for it."""
    told = run.summary.get(FLIPS)
    if not told:
        return None
    rows: list[tuple[str, Markup]] = [
        (said, numbers(FLIPS, "metrics", name, form=".4f")) for name, said in FLIP_NAMES.items()
    ]
    return {
        "rows": rows,
        "cases": numbers(FLIPS, "cases", form="d"),
        "times": 8 if run.info.dims == 3 else 4,
        "missing": [f"{clean(site)}: {why}" for site, why in told["missing"].items()],
    }
