"""Medians and ratios of ``benchmarks.rounds``, its table, and what has changed of a baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

# What a ratio may change by before it is an error.
TOLERANCE = 0.10
# How alike what two contestants have learned has to be. Sums in another order end in another model,
# whose AUC after a few rounds may be far from that of the others; but it is as far from the initial
# weights, in much the same direction.
LEAST_COSINE, MOST_LONGER = 0.8, 0.1
OURS = "consilium"
# The limit: rounds are compared with it, and totals with everything else.
LIMIT = "tuned"


@dataclass(frozen=True)
class Timed:
    """What was measured of one repetition of a contestant.

    Args:
        contestant: its name.
        repetition: counted from 1.
        total: seconds from the start of its process to its end.
        startup: of these, those before the first round.
        rounds: of these, those in the rounds, in all.
        a_round: the median of a round's.
        peak_mb: the largest memory of all its processes together.
        auc: of the final weights on all test cases.
        load: of the machine in the minute before.
    """

    contestant: str
    repetition: int
    total: float
    startup: float
    rounds: float
    a_round: float
    peak_mb: float
    auc: float
    load: float


COLUMNS = ("total", "rounds", "a_round", "startup", "peak_mb", "auc")
TITLES = ("total, s", "in rounds, s", "a round, s", "start-up, s", "peak MiB", "test AUC")


def medians(runs: Sequence[Timed]) -> dict[str, dict[str, float]]:
    """The median of each column over the repetitions of each contestant, in their order."""
    names = dict.fromkeys(run.contestant for run in runs)
    return {
        name: {
            column: median(getattr(run, column) for run in runs if run.contestant == name)
            for column in COLUMNS
        }
        for name in names
    }


def ratios(middle: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """This project's median over that of each other contestant: in all, and in the rounds."""
    if OURS not in middle:
        return {}
    ours = middle[OURS]
    return {
        name: {column: ours[column] / theirs[column] for column in ("total", "rounds")}
        for name, theirs in middle.items()
        if name != OURS
    }


def changes(
    found: Mapping[str, Mapping[str, float]], baseline: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """What has changed by more than :data:`TOLERANCE` of a baseline's ratios, a line for each.

    Contestants that one of the two does not have are not compared.
    """
    lines = []
    for name in found.keys() & baseline.keys():
        for column, value in found[name].items():
            before = baseline[name].get(column)
            if before is None:
                continue
            change = value / before - 1
            if abs(change) > TOLERANCE:
                what = "slower" if change > 0 else "faster; write a new baseline with --write"
                lines.append(
                    f"{column} over {name}: {value:.3f}, and {before:.3f} in the baseline "
                    f"({change:+.0%}, {what})"
                )
    return sorted(lines)


def other_models(updates: "Mapping[str, np.ndarray]") -> list[str]:
    """Who has learned something else than the others, though the work is the same.

    Args:
        updates: what each contestant has added to the initial weights, as one vector of the same
            length for all.

    Returns:
        A line for each whose update is longer or shorter than is usual by more than
        ``MOST_LONGER``, or whose cosines with those of the others have a median of less than
        ``LEAST_COSINE``; none where there are no others.
    """
    lengths = {name: float(np.linalg.norm(update)) for name, update in updates.items()}
    usual = median(lengths.values())
    lines = []
    for name, update in updates.items():
        cosines = [
            float(update @ other) / (lengths[name] * lengths[key] or 1)
            for key, other in updates.items()
            if key != name
        ]
        cosine = median(cosines) if cosines else 1.0
        if cosine < LEAST_COSINE or abs(lengths[name] / usual - 1) > MOST_LONGER:
            lines.append(
                f"{name} has moved the weights by {lengths[name]:.3f}, where {usual:.3f} is usual, "
                f"with a cosine of {cosine:.3f} with the others: it has not done the work, or has "
                "done it otherwise"
            )
    return lines


def other_work(found: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[str]:
    """In what a baseline's work is another one than this, so that ratios say nothing."""
    keys = sorted(found.keys() | baseline.keys())
    return [
        f"{key} is {found.get(key)!r}, and {baseline.get(key)!r} in the baseline"
        for key in keys
        if found.get(key) != baseline.get(key)
    ]


def table(
    middle: Mapping[str, Mapping[str, float]],
    titles: Mapping[str, str],
    counts: Mapping[str, int],
) -> list[list[str]]:
    """The rows of the table, with the titles first.

    Args:
        middle: the medians of each contestant.
        titles: what it is called.
        counts: how often it ran.
    """
    over = ratios(middle)
    rows = [["", "runs", *TITLES, "Consilium's total over it", "its rounds over it"]]
    for name, columns in middle.items():
        of_it = over.get(name, {})
        rows.append(
            [
                titles.get(name, name),
                str(counts[name]),
                *(f"{columns[c]:.1f}" for c in ("total", "rounds")),
                f"{columns['a_round']:.2f}",
                f"{columns['startup']:.1f}",
                f"{columns['peak_mb']:.0f}",
                f"{columns['auc']:.4f}",
                *(f"{of_it[c]:.2f}" if of_it else "" for c in ("total", "rounds")),
            ]
        )
    return rows


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table of rows, of which the first are its titles."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines) + "\n"


def turns(repetitions: Mapping[str, int]) -> list[tuple[str, int]]:
    """Who runs when: all in turn, and every other time in the opposite order."""
    order: list[tuple[str, int]] = []
    for number in range(1, max(repetitions.values(), default=0) + 1):
        names = [name for name, count in repetitions.items() if count >= number]
        order += [(name, number) for name in (names if number % 2 else reversed(names))]
    return order


def as_json(runs: Sequence[Timed]) -> list[dict[str, Any]]:
    """All that was measured, as plain values."""
    return [
        {key: round(value, 4) if isinstance(value, float) else value for key, value in one.items()}
        for one in map(asdict, runs)
    ]
