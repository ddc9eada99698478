"""What a comparison found: its table over seeds, and paired tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from federated.comparison.grid import PlannedRun
from federated.comparison.significance import difference_interval, holm, paired_p
from federated.files import read_json
from federated.learning import TASKS, LearningTask
from federated.run.folder import RunFolder

# What the others are compared with; the first label is taken where this is none of them.
BASELINE = "fedavg"
# Of more sites there is no column for each.
MOST_COLUMNS = 100
# The share of a run's own final score for which the rounds are counted that it takes.
MOST = 0.9


@dataclass(frozen=True)
class Result:
    """A finished run: its summary, and the records of its rounds."""

    planned: PlannedRun
    summary: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]

    @property
    def task(self) -> LearningTask:
        """The task that was learnt."""
        # Runs of older versions all classified, and did not say so.
        return TASKS[self.summary.get("task", "classification")]

    def value(self, metric: str) -> float:
        """A metric of the test split, in the round whose model was kept; NaN where undefined."""
        return _or_nan(self.summary["metrics"]["test"][metric])

    def score(self, record: Mapping[str, Any]) -> float:
        """The primary metric on the test split after a round; NaN where it was not evaluated."""
        metrics = record["metrics"]
        return _or_nan(metrics["test"][self.task.primary_metric] if metrics else None)

    @property
    def rounds_to_most(self) -> int | None:
        """The first evaluated round with 90 % of the final score or more.

        It is ``None`` where there is no such round.
        """
        final = self.value(self.task.primary_metric)
        scores = enumerate(map(self.score, self.records), 1)
        return next((number for number, score in scores if score >= MOST * final), None)

    @property
    def epsilon(self) -> float | None:
        """The composed ε of the site that has spent most; ``None`` where there is no privacy."""
        value: float | None = self.summary["privacy"]["epsilon"]
        return value


def read_result(planned: PlannedRun, folder: RunFolder) -> Result:
    """The result of a run of the grid, which is finished."""
    return Result(planned, read_json(folder.summary_path), folder.records(sites=()))


def by_label(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The results of each label, in the order in which labels first come."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.planned.label, []).append(result)
    return groups


def mean_curves(results: Sequence[Result]) -> dict[str, list[list[float]]]:
    """Of each label the rounds and the primary metric on the test split, averaged over seeds.

    Rounds after which some seed was not evaluated are left out.
    """
    curves = {}
    for label, group in by_label(results).items():
        length = min(len(result.records) for result in group)
        scores = np.array([[r.score(record) for record in r.records[:length]] for r in group])
        means = scores.mean(axis=0)
        curves[label] = [[n, float(v)] for n, v in enumerate(means, start=1) if not np.isnan(v)]
    return curves


def rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One row for each label: mean and sample standard deviation over seeds of every metric.

    ``difference`` and ``p`` are those of the task's primary metric, AUC or Dice, against
    ``baseline``, which is FedAvg or else the first label, paired by seed. ``rounds_to_most`` is the
    mean number of rounds to 90 % of a run's own final score, as far as rounds were evaluated.
    ``mean_site``, ``worst_site`` and ``sd_sites`` are those over the sites' own values, averaged
    over seeds: where sites have models of their own, the AUC over all cases together also rewards
    telling sites apart, which differ in their shares of the classes; these do not. ``epsilon`` is
    the largest of any seed. ``p_holm`` is p, corrected for all labels of the comparison, and
    ``difference_interval`` is of 95 % over the ``pairs`` of seeds.
    """
    task = results[0].task
    seeds = {
        label: {r.planned.seed: r for r in group} for label, group in by_label(results).items()
    }
    baseline = BASELINE if BASELINE in seeds else next(iter(seeds))
    base = seeds[baseline]
    table = []
    for label, by_seed in seeds.items():
        row: dict[str, Any] = {"label": label, "seeds": sorted(by_seed), "baseline": baseline}
        for metric in task.metrics_in("compared"):
            values = [result.value(metric) for result in by_seed.values()]
            row[metric] = {"mean": float(np.mean(values)), "sd": sample_sd(values)}
        spreads = [
            result.summary["spread"]["test"][task.primary_metric] for result in by_seed.values()
        ]
        for key, name in (("mean_site", "mean"), ("worst_site", "worst"), ("sd_sites", "sd")):
            found = [spread[name] for spread in spreads if spread[name] is not None]
            row[key] = float(np.mean(found)) if found else None
        for way in ("up", "down"):
            sizes = [result.summary["bytes"][way] for result in by_seed.values()]
            row[f"megabytes_{way}"] = float(np.mean(sizes) / 1e6)
        spent = [result.epsilon for result in by_seed.values() if result.epsilon is not None]
        row["epsilon"] = max(spent, default=None)
        row["seconds"] = float(
            np.mean([result.summary["seconds"]["total"] for result in by_seed.values()])
        )
        reached = [result.rounds_to_most for result in by_seed.values()]
        known = [number for number in reached if number is not None]
        row["rounds_to_most"] = float(np.mean(known)) if known else None
        pairs = sorted(set(by_seed) & set(base))
        row["difference"] = row["p"] = row["p_wilcoxon"] = None
        if label != baseline and pairs:
            ours = [by_seed[seed].value(task.primary_metric) for seed in pairs]
            theirs = [base[seed].value(task.primary_metric) for seed in pairs]
            row["difference"] = float(np.mean(np.subtract(ours, theirs)))
            row |= paired_p(ours, theirs)
            row["pairs"] = len(pairs)
            row["difference_interval"] = difference_interval(ours, theirs)
        table.append(row)
    for row, corrected in zip(table, holm([row["p"] for row in table]), strict=True):
        row["p_holm"] = corrected
    return table


