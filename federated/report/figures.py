"""The figures of a run's metrics and sites, each with a text that says what it shows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from federated.data.dataset import TaskName
from federated.learning import TASKS
from federated.learning.metric import Metric
from federated.report.charts import Dot, Frame, Line, dot_chart, ends_of, line_chart
from federated.report.drawing import Text, clean
from federated.report.values import RunValues

# Of more classes or sites the figures would fill pages; their numbers are in tables.
MOST_SMALL = 24


@dataclass(frozen=True)
class Figure:
    """A figure, what stands below it, and whether it is one of many small ones."""

    picture: Markup
    caption: str
    small: bool = False


def title_of(name: str, task: TaskName) -> str:
    """What a person calls a metric, as ``Dice``."""
    known = TASKS[task]
    if name == known.primary_metric:
        return known.title
    short = {"auc": "AUC", "f1": "F1", "ece": "calibration error (ECE)", "hd95": "HD95, mm"}
    more = {"assd": "ASSD, mm", "mae": "MAE", "rmse": "RMSE", "r2": "R²", "micro_auc": "micro AUC"}
    if name in short | more:
        return (short | more)[name]
    return name.replace("_", " ")


def primary_of(run: RunValues) -> Metric:
    """The metric that models of the run's task are judged by."""
    return TASKS[run.info.task].metrics[0]


def _is_share(metric: Metric) -> bool:
    return metric.least == 0.0 and metric.largest == 1.0


def _series(records: Sequence[Mapping[str, Any]], *path: str) -> list[tuple[float, float]]:
    """A number of the rounds' records that have it, by round."""
    points = []
    for record in records:
        value: Any = record
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, int | float):
            points.append((float(record["round"]), float(value)))
    return points


def learning_curves(run: RunValues) -> Iterator[Figure]:
    """The primary metric and the loss on validation cases of all sites, after each round."""
    metric, kept = primary_of(run), float(run.summary["kept_round"])
    for number, (name, share) in enumerate(((metric.name, _is_share(metric)), ("loss", False))):
        points = _series(run.records, "metrics", "val", name)
        if not points:
            continue
        title = title_of(name, run.info.task)
        lines = [Line("all sites", points, number)]
        text = Text(
            f"curve-{name}",
            f"Validation {title} of all sites together, by round",
            f"It is {points[0][1]:.3f} after round {points[0][0]:.0f}, "
            f"{points[-1][1]:.3f} after round {points[-1][0]:.0f}, and between "
            f"{min(y for _, y in points):.3f} and {max(y for _, y in points):.3f} in all rounds. "
            f"The model of round {kept:.0f} is kept.",
        )
        frame = Frame(
            _rounds(run), ends_of([y for _, y in points], share), "round", title, whole_x=True
        )
        yield Figure(
            line_chart(text, frame, lines, kept),
            f"Validation {title}, over the cases of all sites. The dashed line marks the round "
            "whose model is kept.",
        )


def _rounds(run: RunValues) -> tuple[float, float]:
    return 1.0, float(max(len(run.records), 2))


def site_curves(run: RunValues) -> list[Figure]:
    """For each site the primary metric on its validation cases, with that of all as a grey line."""
    metric = primary_of(run)
    title = title_of(metric.name, run.info.task)
    of_all = _series(run.records, "metrics", "val", metric.name)
    found = {
        site: points
        for site in run.summary["sites"]
        if (points := _series(run.records, "per_site", site, "val", metric.name))
    }
    ends = ends_of([y for p in [of_all, *found.values()] for _, y in p], _is_share(metric))
    figures = []
    for number, (site, points) in enumerate(list(found.items())[:MOST_SMALL]):
        text = Text(
            f"site-curve-{number}",
            f"Validation {title} of {site}, by round",
            f"At {site} it is {points[0][1]:.3f} after round {points[0][0]:.0f} and "
            f"{points[-1][1]:.3f} after round {points[-1][0]:.0f}. The grey line is that of all "
            "sites together.",
        )
        frame = Frame(_rounds(run), ends, small=True, whole_x=True)
        lines = [Line("all sites", of_all, muted=True), Line(site, points)]
        figures.append(Figure(line_chart(text, frame, lines), clean(site), small=True))
    return figures


def site_dots(run: RunValues) -> Figure | None:
    """The primary metric of every site on its test cases, in one figure."""
    metric, summary = primary_of(run), run.summary
    title = title_of(metric.name, run.info.task)
    values = {
        site: own["test"][metric.name]
        for site, own in summary["per_site"].items()
        if own.get("test", {}).get(metric.name) is not None
    }
    of_all = summary["metrics"].get("test", {}).get(metric.name)
    if len(values) < 2:
        return None
    shown = sorted(values.items(), key=lambda item: item[1])[:MOST_SMALL]
    dots = [Dot(site, value, f"{value:.3f}") for site, value in shown]
    known = [*values.values(), *([of_all] if of_all is not None else [])]
    text = Text(
        "site-dots",
        f"Test {title} of each site",
        "From the lowest: "
        + "; ".join(f"{clean(site)} {value:.3f}" for site, value in shown)
        + (f". Over all sites together it is {of_all:.3f}." if of_all is not None else "."),
    )
    picture = dot_chart(text, dots, ends_of(known, _is_share(metric)), of_all, f"test {title}")
    return Figure(
        picture,
        f"Test {title} of "
        + ("each site" if len(shown) == len(values) else f"the {len(shown)} lowest sites")
        + ", the lowest first. The dashed line is that over the cases of all sites together.",
    )
