"""``report.html``: what a run did, how good its model is, and what it cost, for people.

The page is a pure function of what the coordinator knows of a run. It has nothing that is not in
the run's shared files: of a private run no time of a stage, no finding of a case, no count of
training labels.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from federated.learning import TASKS
from federated.provenance import told_commit
from federated.report import words
from federated.report.calibration_part import calibration_part
from federated.report.cost_figures import byte_bars, time_bars
from federated.report.curve_figures import reliability_figures, roc_figures
from federated.report.drawing import clean
from federated.report.evaluation_part import (
    bound_lines,
    class_rows,
    confusion_table,
    interval_text,
    metric_rows,
)
from federated.report.figures import (
    learning_curves,
    listed_sites,
    primary_of,
    single_values,
    site_curves,
    site_dots,
    site_values,
    title_of,
    undrawn,
)
from federated.report.findings import absences, collapsed, validation_part
from federated.report.guarantee import NO_PRIVACY
from federated.report.intervals import NONE as NO_INTERVALS
from federated.report.intervals import Intervals, intervals_of
from federated.report.page import render
from federated.report.population import Population, population_of
from federated.report.privacy_part import privacy_part
from federated.report.subgroup_part import flip_part, subgroup_part
from federated.report.values import (
    NONE,
    Numbers,
    RunValues,
    count_of,
    is_number,
    size_of,
    small_number,
    time_of,
)

# In a table of sites, beside the primary metric.
SITE_METRICS = 3


# What a file that is damaged, or is somebody else's, makes the parts of a page fail with.
FOREIGN = (LookupError, TypeError, ValueError, AttributeError)


def run_page(run: RunValues) -> str:
    """The page of a run, as one HTML file that loads nothing.

    What is in the other files beside the summary and is not what it should be is left out, and the
    page says so.

    Args:
        run: the run's values.
    """
    run, population, validation = _readable(run)
    numbers = Numbers(run.summary)
    calibration = calibration_part(run, numbers)
    intervals = (
        intervals_of(run.statistics, run.info, int(run.summary["seed"]))
        if run.statistics is not None
        else NO_INTERVALS
    )
    return render(
        "run.html",
        run=run.summary,
        phantom=run.phantom,
        collapsed=collapsed(run),
        private=run.private,
        tiles=_tiles(run, numbers, intervals),
        training=words.training_sentences(run),
        data=words.data_sentences(run),
        protection=words.protection_sentences(run),
        left=words.left_sites(run),
        metrics=metric_rows(run, numbers, intervals),
        of_classes=class_rows(run, numbers, intervals),
        how=intervals.how,
        bounds=bound_lines(run, numbers),
        confusion=confusion_table(run, numbers),
        rocs=roc_figures(run),
        # With a temperature it is drawn before and after.
        reliability=[] if calibration and calibration["reliability"] else reliability_figures(run),
        calibration=calibration,
        subgroups=subgroup_part(run, numbers),
        flips=flip_part(run, numbers),
        pictures=_pictures(run),
        curves=list(learning_curves(run)),
        single=single_values(run),
        sites=_sites(run, numbers),
        told_by_parties=words.told_by_parties(run),
        site_dots=site_dots(run),
        site_curves=site_curves(run),
        site_values=site_values(run),
        absences=absences(run),
        population=population,
        privacy=privacy_part(run, numbers),
        no_privacy=NO_PRIVACY,
        bytes=byte_bars(run),
        times=time_bars(run),
        costs=_costs(numbers),
        validation=validation,
        limits=[*words.limits(run), *undrawn(run), *run.left_out],
        commands=words.reproduce(run),
        notes=words.notes_on_reproduction(run),
        facts=_facts(run, numbers),
    )


def _readable(run: RunValues) -> tuple[RunValues, Population | None, dict[str, Any]]:
    """The run, whom its cases are of and what validation found, without what cannot be read."""
    left = [*run.left_out]
    population: Population | None = None
    try:
        population = population_of(run)
    except FOREIGN:
        left.append(
            "Whom the training cases are of is not told here: the newest statistics.json of "
            "consilium statistics is damaged, or something else."
        )
    try:
        validation = validation_part(run)
    except FOREIGN:
        left.append(
            "What validation found is not told here: validation.json of the run is damaged, or "
            "something else."
        )
        run = replace(run, validation=None)
        validation = validation_part(run)
    return replace(run, left_out=left), population, validation


def _tiles(run: RunValues, numbers: Numbers, intervals: Intervals) -> list[dict[str, Any]]:
    """The few numbers that a reader looks for first."""
    metric, task = primary_of(run), run.info.task
    title = title_of(metric.name, task)
    span = interval_text(intervals, metric.name)
    tiles = [
        {
            "name": f"test {title}",
            "value": numbers("metrics", "test", metric.name),
            "note": f"95 % interval {span}" if span else "over the test cases of all sites",
        }
    ]
    if numbers.at("spread", "test", metric.name, "worst") is not None:
        tiles.append(
            {
                "name": f"worst site's {title}",
                "value": numbers("spread", "test", metric.name, "worst"),
                "note": f"of {count_of(len(run.summary['sites']), 'site')}",
            }
        )
    if run.private:
        unit, delta = run.summary["privacy"]["unit"], run.summary["privacy"]["delta"]
        none = not is_number(numbers.at("privacy", "epsilon"))
        tiles.append(
            {
                "name": f"ε for each {unit}",
                "value": "none known" if none else numbers("privacy", "epsilon", form=".3g"),
                "note": f"δ = {small_number(delta)}, composed over the run",
            }
        )
    else:
        tiles.append({"name": "differential privacy", "value": "none", "note": "no ε to state"})
    tiles.append(
        {
            "name": "sent up by sites",
            "value": _size(numbers, "bytes", "up"),
            "note": f"in {count_of(int(run.summary['rounds_done']), 'round')}",
        }
    )
    return tiles


def _size(numbers: Numbers, *path: str) -> Markup:
    """A number of bytes for a person, in the unit that suits it."""
    return _in_words(numbers, size_of, *path)


def _in_words(numbers: Numbers, say: Any, *path: str | int) -> Markup:
    value = numbers.at(*path)
    if not is_number(value):
        return NONE
    amount, unit = say(value).split(" ")
    factor = {"GB": 1e9, "MB": 1e6, "kB": 1e3, "ms": 1e-3, "min": 60.0, "h": 3600.0}.get(unit, 1.0)
    digits = len(amount.partition(".")[2])
    return numbers(*path, form=f".{digits}f", scale=factor) + f" {unit}"


def _pictures(run: RunValues) -> list[dict[str, str]]:
    """Pictures of test cases as data addresses, in the order of sites."""
    order = {"worst": 0, "median": 1, "best": 2}
    found = []
    for name, content in run.pictures.items():
        site, _, which = name.rpartition("-")
        found.append((site, order.get(which, 3), which, content))
    return [
        {
            "site": clean(site),
            "which": which,
            "source": f"data:image/png;base64,{b64encode(content).decode()}",
        }
        for site, _, which, content in sorted(found)
    ]


def _sites(run: RunValues, numbers: Numbers) -> dict[str, Any]:
    """A row for each site: cases, metrics of test cases, and the mean loss of its training."""
    task = TASKS[run.info.task]
    names = list(task.metrics_in("site"))[:SITE_METRICS]
    if "compared" in primary_of(run).places and task.compares_sites:
        names = list(dict.fromkeys([task.primary_metric, *task.metrics_of_sites]))[:SITE_METRICS]
    rows = []
    shown, note = listed_sites(run)
    for site in shown:
        known = run.summary["per_site"].get(site, {})
        cases = run.cases.get(site, {})
        rows.append(
            {
                "name": site,
                "cases": [cases.get(split) for split in ("train", "val", "test")],
                "cells": [numbers("per_site", site, "test", name) for name in names],
                "absent": ", ".join(map(str, known.get("classes_absent", {}).get("test") or ())),
            }
        )
    shares = run.experiment.evaluation.share
    return {
        "heads": [title_of(name, run.info.task, run.info.dims) for name in names],
        "rows": rows,
        "note": note,
        "untold": shares == "sums",
        "absent": any(row["absent"] for row in rows),
        "spread": [
            {
                "name": title_of(name, run.info.task, run.info.dims),
                "cells": [numbers("spread", "test", name, how) for how in ("worst", "mean", "sd")],
            }
            for name in task.metrics_in("site_spread")
            if numbers.at("spread", "test", name, "worst") is not None
        ],
    }


def _costs(numbers: Numbers) -> list[tuple[str, Markup]]:
    rows = [
        ("Up, from all sites", _size(numbers, "bytes", "up")),
        ("Down, to all sites", _size(numbers, "bytes", "down")),
        ("Up, if updates were dense", _size(numbers, "bytes", "up_dense_float32")),
        ("Time of the run", _in_words(numbers, time_of, "seconds", "total")),
    ]
    if numbers.at("seconds", "overhead") is not None:
        rows.append(
            (
                "of its rounds outside training and evaluation",
                _in_words(numbers, time_of, "seconds", "overhead"),
            )
        )
    if numbers.at("peak_rss_mb") is not None:
        rows.append(("Largest memory of a process", numbers("peak_rss_mb", form=".0f") + " MiB"))
    return rows


def _facts(run: RunValues, numbers: Numbers) -> Sequence[tuple[str, Any]]:
    """Where a run came from."""
    summary: Mapping[str, Any] = run.summary
    return [
        ("experiment", summary["experiment"]),
        ("run", summary["run_id"]),
        ("seed", numbers("seed", form="d")),
        ("data", summary["data_source"]),
        ("MD5 of the data", summary["data_md5"] or "not told: they are the sites' own"),
        ("commit", told_commit(summary["git_commit"], summary.get("versions", {}))),
        ("MLflow run", summary["mlflow_run_id"]),
        ("model version", summary["model_version"] or "not registered"),
        *summary.get("versions", {}).items(),
    ]