def sample_sd(values: Sequence[float]) -> float | None:
    """The standard deviation with n − 1; ``None`` for fewer than two values."""
    if len(values) < 2:
        return None
    # Of one and the same value rounding would leave 1e-16.
    return 0.0 if len(set(values)) == 1 else float(np.std(values, ddof=1))


def markdown(
    table: Sequence[Mapping[str, Any]], task: LearningTask, command: str, note: str
) -> str:
    """The table for people: the command, what it ran on, and a row for each label."""
    private = any(row["epsilon"] is not None for row in table)
    head = [
        "strategy",
        *(["ε"] if private else []),
        *(name.replace("_", " ") for name in task.metrics_in("compared")),
        f"mean site {task.title}",
        f"worst site {task.title}",
        "sd over sites",
        "MB up",
        "MB down",
        "rounds to 90 %",
        f"{task.title} − {table[0]['baseline']}",
        "p",
        "p (Wilcoxon)",
    ]
    lines = [
        f"`{command}`",
        "",
        note,
        "",
        task.worst_site,
        "",
        _line(head),
        _line(["---"] * len(head)),
    ]
    for row in table:
        values = [_number(row["epsilon"], ".3g")] if private else []
        values += [
            _spread(row[name]["mean"], row[name]["sd"]) for name in task.metrics_in("compared")
        ]
        values += [_number(row[name]) for name in ("mean_site", "worst_site", "sd_sites")]
        values += [f"{row[f'megabytes_{way}']:.1f}" for way in ("up", "down")]
        values += [_number(row["rounds_to_most"], ".3g"), _number(row["difference"], "+.3f")]
        values += [_number(row["p"]), _number(row["p_wilcoxon"])]
        lines.append(_line([row["label"], *values]))
    return "\n".join(lines) + "\n"


def site_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """A row for each label and site: the site's own metrics, averaged over seeds.

    They are those of :meth:`LearningTask.metrics_of_sites`. There are none where runs have
    different sites, or where one of them has not told its evaluation.
    """
    task = results[0].task
    sites = results[0].summary["sites"]
    told = [result.summary for result in results]
    if any(summary["sites"] != sites or set(sites) - set(summary["per_site"]) for summary in told):
        return []
    return [
        {"label": label, "site": site}
        | {
            name: float(
                np.mean([_or_nan(r.summary["per_site"][site]["test"][name]) for r in found])
            )
            for name in task.metrics_of_sites
        }
        for label, found in by_label(results).items()
        for site in sites
    ]


def per_site_markdown(results: Sequence[Result]) -> str:
    """The table of :func:`site_rows`, with a column for each site; ``""`` without any."""
    found, task = site_rows(results), results[0].task
    if not found:
        return ""
    names = task.metrics_of_sites
    sites = list(dict.fromkeys(row["site"] for row in found))
    if len(sites) > MOST_COLUMNS:
        return f"\nThe metrics of each of {len(sites)} sites are in summary.json of the runs.\n"
    lines = ["", f"At each site: {' / '.join(metric_titles(task))}", ""]
    lines += [_line(["strategy", *sites]), _line(["---"] * (1 + len(sites)))]
    cells: dict[str, list[str]] = {}
    for row in found:
        shown = (_number(row[name], ".2f" if at else ".3f") for at, name in enumerate(names))
        cells.setdefault(row["label"], []).append(" / ".join(shown))
    lines += [_line([label, *own]) for label, own in cells.items()]
    return "\n".join(lines) + "\n"


def metric_titles(task: LearningTask) -> list[str]:
    """What a person calls the metrics of a site in a comparison, as ``Dice`` and ``HD95``."""
    names = task.metrics_of_sites
    return [task.title if name == task.primary_metric else name.upper() for name in names]


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _line(values: Sequence[str]) -> str:
    return "| " + " | ".join(values) + " |"


def _number(value: float | None, form: str = ".3f") -> str:
    """A number; ``""`` where it is not stated, and ``-`` where there is none (NaN)."""
    if value is None:
        return ""
    return "-" if np.isnan(value) else format(value, form)


def _spread(mean: float, sd: float | None) -> str:
    shown = _number(mean)
    return shown if sd is None or np.isnan(sd) else f"{shown} ± {sd:.3f}"
