"""What a run is and what it has come to, in the words that MLflow and Prefect show of it.

Nothing is said that the run's configuration and its summary do not have: of a private run there are
no times, and of a site nothing that it does not tell.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from federated.configuration.experiment import Experiment
from federated.learning import TASKS, metrics_in
from federated.provenance import UNKNOWN, short_commit, told_commit

PHANTOM = (
    "**The data are a phantom, drawn by a program:** the numbers show that the software works, and "
    "nothing about any patient."
)
NO_PRIVACY = "none: nothing bounds what the model tells of a case"
# Of more sites a person reads no list.
MOST_NAMED = 50
# What the coordinator sees where nothing protects the sites' updates.
PLAIN = "plain: the coordinator reads the update of each site"


def beginning(experiment: Experiment, source: str, sites: int) -> str:
    """What is trained, on what, and by what it is protected, as Markdown.

    Args:
        experiment: the run's configuration.
        source: where the data come from, as ``files`` or ``phantom``.
        sites: how many take part.
    """
    privacy, settings = experiment.privacy, experiment.to_json()
    rows = {
        "data": f"{experiment.data.dataset} ({source})",
        "sites": str(sites),
        "rounds": str(experiment.rounds),
        "model": experiment.model.name,
        "strategy": _named(settings["strategy"]),
        "compression": _named(settings["compression"]),
        "protection": PLAIN
        if experiment.protection.name == "plain"
        else _named(settings["protection"]),
        "privacy": f"{privacy.name}, for each {privacy.unit}" if privacy.unit else NO_PRIVACY,
        "kept by": experiment.selection.metric,
        "seed": str(experiment.seed),
    }
    head = f"`{experiment.name}`: a model trained without moving a patient's image."
    return "\n\n".join([head, *([PHANTOM] if source == "phantom" else []), _table(rows)])


def first_line(summary: Mapping[str, Any]) -> str:
    """What a person wants to know of a finished run before all else, as Markdown: its test."""
    names = [name for name in _names(summary) if summary["metrics"]["test"].get(name) is not None]
    told = ", ".join(f"{name} {_number(summary['metrics']['test'][name])}" for name in names[:2])
    epsilon = summary["privacy"].get("epsilon")
    spent = f", ε {epsilon:.3g}" if epsilon is not None else ""
    return f"**Test: {told or 'no metric'}{spent}**"


def _names(summary: Mapping[str, Any]) -> tuple[str, ...]:
    return TASKS[summary.get("task", "classification")].metrics_in("end")


def result(summary: Mapping[str, Any]) -> str:
    """What a finished run has come to, as Markdown, from its ``summary.json``."""
    metrics = summary["metrics"]
    names = [name for name in _names(summary) if metrics["test"].get(name) is not None]
    lines = [
        f"Of {summary['rounds_done']} rounds the model of round {summary['kept_round']} is kept.",
        "",
        "| metric | validation | test |",
        "| --- | --- | --- |",
        *(
            f"| {name} | {_number(metrics.get('val', {}).get(name))} | "
            f"{_number(metrics['test'][name])} |"
            for name in names
        ),
        "",
        *_spent(summary["privacy"]),
        f"Bytes: {summary['bytes']['up'] / 1e6:.1f} MB up, "
        f"{summary['bytes']['down'] / 1e6:.1f} MB down, of all sites in all rounds. "
        f"{_code(summary)}.",
    ]
    left_out = {**summary["absent"], **summary.get("not_evaluated", {})}
    if left_out:
        names, more = sorted(left_out), len(left_out) - MOST_NAMED
        said = ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        lines += ["", f"Not in the metrics: {said}."]
    return "\n".join(lines)


def _code(summary: Mapping[str, Any]) -> str:
    """Which code made a run, as Markdown."""
    commit = summary["git_commit"]
    if commit == UNKNOWN:
        return told_commit(commit, summary.get("versions", {})).capitalize()
    return f"Commit `{short_commit(commit)}`"


def headline(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that a person looks for first, by names without a group.

    MLflow shows metrics whose names have no ``/`` before all groups. They are those of the summary:
    of the round whose model is kept.
    """
    found: dict[str, float] = {}
    for split in ("test", "val"):
        values = summary["metrics"].get(split, {})
        names = [name for name in metrics_in("end") if values.get(name) is not None]
        found |= {f"{split}_{name}": float(values[name]) for name in names}
    if summary["privacy"].get("epsilon") is not None:
        found["epsilon"] = float(summary["privacy"]["epsilon"])
    return found


def tags_of(experiment: Experiment, source: str) -> list[str]:
    """The tags of a run in Prefect, by which its people find it among others."""
    runner = experiment.runner.name
    return sorted(
        {
            f"data: {experiment.data.dataset}",
            f"strategy: {experiment.strategy.name}",
            f"protection: {experiment.protection.name}",
            f"privacy: {experiment.privacy.name}",
            "consortium" if runner == "sites" else "simulation",
            *(["phantom"] if source == "phantom" else []),
        }
    )


def _named(settings: Mapping[str, Any]) -> str:
    """A section of the configuration in a line: its name, and its numbers in brackets."""
    shown = [
        f"{key} {value}"
        for key, value in settings.items()
        if key != "name" and isinstance(value, int | float | str) and not isinstance(value, bool)
    ]
    return f"{settings['name']} ({', '.join(shown)})" if shown else str(settings["name"])


def _spent(privacy: Mapping[str, Any]) -> Iterator[str]:
    if not privacy.get("unit"):
        return
    epsilon = privacy["epsilon"]
    told = "without bound" if epsilon is None else f"{epsilon:.3g} at δ {privacy['delta']:g}"
    yield f"Privacy spent, for each {privacy['unit']}: ε {told} ({privacy['accountant']})."
    yield ""


def _table(rows: Mapping[str, str]) -> str:
    # A bar would end the cell.
    cells = [f"| {name} | {text.replace('|', '/')} |" for name, text in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *cells])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
