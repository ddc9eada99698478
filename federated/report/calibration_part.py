"""What a page says of a model's calibration: its temperature, and its prediction sets by site."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from federated.learning.calibrating import tempered_bins
from federated.report.charts import Dot, dot_chart, reliability_chart, room_for_coverage
from federated.report.curve_figures import reliability_words
from federated.report.curves import reliability
from federated.report.drawing import Text, clean
from federated.report.figures import MOST_SMALL, Figure, few_names
from federated.report.values import MOST_LISTED, NONE, Numbers, RunValues, count_of, more_of

# The path of the calibration in the summary.
AT = "calibration"
# So few cases allow coverage within two points of what is asked for by luck alone, or not at all.
FEW = 50


def calibration_part(run: RunValues, numbers: Numbers) -> dict[str, Any] | None:
    """The part of a page on calibration; ``None`` where none was asked for, or none is known."""
    told = run.summary.get(AT)
    if not told:
        return None
    return {
        "temperature": _temperature(numbers) if "temperature" in told else None,
        "reliability": _reliability(run, told),
        "sets": _sets(run, numbers, told["conformal"]) if "conformal" in told else None,
        "chosen": run.experiment.selection.keep == "best" and len(run.records) > 1,
    }


def _temperature(numbers: Numbers) -> dict[str, Any]:
    path = (AT, "temperature")
    value = numbers.at(*path, "temperature")
    said = "too sure" if value > 1 else "too shy" if value < 1 else "neither too sure nor too shy"
    return {
        "value": numbers(*path, "temperature", form=".2f"),
        "cases": numbers(*path, "validation_cases", form="d"),
        "said": said,
        "at_end": bool(numbers.at(*path, "at_end")),
        "rows": [
            {
                "name": name,
                "before": numbers(*path, key, "before"),
                "after": numbers(*path, key, "after"),
            }
            for key, name in (("loss", "loss"), ("ece", "calibration error (ECE)"))
        ],
    }


def _reliability(run: RunValues, told: Mapping[str, Any]) -> list[Figure]:
    """Reliability on test cases of all sites at the temperature, beside that without it."""
    if run.statistics is None or "temperature" not in told or not run.statistics.cases:
        return []
    figures = []
    fitted = float(told["temperature"]["temperature"])
    for name, temperature in (("before", 1.0), ("after", fitted)):
        bins = tempered_bins(run.statistics, temperature)
        if bins is None:
            return []
        found = reliability("", *bins)
        title = "before scaling" if name == "before" else f"at the temperature {temperature:.2f}"
        text = Text(
            f"reliability-{name}",
            f"Reliability of the predicted class, {title}",
            reliability_words(found),
        )
        caption = f"{title.capitalize()}: on the diagonal, predictions come true as often as said."
        figures.append(Figure(reliability_chart(text, found, small=False), caption))
    return figures


def _sets(run: RunValues, numbers: Numbers, told: Mapping[str, Any]) -> dict[str, Any]:
    """Coverage and size of the sets: of all sites, and of each by its own threshold."""
    path = (AT, "conformal")
    sites = [site for site in run.summary["sites"] if site in told["sites"]]
    rows = [_row(numbers, "all sites together", told["pooled"], (*path, "pooled"))]
    for site in sites[:MOST_LISTED]:
        own = (*path, "sites", site)
        row = _row(numbers, site, told["sites"][site]["own"], (*own, "own"))
        row["pooled"] = _percent(numbers, *own, "pooled", "coverage")
        rows.append(row)
    outside = [
        name
        for name, found in [("all sites together", told["pooled"])]
        + [(site, told["sites"][site]["own"]) for site in sites]
        if _is_outside(found)
    ]
    few = [s for s in sites if told["sites"][s]["own"]["cases"] < FEW]
    return {
        "asked": f"{100 * (1 - float(told['alpha'])):g} %",
        "rows": rows,
        "of_sites": bool(sites),
        "few": few_names(few),
        "outside": few_names(outside),
        "note": more_of(len(sites), "the first", "calibration of summary.json"),
        "least": FEW,
        "figure": _figure(told, sites),
    }


def _is_outside(found: Mapping[str, Any]) -> bool:
    """Whether a coverage is not among those that it has by chance in 95 % of draws."""
    if found["coverage"] is None or found["by_chance"] is None:
        return False
    low, high = found["by_chance"]
    return not low <= found["coverage"] <= high


def _row(
    numbers: Numbers, name: str, told: Mapping[str, Any], path: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "name": name,
        "fitted_on": numbers(*path, "validation_cases", form="d"),
        "cases": numbers(*path, "cases", form="d"),
        "coverage": _percent(numbers, *path, "coverage"),
        "interval": _range(told["interval"]),
        "by_chance": _range(told["by_chance"]),
        "size": numbers(*path, "mean_size", form=".2f"),
        "pooled": NONE,
    }


def _percent(numbers: Numbers, *path: str) -> Markup:
    if numbers.at(*path) is None:
        return NONE
    return numbers(*path, form=".1f", scale=0.01) + " %"


def _range(ends: Any) -> str:
    return "–" if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f} %"


def _figure(told: Mapping[str, Any], sites: list[str]) -> Figure | None:
    """The coverage at each site by its own threshold, with its interval."""
    known = [(s, told["sites"][s]["own"]) for s in sites]
    known = [(site, own) for site, own in known if own["coverage"] is not None][:MOST_SMALL]
    if not known:
        return None
    asked = 1 - float(told["alpha"])
    dots = [
        Dot(clean(site), own["coverage"], f"{own['coverage']:.3f}", tuple(own["interval"]))
        for site, own in known
    ]
    text = Text(
        "coverage-dots",
        "Coverage of prediction sets on each site's test cases",
        "; ".join(
            f"{clean(site)} {own['coverage']:.3f} of {count_of(own['cases'], 'case')}, 95 % "
            f"interval {own['interval'][0]:.3f} to {own['interval'][1]:.3f}"
            for site, own in known
        )
        + f". Asked for is {asked:.3g}.",
    )
    ends = room_for_coverage([end for dot in dots for end in dot.interval or ()], asked)
    return Figure(
        dot_chart(text, dots, ends, asked, "coverage of test cases"),
        "Each site's test cases by the threshold of its own validation cases, with the 95 % "
        "interval of Clopper and Pearson. The dashed line is what is asked for.",
    )
