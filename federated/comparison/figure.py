"""The figure of a comparison: AUC or Dice against rounds, megabytes and, where there is one, ε."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from federated.comparison.table import Result, by_label
from federated.files import atomic_path

# Strategies in which nothing travels, or the images themselves do.
WITHOUT_EXCHANGE = ("local", "central")

# Outlines of different forms, of which none hides another at the same place.
MARKERS = "osD^v<>p"


def comparison_figure(results: Sequence[Result], path: Path, title: str) -> None:
    """Draw the task's primary metric on the test split as PNG.

    It is averaged over seeds, with a band of one standard deviation. The right panel counts
    megabytes up and down of all sites, on a logarithmic axis where they differ much; a strategy
    without exchange is a horizontal line there, at its last value. Where a run was private, a third
    panel has the composed ε, and a line for each strategy that was not private.
    """
    task = results[0].task
    private = any(result.epsilon is not None for result in results)
    figure = Figure(figsize=(16 if private else 12, 5), layout="constrained")
    by_round, by_bytes, *rest = figure.subplots(1, 3 if private else 2, sharey=True)
    for number, (label, group) in enumerate(by_label(results).items()):
        _draw(group, label, by_round, by_bytes, number)
        for by_epsilon in rest:
            _draw_privacy(group, label, by_epsilon, number, task.primary_metric)
    by_round.set(xlabel="round", ylabel=f"test {task.title}")
    by_round.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    by_bytes.set(xlabel="megabytes up and down, all sites")
    totals = [sum(r["bytes"]["up"] for r in result.records) for result in results]
    sent = [total for total in totals if total]
    if sent and max(sent) > 10 * min(sent):
        by_bytes.set_xscale("log")
        _label_decades(by_bytes)
    for by_epsilon in rest:
        by_epsilon.set(xlabel="composed ε of the run", xscale="log")
        _label_decades(by_epsilon)
    for axes in (by_round, by_bytes, *rest):
        axes.grid(alpha=0.3)
    last = (by_bytes, *rest)[-1]
    if last.get_legend_handles_labels()[0]:
        last.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.suptitle(title)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def _label_decades(axes: Axes) -> None:
    """Plain numbers at 1, 2 and 5 of every decade; the default labels run into each other."""
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _draw(
    group: Sequence[Result],
    label: str,
    by_round: Axes,
    by_bytes: Axes,
    number: int,
) -> None:
    length = min(len(result.records) for result in group)
    curves = np.array(
        [[result.score(record) for record in result.records[:length]] for result in group],
        float,
    )
    traffic = np.array(
        [[r["bytes"]["up"] + r["bytes"]["down"] for r in x.records[:length]] for x in group], float
    )
    megabytes = traffic.cumsum(axis=1).mean(axis=0) / 1e6
    mean, sd = curves.mean(axis=0), curves.std(axis=0, ddof=1 if len(group) > 1 else 0)
    # Not every round need have been evaluated.
    known = ~np.isnan(mean)
    mean, sd, megabytes = mean[known], sd[known], megabytes[known]
    if not known.any():  # no case of the split has a class that could be scored
        return
    rounds = np.arange(1, length + 1)[known]
    color, dashes = f"C{number % 10}", "-" if number < 10 else "--"
    # A line through one point is not seen.
    marker = "o" if len(rounds) == 1 else ""
    by_round.plot(rounds, mean, dashes, color=color, label=label, marker=marker)
    by_round.fill_between(rounds, mean - sd, mean + sd, color=color, alpha=0.12)
    if label.split("+")[0].split(":")[0] in WITHOUT_EXCHANGE:
        last = f"{label} (no exchange)"
        by_bytes.axhline(mean[-1], color=color, linestyle=dashes, label=last, alpha=0.6)
    else:
        by_bytes.plot(megabytes, mean, dashes, color=color, label=label, marker=marker)


def _draw_privacy(
    group: Sequence[Result], label: str, axes: Axes, number: int, primary_metric: str
) -> None:
    values = np.array([result.value(primary_metric) for result in group])
    spent = [result.epsilon for result in group if result.epsilon is not None]
    color = f"C{number % 10}"
    if spent:
        sd = values.std(ddof=1) if len(values) > 1 else 0.0
        form = MARKERS[number % len(MARKERS)]
        axes.errorbar(
            max(spent), values.mean(), yerr=sd, fmt=form, fillstyle="none", color=color, label=label
        )
    else:
        axes.axhline(values.mean(), color=color, alpha=0.6, label=f"{label} (not private)")
