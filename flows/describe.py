"""Text and tables that the command line prints."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.table import Table

from federated.comparison.table import metric_titles
from federated.configuration.experiment import Experiment
from federated.data.dataset import SPLITS
from federated.data.load import load, locate
from federated.data.partitioning import case_counts, counted_labels, partition_dataset
from federated.files import read_json
from federated.learning import TASKS, metrics_in
from federated.planning.harmonisation import settings_line
from federated.report.findings import only_class
from federated.run.folder import RunFolder
from federated.run.statistics_report import NOT_TOLD, site_cells, table_of
from flows.progress import counted
from flows.tables import table

MAX_CLASS_COLUMNS = 12
# Of a comparison by one metric, whose table in Markdown has a column for each site.
MAX_SITE_ROWS = 24
# By no more may a metric be off that is shown without its bounds.
EXACT_ENOUGH = 1e-3


def result_lines(folder: Path) -> list[str]:
    """The lines that say what a finished run reached, and where to look."""
    summary = read_json(RunFolder(folder).summary_path)
    test = summary["metrics"]["test"]
    shown = ", ".join(
        f"{name} {test[name]:.3f}" for name in metrics_in("end") if test.get(name) is not None
    )
    name = summary["experiment"]
    source = f"data_source: {summary['data_source']}, seed {summary['seed']}"
    return [
        "",
        f"{name}: test {shown or '-'}  ({source})",
        # Runs of older versions do not say.
        *evaluation_lines(summary.get("evaluation", {})),
        *calibration_lines(summary.get("calibration", {})),
        *subgroup_lines(summary),
        *absent_lines(summary.get("classes_absent", {})),
        *collapsed_lines(summary),
        _time_and_bytes(summary),
        # Runs of older versions do not say.
        *protection_lines(summary.get("protection", {"name": "plain"})),
        "",
        "Where to look:",
        f"  {folder}/report.html   the result, for people",
        f"  {folder}/summary.json   the same, machine-readable",
        *_validation_lines(folder),
        f"  {servers()}   MLflow (experiment and model {name!r}) and Prefect in the browser",
    ]


def _validation_lines(folder: Path) -> Iterator[str]:
    """Where it stands what validation found; sites of a consortium keep that to themselves."""
    for name in ("data_docs/index.html", "validation.json"):
        if (folder / name).is_file():
            yield f"  {folder}/{name}   validation of every site's data"
            return


def servers() -> str:
    """What opens the pages of MLflow and Prefect that hold a run of this process.

    It is the address of the servers that the environment names, as those of a consortium's
    coordinator, without any login in it. Where MLflow's files lie here it is ``make ui``, or the
    command that this starts, in a folder without a Makefile.
    """
    named = (os.environ.get("MLFLOW_TRACKING_URI", ""), os.environ.get("PREFECT_API_URL", ""))
    split = [urlsplit(url) for url in named if url.startswith(("http://", "https://"))]
    if not named[0].startswith(("http://", "https://")):
        return "make ui" if Path("Makefile").is_file() else "consilium serve --ui-only"
    pages = [
        f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path.removesuffix('/api')}"
        for url in split
    ]
    return " and ".join(f"{page.rstrip('/')}/" for page in pages)


def _time_and_bytes(summary: Mapping[str, Any]) -> str:
    """The line on what a run took; of a run that was resumed, the time is that since then."""
    seconds, rounds = summary["seconds"], summary["rounds_done"]
    # Runs of older versions do not say.
    before = summary.get("rounds_before_resume", 0)
    took = f"{counted(rounds, 'round')} in {seconds['total']:.0f} s"
    if before:
        took = (
            f"{counted(rounds, 'round')}; {counted(rounds - before, 'round')} since the run was "
            f"resumed, in {seconds['total']:.0f} s"
        )
    # A private run does not tell.
    each = seconds.get("overhead_per_round", [seconds["overhead"]])
    told = [overhead for overhead in each[before:] if overhead is not None]
    orchestration = f", orchestration {sum(told):.1f} s of all rounds" if told else ""
    if told and (start := sum(seconds.get("startup", {}).values())):
        orchestration = f", of which {start:.0f} s before the first{orchestration}"
    sizes = {way: summary["bytes"][way] / 1e6 for way in ("up", "down")}
    return f"{took}{orchestration}; sent up {sizes['up']:.1f} MB, down {sizes['down']:.1f} MB"


def evaluation_lines(evaluation: Mapping[str, Any]) -> list[str]:
    """The lines that say what test metrics are of, and which are not known exactly."""
    intervals = evaluation.get("intervals", {})
    share = evaluation.get("share")
    lines = [
        f"the metrics are without the cases of {site}: {reason}"
        for site, reason in evaluation.get("missing", {}).items()
    ]
    if share == "sums":
        lines.append(
            "what each site reached is not told: evaluation.share=sums tells of all sites together"
        )
    return lines + [
        f"{split} {name} lies between {low:.4f} and {high:.4f}: it follows from histograms, as "
        f"evaluation.share={evaluation['share']} has it"
        for split, bounds in intervals.items()
        for name, (low, high) in bounds.items()
        if name in metrics_in("end") and high - low > 2 * EXACT_ENOUGH
    ]


def calibration_lines(calibration: Mapping[str, Any]) -> list[str]:
    """The lines on a temperature and on prediction sets, where there are any."""
    lines = []
    if found := calibration.get("temperature"):
        change = ", ".join(
            f"{name} {found[key]['before']:.3f} -> {found[key]['after']:.3f}"
            for key, name in (("loss", "loss"), ("ece", "calibration error"))
            if found[key]["before"] is not None
        )
        lines.append(f"temperature {found['temperature']:.3g}: test {change or '-'}")
    if sets := calibration.get("conformal"):
        own = {site: found["own"] for site, found in sets["sites"].items()}
        shown = dict(list(own.items())[:MAX_CLASS_COLUMNS])
        one = _coverages({"all sites": sets["pooled"]}) or "-"
        each = _coverages(shown)
        lines.append(
            f"prediction sets, asked for {1 - sets['alpha']:.3g}: test coverage by one threshold "
            f"{one}{f'; by each own, {each}' if each else ''}"
        )
    return lines


def subgroup_lines(summary: Mapping[str, Any]) -> list[str]:
    """The lines on groups of test cases, and on flips, where they were asked for."""
    metric = TASKS[summary.get("task", "classification")].primary_metric
    lines = []
    for attribute, groups in summary.get("subgroups", {}).get("attributes", {}).items():
        each = [
            f"{group['group']} {_number(group['metrics'].get(metric), '.3f')} of {group['cases']}"
            if group["cases"] is not None
            else f"{group['group']} hidden"
            for group in groups
        ]
        lines.append(f"test {metric} by {attribute}: {', '.join(each)}")
    if flips := summary.get("uncertainty", {}).get("metrics"):
        told = {
            "all": "flip_variance",
            "right": "flip_variance_right",
            "wrong": "flip_variance_wrong",
        }
        shown = ", ".join(f"{part} {_number(flips[name], '.4f')}" for part, name in told.items())
        lines.append(f"variance over flips of test cases: {shown}")
    return lines


def _coverages(told: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {own['coverage']:.3f} of {own['cases']}"
        for name, own in told.items()
        if own["coverage"] is not None
    )


def absent_lines(absent: Mapping[str, Sequence[str]]) -> list[str]:
    """The lines that say which classes no case of a split has, so that they are in no mean."""
    return [
        f"no case of the {split} split has {', '.join(names)}: left out of its means"
        for split, names in absent.items()
        if names
    ]


def collapsed_lines(summary: Mapping[str, Any]) -> list[str]:
    """The line that says that a classifier has one answer to all test cases, where it has."""
    found = only_class(summary)
    if found is None:
        return []
    return [
        f"NOTE: the model predicts all {counted(found[1], 'test case')} as one and the same class; "
        "by its answers it tells no case from another"
    ]


def protection_lines(protection: Mapping[str, Any]) -> list[str]:
    """The lines that say what hides the sites' updates in a run, and for how much it is made."""
    name = protection["name"]
    if name == "plain":
        return []
    line = f"{name}: sums of at least {protection['min_sites']} sites are opened"
    if "openings" in protection:
        noise = protection["noise_in_a_sum"]
        line += (
            f", at most {protection['openings']} of them, flooded for "
            f"{protection['statistical_security']} bits of statistical security, "
            + ("and exact" if noise is None else f"off by {noise:.1g}")
        )
    if "threshold" in protection:
        line += (
            f"; {protection['threshold']} of {protection['neighbours'] + 1} holders of a site's "
            f"shares are needed"
        )
    return [line]


