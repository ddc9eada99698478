"""The figures of a run's metrics and sites, each with a text that says what it shows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from markupsafe import Markup

from federated.data.dataset import TaskName
from federated.learning import TASKS, smaller_is_better
from federated.learning.metric import Metric
from federated.report.charts import (
    DOT_TICKS,
    SMALL_TICKS,
    Dot,
    Frame,
    Line,
    dot_chart,
    ends_of,
    line_chart,
)
from federated.report.drawing import Text, clean
from federated.report.values import MOST_LISTED, RunValues, is_number, more_of, written

# Of more classes or sites the figures would fill pages; their numbers are in tables.
MOST_SMALL = 24
# Of more rounds a sentence does not name all.
MOST_NAMED = 12


@dataclass(frozen=True)
class Figure:
    """A figure, what stands below it, and whether it is one of many small ones."""

    picture: Markup
    caption: str
    small: bool = False


def title_of(name: str, task: TaskName, dims: int | None = None) -> str:
    """What a person calls a metric, as ``Dice``.

    ``dims`` are those of the images: distances in a volume are in mm, and in a picture, of which
    nobody knows how large a pixel is, in its own pixels.
    """
    known = TASKS[task]
    if name == known.primary_metric:
        return known.title
    if name in ("hd95", "assd"):
        unit = {2: "pixels", 3: "mm"}.get(dims or 0, "mm, of pictures pixels")
        return f"{name.upper()}, {unit}"
    short = {"auc": "AUC", "f1": "F1", "ece": "calibration error (ECE)"}
    more = {"mae": "MAE", "rmse": "RMSE", "r2": "R²", "micro_auc": "micro AUC"}
    if name in short | more:
        return (short | more)[name]
    return name.replace("_", " ")


def primary_of(run: RunValues) -> Metric:
    """The metric that models of the run's task are judged by."""
    return TASKS[run.info.task].metrics[0]


def listed_sites(run: RunValues) -> tuple[list[str], str]:
    """The sites that a table has a row of, in order, and what it says of those that it has not.

    Of more than :data:`MOST_LISTED` sites they are those with the worst primary metric of their
    test cases; where none is told, the first.
    """
    sites, per_site = list(run.summary["sites"]), run.summary["per_site"]
    metric = primary_of(run)
    told = {site: per_site.get(site, {}).get("test", {}).get(metric.name) for site in sites}
    values = {site: value for site, value in told.items() if is_number(value)}
    sign = -1 if smaller_is_better(metric.name) else 1
    # Sites without a number come last.
    order = sorted(sites, key=lambda site: sign * values[site] if site in values else inf)
    kept = set(order[:MOST_LISTED])
    worst = f"those with the worst test {title_of(metric.name, run.info.task, run.info.dims)}"
    note = more_of(len(sites), worst if values else "the first", "per_site of summary.json")
    return [site for site in sites if site in kept], note


def is_share(metric: Metric) -> bool:
    """Whether a metric is from 0 to 1."""
    return metric.least == 0.0 and metric.largest == 1.0


@dataclass(frozen=True)
class Series:
    """A number by round, and the rounds in which it is none, such as the loss of spoiled weights.

    Rounds of which it is not told are in neither.
    """

    points: Sequence[tuple[float, float]]
    without: Sequence[int]

    @property
    def gap(self) -> str:
        """A sentence on the rounds without a number, if there are any."""
        if not self.without:
            return ""
        which = ", ".join(map(str, self.without[:MOST_NAMED]))
        more = "…" if len(self.without) > MOST_NAMED else ""
        return f" It is no finite number after round {which}{more}, and not drawn there."


def _series(records: Sequence[Mapping[str, Any]], *path: str) -> Series:
    """A number of the rounds' records that have it, by round."""
    points, without = [], []
    for record in records:
        value: Any = record
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if is_number(value):
            points.append((float(record["round"]), float(value)))
        elif value is not None:
            without.append(int(record["round"]))
    return Series(points, without)


def learning_curves(run: RunValues) -> Iterator[Figure]:
    """The primary metric and the loss on validation cases of all sites, after each round."""
    metric, kept = primary_of(run), float(run.summary["kept_round"])
    for number, (name, share) in enumerate(((metric.name, is_share(metric)), ("loss", False))):
        found = _series(run.records, "metrics", "val", name)
        points, title = found.points, title_of(name, run.info.task, run.info.dims)
        if len(points) < 2:
            continue  # said by single_values
        lines = [Line("all sites", points, number)]
        text = Text(
            f"curve-{name}",
            f"Validation {title} of all sites together, by round",
            f"It is {written(points[0][1])} after round {points[0][0]:.0f}, "
            f"{written(points[-1][1])} after round {points[-1][0]:.0f}, and between "
            f"{written(min(y for _, y in points))} and {written(max(y for _, y in points))} in all "
            f"rounds. The model of round {kept:.0f} is kept.{found.gap}",
        )
        frame = Frame(
            _rounds(run), ends_of([y for _, y in points], share), "round", title, whole_x=True
        )
        yield Figure(
            line_chart(text, frame, lines, kept),
            f"Validation {title}, over the cases of all sites. The dashed line marks the round "
            f"whose model is kept.{found.gap}",
        )


