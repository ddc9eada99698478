"""The figure of a comparison: AUC against rounds and against megabytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from federated.comparison import Result
from federated.files import atomic_path

# Nothing travels, or what travels are the images themselves.
WITHOUT_EXCHANGE = ("local", "central")


def auc_figure(results: Sequence[Result], path: Path, title: str) -> None:
    """Draw the test AUC, meaned over seeds with a band of one standard deviation, as PNG.

    The right panel counts megabytes up and down of all sites, on a logarithmic axis where they
    differ much; a strategy without exchange is a horizontal line there, at its last value.
    """
    figure = Figure(figsize=(12, 5), layout="constrained")
    by_round, by_bytes = figure.subplots(1, 2, sharey=True)
    labels = list(dict.fromkeys(result.cell.label for result in results))
    for number, label in enumerate(labels):
        group = [result for result in results if result.cell.label == label]
        _draw(group, label, by_round, by_bytes, number)
    by_round.set(xlabel="round", ylabel="test AUC")
    by_bytes.set(xlabel="megabytes up and down, all sites")
    totals = [sum(r["bytes"]["up"] for r in result.records) for result in results]
    sent = [total for total in totals if total]
    if sent and max(sent) > 10 * min(sent):
        by_bytes.set_xscale("log")
    for axes in (by_round, by_bytes):
        axes.grid(alpha=0.3)
    by_bytes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.suptitle(title)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def _draw(group: Sequence[Result], label: str, by_round: Axes, by_bytes: Axes, number: int) -> None:
    length = min(len(result.records) for result in group)
    curves = np.array(
        [[_auc(record) for record in result.records[:length]] for result in group], float
    )
    traffic = np.array(
        [[r["bytes"]["up"] + r["bytes"]["down"] for r in x.records[:length]] for x in group], float
    )
    megabytes = traffic.cumsum(axis=1).mean(axis=0) / 1e6
    mean, sd = curves.mean(axis=0), curves.std(axis=0, ddof=1 if len(group) > 1 else 0)
    rounds = np.arange(1, length + 1)
    color, dashes = f"C{number % 10}", "-" if number < 10 else "--"
    by_round.plot(rounds, mean, dashes, color=color, label=label)
    by_round.fill_between(rounds, mean - sd, mean + sd, color=color, alpha=0.12)
    if label.split("+")[0].split(":")[0] in WITHOUT_EXCHANGE:
        last = f"{label} (no exchange)"
        by_bytes.axhline(mean[-1], color=color, linestyle=dashes, label=last, alpha=0.6)
    else:
        by_bytes.plot(megabytes, mean, dashes, color=color, label=label)


def _auc(record: Mapping[str, Any]) -> float:
    value = record["metrics"]["test"]["auc"]
    return float("nan") if value is None else float(value)