def cases_of_sites(experiment: Experiment) -> Iterator[Table | str]:
    """Every site's training cases of each class, and its cases in each split, with a legend.

    Raises:
        ConsiliumError: the data cannot be had, or cannot be dealt to the sites.
    """
    located = locate(experiment.data)
    dataset = load(located, experiment.data)
    partition = partition_dataset(dataset, experiment.sites, experiment.seed)
    counts = case_counts(dataset, partition)
    yield (
        f"{experiment.name}: {dataset.info.name} ({located.source}), "
        f"{experiment.sites.partition}, seed {experiment.seed}"
    )
    shown = counted_labels(dataset)[:MAX_CLASS_COLUMNS]
    rows = [
        [
            site,
            *(str(count) for count in splits["train"][: len(shown)]),
            *(str(partition.cases(site, split)) for split in SPLITS),
        ]
        for site, splits in counts.items()
    ]
    yield table(["site", *map(str, range(len(shown))), *SPLITS], rows)
    if shown:
        names = ", ".join(f"{index} {name}" for index, name in enumerate(shown))
        yield f"Training cases of each: {names}. All cases: {', '.join(SPLITS)}."
    if partition.draws:
        moved = counted(partition.moved, "case")
        yield f"Shares drawn {counted(partition.draws, 'time')}, {moved} moved to meet the floor."
    if located.source != "phantom":
        yield f"Licence: {dataset.info.licence}."


