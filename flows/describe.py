"""Text and tables that the command line prints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from federated.configuration.experiment import Experiment
from federated.data.load import load, locate
from federated.data.partitioning import case_counts, partition_dataset
from federated.files import read_json
from federated.learning import metrics_in
from federated.run.folder import RunFolder
from flows.progress import counted

MAX_CLASS_COLUMNS = 12
# By no more may a metric be off that is shown without its bounds.
EXACT_ENOUGH = 1e-3


def result_lines(folder: Path) -> list[str]:
    """The lines that say what a finished run reached, and where to look."""
    summary = read_json(RunFolder(folder).summary_path)
    test = summary["metrics"]["test"]
    shown = ", ".join(
        f"{name} {test[name]:.3f}" for name in metrics_in("end") if test.get(name) is not None
    )
    seconds = summary["seconds"]
    name = summary["experiment"]
    source = f"data_source: {summary['data_source']}, seed {summary['seed']}"
    done = counted(summary["rounds_done"], "round")
    return [
        "",
        f"{name}: test {shown or '-'}  ({source})",
        # Runs of older versions do not say.
        *evaluation_lines(summary.get("evaluation", {})),
        *absent_lines(summary.get("classes_absent", {})),
        f"{done} in {seconds['total']:.0f} s{_orchestration(seconds['overhead'])}; "
        f"sent up {summary['bytes']['up'] / 1e6:.1f} MB, "
        f"down {summary['bytes']['down'] / 1e6:.1f} MB",
        # Runs of older versions do not say.
        *protection_lines(summary.get("protection", {"name": "plain"})),
        "",
        "Where to look:",
        f"  {folder}/summary.json   the result, machine-readable",
        f"  {folder}/data_docs/index.html   validation of every site's data"
        if (folder / "data_docs").is_dir()
        else f"  {folder}/validation.json   validation of every site's data",
        f"  make ui   MLflow (experiment and model {name!r}) and Prefect in the browser",
    ]


def _orchestration(seconds: float | None) -> str:
    """How much of a run's time orchestration took; a private run does not tell."""
    return "" if seconds is None else f", of which orchestration {seconds:.1f} s"


def evaluation_lines(evaluation: Mapping[str, Any]) -> list[str]:
    """The lines that say which test metrics are not known exactly, and between which bounds."""
    bounds = evaluation.get("intervals", {}).get("test", {})
    return [
        f"test {name} lies between {low:.4f} and {high:.4f}: it follows from histograms, as "
        f"evaluation.share={evaluation['share']} has it"
        for name, (low, high) in bounds.items()
        if high - low > 2 * EXACT_ENOUGH
    ]


def absent_lines(absent: Mapping[str, Sequence[str]]) -> list[str]:
    """The lines that say which classes no case of a split has, so that they are in no mean."""
    return [
        f"no case of the {split} split has {', '.join(names)}: left out of its means"
        for split, names in absent.items()
        if names
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


def sites_table(experiment: Experiment) -> Table:
    """A table of every site's training cases of each class, and its cases in each split.

    Raises:
        ConsiliumError: the data cannot be had, or cannot be dealt to the sites.
    """
    located = locate(experiment.data)
    dataset = load(located, experiment.data)
    partition = partition_dataset(dataset, experiment.sites, experiment.seed)
    counts = case_counts(dataset, partition)
    table = Table(
        title=f"{experiment.name}: {dataset.info.name} ({located.source}), "
        f"{experiment.sites.partition}, seed {experiment.seed}",
        caption=f"shares drawn {partition.draws} times, {partition.moved} cases moved to meet the "
        f"floor; licence {dataset.info.licence}",
    )
    table.add_column("site")
    labelled = dataset.info.task == "classification"
    shown = dataset.info.classes[:MAX_CLASS_COLUMNS] if labelled else ()
    for index, name in enumerate(shown):
        table.add_column(f"{index} {name}", justify="right", overflow="fold")
    for split in ("train", "val", "test"):
        table.add_column(split, justify="right", style="bold")
    for site, splits in counts.items():
        per_class = [str(count) for count in splits["train"][: len(shown)]]
        table.add_row(site, *per_class, *(str(sum(splits[s])) for s in ("train", "val", "test")))
    return table
