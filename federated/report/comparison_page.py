"""The page of a comparison: what strategies gain and cost, and whether they differ by chance.

It is a pure function of ``runs.json`` of the comparison.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from federated.learning import TASKS, LearningTask
from federated.report.charts import (
    X_TICKS,
    Frame,
    Line,
    Point,
    ends_of,
    frontier_chart,
    line_chart,
    on_frontier,
    set_apart,
)
from federated.report.drawing import LOOKS, Text, clean, room_for
from federated.report.figures import Figure, title_of
from federated.report.page import render
from federated.report.values import (
    MOST_LISTED,
    Numbers,
    count_of,
    is_number,
    more_of,
    p_of,
    written,
)

# Below so many seeds no sentence is ventured on whether strategies differ.
FEW = 3
LEVEL = 0.05
Row = Mapping[str, Any]


def comparison_page(document: Mapping[str, Any]) -> str:
    """The page of a comparison, as one HTML file that loads nothing.

    Args:
        document: its ``runs.json``, as plain values.
    """
    numbers, task = Numbers(document), TASKS[document["task"]]
    rows: Sequence[Row] = document["rows"]
    sources = sorted({str(run["data_source"]) for run in document["runs"]})
    return render(
        "comparison.html",
        script="sort.js",
        document=document,
        phantom="phantom" in sources,
        title=task.title,
        baseline=rows[0]["baseline"],
        private=any(row["epsilon"] is not None for row in rows),
        seeds=_seeds(rows),
        strategies=count_of(len(rows), "strategy", "strategies"),
        heads=[title_of(name, document["task"]) for name in _shown(task)[1:]],
        worst=task.worst_site,
        rows=[_row(row, number, numbers, task) for number, row in enumerate(rows)],
        legend=[{"look": n % LOOKS, "label": row["label"]} for n, row in enumerate(rows)],
        caution=_caution(rows),
        findings=[_finding(row, task) for row in rows if row["label"] != row["baseline"]],
        figures=[
            figure
            for figure in (
                _bytes_frontier(rows, task),
                _privacy_frontier(rows, task),
                _curves(document, task),
            )
            if figure is not None
        ],
        sites=_sites(document, numbers, task),
        no_curves=_no_curves(document, task),
    )


def _no_curves(document: Mapping[str, Any], task: LearningTask) -> str:
    """Why there are no curves by round, where one value of each strategy would be all of one."""
    points = [
        [(x, y) for x, y in document["curves"].get(row["label"], ()) if is_number(y)]
        for row in document["rows"]
    ]
    rounds = {x for own in points for x, _ in own}
    if not rounds or any(len(own) > 1 for own in points):
        return ""
    when = f"round {rounds.pop():.0f}" if len(rounds) == 1 else "one round of each strategy"
    return (
        f"There are no curves by round: test {task.title} is known after {when} alone, and the "
        "table has it."
    )


def _shown(task: LearningTask) -> list[str]:
    return list(task.metrics_in("compared"))


def _seeds(rows: Sequence[Row]) -> list[int]:
    return sorted({int(seed) for row in rows for seed in row["seeds"]})


def _row(row: Row, number: int, numbers: Numbers, task: LearningTask) -> dict[str, Any]:
    at = ("rows", number)
    return {
        "label": row["label"],
        "look": number % LOOKS,
        "baseline": row["label"] == row["baseline"],
        "seeds": len(row["seeds"]),
        "epsilon": numbers(*at, "epsilon", form=".3g"),
        "metrics": [
            {
                "mean": numbers(*at, name, "mean"),
                "sd": numbers(*at, name, "sd") if row[name]["sd"] is not None else None,
            }
            for name in _shown(task)
        ],
        "mean_site": numbers(*at, "mean_site"),
        "worst_site": numbers(*at, "worst_site"),
        "up": numbers(*at, "megabytes_up", form=".2f"),
        "down": numbers(*at, "megabytes_down", form=".2f"),
        "rounds": numbers(*at, "rounds_to_most", form=".3g"),
        "difference": numbers(*at, "difference", form="+.3f"),
        "span": [numbers(*at, "difference_interval", end, form="+.3f") for end in (0, 1)]
        if row.get("difference_interval")
        else None,
        "p": numbers(*at, "p", form=".3g"),
        "holm": numbers(*at, "p_holm", form=".3g"),
        "wilcoxon": numbers(*at, "p_wilcoxon", form=".3g"),
    }


def _caution(rows: Sequence[Row]) -> list[str]:
    """What so few seeds can show at all."""
    pairs = [int(row["pairs"]) for row in rows if row.get("pairs")]
    tests = sum(row["p"] is not None for row in rows)
    lines = []
    if pairs:
        fewest = min(pairs)
        least = 2.0 ** (1 - fewest)
        if fewest < FEW:
            lines.append(
                f"With {count_of(fewest, 'seed')} nothing can be said about whether strategies "
                f"differ by more than chance. Take {FEW} at the least, and better 5 or more."
            )
        elif least > LEVEL:
            lines.append(
                f"With {count_of(fewest, 'seed')} Wilcoxon's test has no p below {least:.3g}, "
                "however large a difference is, so it cannot show one; the t-test can, if "
                "differences over seeds are normally distributed, which so few cannot show."
            )
    if tests > 1:
        lines.append(
            f"{count_of(tests, 'strategy', 'strategies')} are tested against one baseline. p is "
            f"corrected for that by Holm's procedure, for all {tests} together."
        )
    lines.append(
        "Seeds change the initial weights, the order of cases and how data are dealt to sites. "
        "They do not change which cases are in the test split: what is shown here is about these."
    )
    return lines


def _finding(row: Row, task: LearningTask) -> str:
    """What the tests say of a strategy, in a sentence."""
    label, baseline = clean(row["label"]), clean(row["baseline"])
    pairs = int(row.get("pairs") or 0)
    if not is_number(row["difference"]):
        return f"{label}: no seed in common with {baseline}, or no {task.title}."
    said = f"{label}: {task.title} {written(row['difference'], '+.3f')} against {baseline}"
    if pairs < FEW or not is_number(row["p_holm"]):
        return f"{said}; with {count_of(pairs, 'pair')} of seeds one cannot tell."
    if row["p_holm"] < LEVEL:
        how = "higher" if row["difference"] > 0 else "lower"
        return f"{said}, {how} by more than chance ({p_of(row['p_holm'])} after Holm)."
    return (
        f"{said}; no difference is shown ({p_of(row['p_holm'])} after Holm), which does not mean "
        "that there is none."
    )


def _points(rows: Sequence[Row], cost: Mapping[str, float | None], metric: str) -> list[Point]:
    return [
        Point(
            row["label"],
            value,
            row[metric]["mean"],
            number,
            spread if is_number(spread := row[metric]["sd"]) else 0.0,
        )
        for number, row in enumerate(rows)
        if is_number(value := cost[row["label"]]) and is_number(row[metric]["mean"])
    ]


def _bytes_frontier(rows: Sequence[Row], task: LearningTask) -> Figure | None:
    """What strategies gain for the megabytes that travel."""
    cost = {row["label"]: row["megabytes_up"] + row["megabytes_down"] or None for row in rows}
    points = _points(rows, cost, task.primary_metric)
    name = "megabytes up and down, all sites"
    found = _frontier(points, task, "bytes-utility", name, "megabytes")
    return _with_those_left_out(found, cost, points)


def _privacy_frontier(rows: Sequence[Row], task: LearningTask) -> Figure | None:
    """What strategies gain for the ε that is spent; those without privacy are in no such figure."""
    cost = {row["label"]: row["epsilon"] for row in rows}
    points = _points(rows, cost, task.primary_metric)
    base = next(row for row in rows if row["label"] == row["baseline"])
    level = base[task.primary_metric]["mean"] if base["epsilon"] is None else None
    level = level if is_number(level) else None
    name = "composed ε of the run"
    found = _frontier(points, task, "privacy-utility", name, "ε", level)
    return _with_those_left_out(found, cost, points)


def _with_those_left_out(
    figure: Figure | None, cost: Mapping[str, float | None], points: Sequence[Point]
) -> Figure | None:
    """The figure, with a sentence on who pays something and has no point in it."""
    drawn = {point.name for point in points}
    left = [clean(label) for label, paid in cost.items() if paid is not None and label not in drawn]
    if figure is None or not left:
        return figure
    said = f" Without a finite number, and not drawn: {', '.join(left)}."
    return replace(figure, caption=figure.caption + said)


def _frontier(
    points: Sequence[Point],
    task: LearningTask,
    name: str,
    x_name: str,
    unit: str,
    level: float | None = None,
) -> Figure | None:
    """A frontier; ``level`` is a height that points are compared with.

    Args:
        points: the strategies.
        task: what was learned.
        name: of the figure.
        x_name: what is paid.
        unit: in which unit.
        level: what the baseline has that pays nothing, if there is one.
    """
    if not points:
        return None
    title = f"test {task.title}"
    x_values, share = [point.x for point in points], task.metrics[0].least == 0.0
    log = max(x_values) > 5 * min(x_values) > 0
    x = (
        (min(x_values) / 1.3, max(x_values) * 1.3)
        if log
        else room_for([0.0, *x_values], ticks=X_TICKS)
    )
    heights = [p.y + way * p.spread for p in points for way in (-1, 1)]
    heights += [level] if level is not None else []
    frame = Frame(x, ends_of(heights, share), x_name, title, log_x=log)
    best = [clean(point.name) for point in points if on_frontier(point, points)]
    text = Text(
        name,
        f"{title} against {x_name}",
        "; ".join(f"{clean(p.name)}: {p.x:.3g} {unit}, {written(p.y)}" for p in points)
        + f". On the frontier: {', '.join(best)}.",
    )
    places = zip(points, set_apart(frame, points), strict=True)
    moved = [clean(point.name) for point, place in places if place != frame.scales()[0](point.x)]
    return Figure(
        frontier_chart(text, frame, points, level),
        f"Test {task.title} against {x_name}. Bars are one standard deviation over seeds. Above "
        f"the dashed steps there is none for as few {unit}; on them: {', '.join(best)}."
        + (" The dotted line is the baseline without privacy." if level is not None else "")
        + (
            f" Set aside along a thin line, so that each mark is seen: {', '.join(moved)}."
            if moved
            else ""
        ),
    )


def _curves(document: Mapping[str, Any], task: LearningTask) -> Figure | None:
    """The primary metric after each round, averaged over seeds."""
    labels = [row["label"] for row in document["rows"]]
    lines = [
        Line(
            label,
            [(x, y) for x, y in document["curves"].get(label, ()) if is_number(y)],
            number % LOOKS,
        )
        for number, label in enumerate(labels)
    ]
    values = [y for one in lines for _, y in one.points]
    if not any(len(one.points) > 1 for one in lines):
        return None
    last = max(x for one in lines for x, _ in one.points)
    frame = Frame(
        (1.0, max(last, 2.0)),
        ends_of(values, task.metrics[0].least == 0.0),
        "round",
        f"test {task.title}",
        whole_x=True,
    )
    text = Text(
        "curves",
        f"Test {task.title} of each strategy, by round",
        "; ".join(
            f"{clean(one.name)} {written(one.points[-1][1])} after round {one.points[-1][0]:.0f}"
            for one in lines
            if one.points
        )
        + ".",
    )
    return Figure(
        line_chart(text, frame, lines),
        f"Test {task.title} after each round, the mean over seeds. No model was chosen by it.",
    )


def _sites(
    document: Mapping[str, Any], numbers: Numbers, task: LearningTask
) -> dict[str, Any] | None:
    """The primary metric of each site under each strategy, averaged over seeds."""
    found = document["sites"]
    if not found:
        return None
    sites = list(dict.fromkeys(row["site"] for row in found))
    cells: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(found):
        own = cells.setdefault(row["label"], {})
        own[row["site"]] = numbers("sites", number, task.primary_metric)
    shown = sites[:MOST_LISTED]
    return {
        "names": shown,
        "rows": [(label, [own[s] for s in shown]) for label, own in cells.items()],
        "note": more_of(len(sites), "the first", "sites of runs.json"),
    }
