"""``report.html``: what a run did, how good its model is, and what it cost, for people.

The page is a pure function of what the coordinator knows of a run. It has nothing that is not in
the run's shared files: of a private run no time of a stage, no finding of a case, no count of
training labels.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from federated.learning import TASKS, smaller_is_better
from federated.report import words
from federated.report.drawing import clean
from federated.report.epsilon import grade, meaning_of
from federated.report.figures import (
    attack_figure,
    byte_bars,
    learning_curves,
    primary_of,
    privacy_bars,
    reliability_figures,
    roc_figures,
    site_curves,
    site_dots,
    time_bars,
    title_of,
)
from federated.report.intervals import NONE as NO_INTERVALS
from federated.report.intervals import Intervals, intervals_of
from federated.report.page import render
from federated.report.population import population_of
from federated.report.values import (
    NONE,
    Numbers,
    RunValues,
    count_of,
    share_of,
    size_of,
    small_number,
    time_of,
)

HEAT_LEVELS = 9
# In a table of sites, beside the primary metric.
SITE_METRICS = 3


def run_page(run: RunValues) -> str:
    """The page of a run, as one HTML file that loads nothing.

    Args:
        run: the run's values.
    """
    numbers = Numbers(run.summary)
    intervals = (
        intervals_of(run.statistics, run.info, int(run.summary["seed"]))
        if run.statistics is not None
        else NO_INTERVALS
    )
    return render(
        "run.html",
        run=run.summary,
        phantom=run.phantom,
        private=run.private,
        tiles=_tiles(run, numbers, intervals),
        training=words.training_sentences(run),
        data=words.data_sentences(run),
        protection=words.protection_sentences(run),
        left=words.left_sites(run),
        metrics=_metrics(run, numbers, intervals),
        of_classes=_of_classes(run, numbers, intervals),
        how=intervals.how,
        bounds=_bounds(run, numbers),
        confusion=_confusion(run, numbers),
        rocs=roc_figures(run),
        reliability=reliability_figures(run),
        pictures=_pictures(run),
        curves=list(learning_curves(run)),
        sites=_sites(run, numbers),
        site_dots=site_dots(run),
        site_curves=site_curves(run),
        absences=_absences(run),
        population=population_of(run),
        privacy=_privacy(run, numbers),
        bytes=byte_bars(run),
        times=time_bars(run),
        costs=_costs(numbers),
        validation=_validation(run),
        limits=words.limits(run),
        commands=words.reproduce(run),
        notes=words.notes_on_reproduction(run),
        facts=_facts(run, numbers),
    )


def _interval(found: Intervals, name: str, form: str = ".3f") -> str:
    if name not in found.of:
        return ""
    low, high = (format(end, form).replace("-", "−") for end in found.of[name])
    return f"{low} to {high}"


def _tiles(run: RunValues, numbers: Numbers, intervals: Intervals) -> list[dict[str, Any]]:
    """The few numbers that a reader looks for first."""
    metric, task = primary_of(run), run.info.task
    title = title_of(metric.name, task)
    span = _interval(intervals, metric.name)
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
        none = numbers.at("privacy", "epsilon") is None
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
    if value is None:
        return NONE
    amount, unit = say(value).split(" ")
    factor = {"GB": 1e9, "MB": 1e6, "kB": 1e3, "ms": 1e-3, "min": 60.0, "h": 3600.0}.get(unit, 1.0)
    digits = len(amount.partition(".")[2])
    return numbers(*path, form=f".{digits}f", scale=factor) + f" {unit}"


def _metrics(run: RunValues, numbers: Numbers, intervals: Intervals) -> list[dict[str, Any]]:
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
                "name": title_of(name, run.info.task),
                "better": "lower" if smaller_is_better(name) or name == "ece" else "higher",
                "val": numbers("metrics", "val", name),
                "test": numbers("metrics", "test", name),
                "interval": _interval(intervals, name),
            }
        )
    return rows


def _of_classes(run: RunValues, numbers: Numbers, intervals: Intervals) -> dict[str, Any] | None:
    """The metrics of each class, of segmentation, or of each label."""
    names = {
        "segmentation": ("dice", "hd95", "assd"),
        "multilabel": ("auc",),
    }.get(run.info.task)
    if names is None:
        return None
    labels = run.info.classes[1:] if run.info.task == "segmentation" else run.info.classes
    return {
        "heads": [title_of(name, run.info.task) for name in names],
        "rows": [
            {
                "name": label,
                "cells": [
                    {
                        "value": numbers("metrics", "test", f"{name}_{label}"),
                        "interval": _interval(intervals, f"{name}_{label}", ".3f"),
                    }
                    for name in names
                ],
            }
            for label in labels
        ],
    }


def _bounds(run: RunValues, numbers: Numbers) -> list[Markup]:
    """Metrics that are known between bounds alone, since they follow from histograms."""
    found = (run.summary.get("evaluation", {}).get("intervals") or {}).get("test") or {}
    lines = []
    for name, (low, high) in found.items():
        if high - low <= 1e-3:
            continue
        path = ("evaluation", "intervals", "test", name)
        lines.append(
            Markup("{} follows from histograms: the exact one is from {} to {}.").format(
                title_of(name, run.info.task), numbers(*path, 0), numbers(*path, 1)
            )
        )
    return lines


def _confusion(run: RunValues, numbers: Numbers) -> dict[str, Any] | None:
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
    for site in run.summary["sites"]:
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
        "heads": [title_of(name, run.info.task) for name in names],
        "rows": rows,
        "untold": shares == "sums",
        "absent": any(row["absent"] for row in rows),
        "spread": [
            {
                "name": title_of(name, run.info.task),
                "cells": [numbers("spread", "test", name, how) for how in ("worst", "mean", "sd")],
            }
            for name in task.metrics_in("site_spread")
            if numbers.at("spread", "test", name, "worst") is not None
        ],
    }


def _absences(run: RunValues) -> list[str]:
    """Who was not there, and why, as far as anybody has told."""
    summary = run.summary
    said = [
        ("absent", "did not take part"),
        ("not_evaluated", "is in none of the metrics"),
        ("no_own_model", "has handed over no model of its own"),
    ]
    return [
        f"{site} {what}: {reason}"
        for key, what in said
        for site, reason in (summary.get(key) or {}).items()
    ]


def _privacy(run: RunValues, numbers: Numbers) -> dict[str, Any] | None:
    """What was spent of privacy, and what that means; ``None`` where there is none."""
    told = run.summary["privacy"]
    if not run.private:
        return None
    per_site = told.get("per_site", {})
    heads = {
        "epsilon": "ε, this run",
        "epsilon_ledger": "ε, all runs",
        "budget": "budget",
        "noise_multiplier": "noise multiplier",
        "sampling_rate": "sampling rate",
    }
    epsilon, delta = told["epsilon"], told["delta"]
    several = [own.get("cases_of_one_patient") or 0 for own in per_site.values() if own]
    patient = None
    if told["unit"] == "record" and max(several, default=0) > 1:
        patient = {
            "cases": max(several),
            "epsilon": numbers("privacy", "epsilon_patient", form=".3g"),
        }
    return {
        "unit": told["unit"],
        "thing": {"record": "training case", "site": "site"}.get(told["unit"], told["unit"]),
        "epsilon": numbers("privacy", "epsilon", form=".3g"),
        "known": epsilon is not None,
        "seeded": told.get("noise") == "seeded",
        "delta": small_number(delta),
        "odds_of_delta": f"{1 / delta:,.0f}".replace(",", "\u202f"),
        "accountant": told["accountant"],
        **(_meaning(epsilon, delta) if epsilon is not None else {}),
        "patient": patient,
        "missing": told.get("missing"),
        "heads": list(heads.values()),
        "rows": [
            {
                "name": site,
                "cells": [numbers("privacy", "per_site", site, key, form=".3g") for key in heads],
            }
            for site in per_site
        ],
        "unreported": [clean(site) for site in told.get("unreported", ())],
        "bars": privacy_bars(run),
        "figure": attack_figure(epsilon, delta) if epsilon is not None else None,
    }


def _meaning(epsilon: float, delta: float) -> dict[str, Any]:
    """What a guarantee bounds, in words."""
    known = meaning_of(epsilon, delta)
    odds = f"= {known.odds:.3g}" if known.odds < 1000 else f"= {known.odds:.0f}"
    return {
        "odds": odds if known.odds < 1e6 else "> 1 000 000",
        "recognised": share_of(known.recognised),
        "guess": share_of(known.guess),
        "loose": known.guess > 0.95,
        "grade": grade(epsilon),
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
                "of it outside training and evaluation",
                _in_words(numbers, time_of, "seconds", "overhead"),
            )
        )
    if numbers.at("peak_rss_mb") is not None:
        rows.append(("Largest memory of a process", numbers("peak_rss_mb", form=".0f") + " MiB"))
    return rows


def _validation(run: RunValues) -> dict[str, Any]:
    """What validation found: rules and how many cases broke them, and never which."""
    report, least = run.validation, run.experiment.evaluation.min_count
    if report is None:
        return {"known": False, "rows": [], "excluded": [], "dropped": []}
    rows = [
        (site, str(rule.get("rule", "")), _counted(len(rule.get("where", ())), least))
        for site, rules in report.get("broken", {}).items()
        for rule in rules
    ]
    # The shared report of a private run, and those of older versions, do not name rules.
    known = {site for site, _, _ in rows}
    rows += [
        (site, "told in the site's own report", "")
        for site in report.get("failures", {})
        if site not in known
    ]
    dropped = {
        site: sum(n if isinstance(n, int) else len(n) for n in splits.values())
        for site, splits in (report.get("dropped") or report.get("dropped_cases") or {}).items()
    }
    return {
        "known": True,
        "sites": len(report.get("sites", ())),
        "rows": rows,
        "excluded": list(report.get("excluded_sites", ())),
        "dropped": [(site, _counted(n, least)) for site, n in dropped.items()],
    }


def _counted(number: int, least: int) -> str:
    """A number of cases, unless it is a small one that is not to be told."""
    if not number:
        return "the site as a whole"
    return f"fewer than {least} cases" if number < least else count_of(number, "case")


def _facts(run: RunValues, numbers: Numbers) -> Sequence[tuple[str, Any]]:
    """Where a run came from."""
    summary: Mapping[str, Any] = run.summary
    return [
        ("experiment", summary["experiment"]),
        ("run", summary["run_id"]),
        ("seed", numbers("seed", form="d")),
        ("data", summary["data_source"]),
        ("MD5 of the data", summary["data_md5"] or "not told: they are the sites' own"),
        ("commit", summary["git_commit"]),
        ("MLflow run", summary["mlflow_run_id"]),
        ("model version", summary["model_version"] or "not registered"),
        *summary.get("versions", {}).items(),
    ]