def single_values(run: RunValues) -> list[str]:
    """What is known after one round alone, so that there is no curve of it: a sentence for each."""
    lines = []
    for name in (primary_of(run).name, "loss"):
        points = _series(run.records, "metrics", "val", name).points
        if len(points) == 1:
            title = title_of(name, run.info.task, run.info.dims)
            ((number, value),) = points
            lines.append(
                f"Validation {title} over the cases of all sites is {written(value)} after round "
                f"{number:.0f}. It is known after no other round, so there is no curve of it."
            )
    return lines


def site_values(run: RunValues) -> str:
    """The primary metric on validation cases of sites of which it is known once; or ``""``."""
    metric = primary_of(run)
    told = _of_sites(run)
    if not told or any(len(series.points) > 1 for series in told.values()):
        return ""
    each = [
        f"{clean(site)} {written(series.points[0][1])} (round {series.points[0][0]:.0f})"
        for site, series in list(told.items())[:MOST_NAMED]
    ]
    more = len(told) - len(each)
    return (
        "There are no curves of single sites: each was evaluated after one round alone. "
        f"Validation {title_of(metric.name, run.info.task, run.info.dims)}: {', '.join(each)}"
        + (f" and {more} more." if more else ".")
    )


def _of_sites(run: RunValues) -> dict[str, Series]:
    """The primary metric on the validation cases of each site that has told it, by round."""
    name = primary_of(run).name
    return {
        site: series
        for site in run.summary["sites"]
        if (series := _series(run.records, "per_site", site, "val", name)).points
    }


def undrawn(run: RunValues) -> list[str]:
    """What there is no figure of, since none of its numbers is finite: a sentence for each."""
    names = {
        name: title_of(name, run.info.task, run.info.dims)
        for name in (primary_of(run).name, "loss")
    }
    lines = []
    for name, title in names.items():
        found = _series(run.records, "metrics", "val", name)
        if found.without and not found.points:
            lines.append(
                f"There is no curve of validation {title}: it is no finite number after any round."
            )
    return lines


def _rounds(run: RunValues) -> tuple[float, float]:
    return 1.0, float(max(len(run.records), 2))


def site_curves(run: RunValues) -> list[Figure]:
    """For each site the primary metric on its validation cases, with that of all as a grey line."""
    metric = primary_of(run)
    title = title_of(metric.name, run.info.task, run.info.dims)
    of_all = _series(run.records, "metrics", "val", metric.name).points
    found = _of_sites(run)
    if not any(len(series.points) > 1 for series in found.values()):
        return []  # said by site_values
    known = [of_all, *(series.points for series in found.values())]
    heights = [y for points in known for _, y in points]
    ends = ends_of(heights, is_share(metric), SMALL_TICKS)
    figures = []
    for number, (site, series) in enumerate(list(found.items())[:MOST_SMALL]):
        points = series.points
        text = Text(
            f"site-curve-{number}",
            f"Validation {title} of {site}, by round",
            f"At {site} it is {written(points[0][1])} after round {points[0][0]:.0f} and "
            f"{written(points[-1][1])} after round {points[-1][0]:.0f}. The grey line is that of "
            f"all sites together.{series.gap}",
        )
        frame = Frame(_rounds(run), ends, small=True, whole_x=True)
        lines = [Line("all sites", of_all, muted=True), Line(site, points)]
        caption = clean(site) + (f" (no number in {len(series.without)})" if series.gap else "")
        figures.append(Figure(line_chart(text, frame, lines), caption, small=True))
    return figures


def site_dots(run: RunValues) -> Figure | None:
    """The primary metric of every site on its test cases, in one figure."""
    metric, summary = primary_of(run), run.summary
    title = title_of(metric.name, run.info.task, run.info.dims)
    told = {
        site: own["test"][metric.name]
        for site, own in summary["per_site"].items()
        if own.get("test", {}).get(metric.name) is not None
    }
    values = {site: value for site, value in told.items() if is_number(value)}
    without = few_names([site for site in told if site not in values])
    of_all = summary["metrics"].get("test", {}).get(metric.name)
    of_all = of_all if is_number(of_all) else None
    if len(values) < 2:
        return None
    gap = f" It is no finite number at {without}." if without else ""
    shown = sorted(values.items(), key=lambda item: item[1])[:MOST_SMALL]
    dots = [Dot(site, value, written(value)) for site, value in shown]
    known = [*values.values(), *([of_all] if of_all is not None else [])]
    text = Text(
        "site-dots",
        f"Test {title} of each site",
        "From the lowest: "
        + "; ".join(f"{clean(site)} {written(value)}" for site, value in shown)
        + (f". Over all sites together it is {written(of_all)}." if of_all is not None else ".")
        + gap,
    )
    picture = dot_chart(
        text, dots, ends_of(known, is_share(metric), DOT_TICKS), of_all, f"test {title}"
    )
    return Figure(
        picture,
        f"Test {title} of "
        + ("each site" if len(shown) == len(values) else f"the {len(shown)} lowest sites")
        + ", the lowest first."
        + (
            " The dashed line is that over the cases of all sites together."
            if of_all is not None
            else ""
        )
        + gap,
    )


def few_names(sites: Sequence[str]) -> str:
    """The names of some sites, of many the first and how many more there are."""
    more = len(sites) - MOST_NAMED
    return ", ".join(map(clean, sites[:MOST_NAMED])) + (f" and {more} more" if more > 0 else "")