def comparison(folder: Path, experiment: str) -> Iterator[Table | str]:
    """What a comparison found, as far as it fits a terminal, and where all of it is."""
    found = read_json(folder / "runs.json")
    task, rows, sites = TASKS[found["task"]], found["rows"], found["sites"]
    private = any(row["epsilon"] is not None for row in rows)
    head = ["strategy", *(["ε"] if private else []), task.title]
    head += [f"worst\nsite's {task.title}", "MB up", "rounds\nto 90 %", "difference", "p"]
    yield ""
    yield table(head, [_compared(row, task.primary_metric, private) for row in rows])
    yield ""
    yield task.worst_site
    if sites and (task.compares_sites or len(sites) <= MAX_SITE_ROWS):
        names = task.metrics_of_sites
        own = [
            [row["label"], row["site"], *(_number(row[n], ".3f") for n in names)] for row in sites
        ]
        yield table(["strategy", "site", *metric_titles(task)], own)
        yield ""
    yield found["note"]
    yield ""
    yield from (
        "Where to look:",
        f"  {folder}/report.html   all of it, as a page",
        f"  {folder}/table.md   all metrics, as Markdown",
        f"  {folder}/runs.json   every run, machine-readable",
        f"  {folder}/{task.primary_metric}.png   the figure",
        f"  {servers()}   MLflow (experiment {experiment!r}, run {folder.name!r}) in the browser",
    )


def _compared(row: Mapping[str, Any], metric: str, private: bool) -> list[str]:
    """The cells of a row of a comparison."""
    score = _number(row[metric]["mean"], ".3f")
    if row[metric]["sd"] is not None:
        score += f" ± {row[metric]['sd']:.3f}"
    return [
        row["label"],
        *([_number(row["epsilon"], ".3g")] if private else []),
        score,
        _number(row["worst_site"], ".3f"),
        f"{row['megabytes_up']:.1f}",
        _number(row["rounds_to_most"], ".3g"),
        _number(row["difference"], "+.3f"),
        _number(row["p"], ".3f"),
    ]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def statistics_lines(folder: Path) -> Iterator[Table | str]:
    """What was counted of all sites' cases, and how far each site is from that."""
    value = read_json(folder / "statistics.json")
    yield f"{value['experiment']}: {counted(value['all_sites']['cases'], 'training case')}"
    lines = [line.strip("| ").split(" | ") for line in table_of(value["all_sites"])]
    rows = [cells for cells in lines[2:] if len(cells) > 1]
    yield table(lines[0], rows)
    yield from (cells[0] for cells in lines[2:] if len(cells) == 1 and cells[0])
    head = ["site", "cases", "share", "labels", "sizes", "looks", "spacing"]
    sites = value["sites"].items()
    yield table(head, [[site, *_short(site_cells(told))] for site, told in sites])
    yield f"quantity skew {value['quantity_skew']:.3f}"
    for key in ("landmarks", "features"):
        if refused := value.get(key, {}).get("refused"):
            yield refused
    if "landmarks" in value and "refused" not in value["landmarks"]:
        yield f"for images on one scale: {settings_line(value['landmarks']['standard'])}"
    yield f"{folder}/statistics.md, statistics.json"


def _short(cells: Sequence[str]) -> list[str]:
    return ["-" if cell == NOT_TOLD else cell for cell in cells]
