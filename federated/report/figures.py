"""The figures of a run's page, each with a text that says what it shows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from federated.data.dataset import TaskName
from federated.learning import TASKS
from federated.learning.metric import Metric
from federated.report.charts import (
    Bar,
    Dot,
    Frame,
    Line,
    bar_chart,
    dot_chart,
    ends_of,
    line_chart,
    reliability_chart,
    roc_chart,
)
from federated.report.curves import reliabilities, roc_curves
from federated.report.drawing import Text, clean
from federated.report.epsilon import power
from federated.report.values import RunValues, size_of, time_of

# Of more classes or sites the figures would fill pages; their numbers are in tables.
MOST_SMALL = 24
STAGE_NAMES = {
    "advertise": "exchange of keys",
    "share": "sharing of secrets",
    "style": "styles",
    "local_train": "training",
    "compress": "compression",
    "protect": "protection",
    "aggregate": "summing up",
    "unmask": "unmasking",
    "decrypt": "decryption",
    "evaluate": "evaluation",
}


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
        f"Test {title} of each site, the lowest first. The dashed line is that over the cases of "
        "all sites together.",
    )


def roc_figures(run: RunValues) -> list[Figure]:
    """ROC curves on the test cases of all sites, of each class or label; the lowest AUC first."""
    if run.statistics is None or run.info.task not in ("classification", "multilabel"):
        return []
    curves = roc_curves(run.statistics, run.info.classes, run.info.task)
    curves.sort(key=lambda curve: curve.area)
    small = len(curves) > 1
    figures = []
    for number, curve in enumerate(curves[:MOST_SMALL]):
        span = (
            f" (95 % interval {curve.interval[0]:.3f} to {curve.interval[1]:.3f})"
            if curve.interval
            else ""
        )
        at = {
            percent: float(curve.true_positive[curve.false_positive <= percent / 100].max())
            for percent in (10, 20)
        }
        text = Text(
            f"roc-{number}",
            f"ROC curve of {clean(curve.name)}",
            f"The AUC is {curve.area:.3f}{span}. At false positives' rates of at most 10 % and "
            f"20 % the true positives' rates are {at[10]:.0%} and {at[20]:.0%}.",
        )
        said = span.replace("95 % interval ", "") if small else span
        caption = f"{clean(curve.name)}: AUC {curve.area:.3f}{said}"
        figures.append(Figure(roc_chart(text, curve, small), caption, small))
    return figures


def reliability_figures(run: RunValues) -> list[Figure]:
    """Reliability on the test cases of all sites."""
    if run.statistics is None or run.info.task not in ("classification", "multilabel"):
        return []
    found = reliabilities(run.statistics, run.info.classes, run.info.task)
    small = len(found) > 1
    figures = []
    for number, one in enumerate(found[:MOST_SMALL]):
        gap = one.confidence - one.share
        which = f"of {clean(one.name)}" if one.name else "of the predicted class"
        weighted = float((gap * one.cases).sum() / one.cases.sum())
        lean = "too high" if weighted > 0 else "too low"
        text = Text(
            f"reliability-{number}",
            f"Reliability {which}",
            f"Probabilities are {lean} by {abs(weighted):.3f} in the mean. "
            + "; ".join(
                f"of {n} cases with a mean probability of {c:.2f}, {s:.0%} came true"
                for n, c, s in zip(one.cases.tolist(), one.confidence, one.share, strict=True)
            )
            + ".",
        )
        caption = (
            clean(one.name)
            if small
            else (
                "How often predictions of a probability come true; on the diagonal exactly as "
                "often. Bars are Wilson's 95 % intervals."
            )
        )
        figures.append(Figure(reliability_chart(text, one, small), caption, small))
    return figures


def privacy_bars(run: RunValues) -> Figure | None:
    """The ε that each site has spent in the run."""
    per_site = run.summary["privacy"].get("per_site", {})
    spent = {s: own["epsilon"] for s, own in per_site.items() if own.get("epsilon") is not None}
    if not spent:
        return None
    bars = [Bar(site, value, f"{value:.3g}") for site, value in list(spent.items())[:MOST_SMALL]]
    budgets = {own["budget"] for own in per_site.values()} - {None}
    limit = budgets.pop() if len(budgets) == 1 else None
    text = Text(
        "epsilon-sites",
        "ε that each site has spent in this run",
        "; ".join(f"{clean(site)} {value:.3g}" for site, value in spent.items())
        + (f". The budget of each is {limit:g}." if limit is not None else "."),
    )
    said = " The line is the budget." if limit is not None else ""
    return Figure(
        bar_chart(text, bars, limit), f"ε spent by each site, composed over the run.{said}"
    )


def attack_figure(epsilon: float, delta: float) -> Figure:
    """The power that an attacker's test has at most, against its false alarms."""
    steps = [number / 100 for number in range(101)]
    bound = [(alarms, power(epsilon, delta, alarms)) for alarms in steps]
    text = Text(
        "attack",
        f"What ε {epsilon:.3g} lets an attacker do at most",
        "The share of training units that any test recognises, at most, against the share of "
        "others that it wrongly accuses: "
        + "; ".join(f"{power(epsilon, delta, a):.1%} at {a:.0%}" for a in (0.01, 0.05, 0.1, 0.5))
        + ". The diagonal is guessing.",
    )
    frame = Frame((0, 1), (0, 1), "wrongly accused", "recognised, at most")
    lines = [Line("guessing", [(0, 0), (1, 1)], muted=True), Line("bound", bound)]
    return Figure(
        line_chart(text, frame, lines),
        "The bound on any attack that follows from ε and δ alone; the grey line is guessing. It "
        "says nothing of how good known attacks are.",
    )


def byte_bars(run: RunValues) -> Figure:
    """The bytes that travelled, beside what dense updates would have taken."""
    sizes = run.summary["bytes"]
    names = {"up": "up, from sites", "down": "down, to sites", "up_dense_float32": "up, if dense"}
    bars = [
        Bar(name, float(sizes[key]), size_of(sizes[key]), 2 if key == "up_dense_float32" else 0)
        for key, name in names.items()
    ]
    text = Text(
        "bytes",
        "Bytes that travelled in all rounds",
        "; ".join(f"{bar.name}: {bar.said}" for bar in bars) + ".",
    )
    return Figure(
        bar_chart(text, bars),
        "Bytes of all sites in all rounds. “If dense” is what whole updates of 32 bits a value "
        "would have taken.",
    )


def time_bars(run: RunValues) -> Figure | None:
    """Wall-clock seconds by stage; nothing for a private run, whose times are not told."""
    seconds = run.summary["seconds"]
    rows = [(name, seconds.get(key)) for key, name in STAGE_NAMES.items()]
    known = [(name, float(value)) for name, value in rows if value]
    if not known:
        return None
    startup = [
        (f"start: {key}", float(value)) for key, value in seconds["startup"].items() if value
    ]
    bars = [Bar(name, value, time_of(value)) for name, value in known]
    bars += [Bar(name, value, time_of(value), 2) for name, value in startup]
    text = Text(
        "times",
        "Time of each stage, in which at least one site was in it",
        "; ".join(f"{bar.name}: {bar.said}" for bar in bars) + ".",
    )
    return Figure(
        bar_chart(text, bars),
        "Wall-clock time in which at least one site was in a stage, over all rounds; stages of "
        "different sites overlap.",
    )
