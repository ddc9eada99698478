"""Strategies side by side: the grid of runs, one for each label and seed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from federated.configuration.compatibility import task_of_experiment
from federated.configuration.experiment import Experiment
from federated.configuration.load import load_experiment, transfer_overrides, variant_overrides
from federated.configuration.params_file import rounds_items
from federated.errors import ConsiliumError
from federated.files import md5_of, read_json
from federated.learning import overall_metrics
from federated.run.folder import RunFolder

TRANSFER = "tl"
LABEL = re.compile(r"(?P<name>[a-z]+)(?P<settings>(:[a-z_0-9]+=[^:+]+)*)(?P<variants>(\+[\w.-]+)*)")


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison: a label such as ``fedprox:mu=0.1+tl``, and a seed."""

    label: str
    seed: int
    overrides: tuple[str, ...]


def planned_runs(
    experiment: str,
    labels: Sequence[str],
    seeds: int,
    overrides: Sequence[str],
    params: Path,
    rounds: int | None = None,
) -> list[PlannedRun]:
    """All runs, seed by seed, so that what is done at any moment can be compared in pairs.

    A label is a strategy's name, with ``:key=value`` for its own settings, ``+tl`` for transfer
    learning from the backbone that params.yaml names for the experiment, and ``+NAME`` for an entry
    of its ``variants``. Seeds are the experiment's own and those that follow it.

    Args:
        experiment: a name under ``experiments`` of ``params``.
        labels: one for each strategy.
        seeds: how many, at least 1.
        overrides: ``section.key=value`` items of all runs.
        params: the parameter file.
        rounds: how many rounds each run has, instead of the experiment's own number.

    Raises:
        ConsiliumError: there is no label, one cannot be read or is there twice, a setting is not
            possible, or runs would have no value of what they are compared by.
    """
    if not labels:
        raise ConsiliumError(
            "No strategy is named. Name some with --strategies, for example fedavg,fedprox:mu=0.1."
        )
    if len(set(labels)) < len(labels):
        raise ConsiliumError(f"A strategy is named twice in {','.join(labels)}. Name each once.")
    result = []
    of_rounds = rounds_items(rounds)
    for number in range(seeds):
        for label in labels:
            own = _label_overrides(experiment, label, params)
            items = {"--set": overrides, f"--strategies {label}": own, "--rounds": of_rounds}
            resolved = load_experiment(experiment, items, params, plans=True)
            _refuse_without_score(resolved)
            seed = resolved.seed + number
            result.append(PlannedRun(label, seed, (*overrides, *own, *of_rounds, f"seed={seed}")))
    return result


def _refuse_without_score(experiment: Experiment) -> None:
    """Refuse runs without a value of what strategies are compared by.

    Raises:
        ConsiliumError: what sites send of their evaluation does not give it.
    """
    task, evaluation = task_of_experiment(experiment), experiment.evaluation
    if task.primary_metric not in overall_metrics(task, evaluation):
        raise ConsiliumError(
            f"Strategies are compared by {task.title} over the cases of all sites, which has no "
            f"value with evaluation.share={evaluation.share} and evaluation.min_count="
            f"{evaluation.min_count}. Compare with evaluation.share=statistics or predictions, and "
            "without evaluation.min_count."
        )


def _label_overrides(experiment: str, label: str, params: Path) -> list[str]:
    match = LABEL.fullmatch(label)
    if not match:
        raise ConsiliumError(
            f"The strategy {label!r} is not of the form NAME, NAME:key=value or NAME+VARIANT, for "
            "example fedprox:mu=0.1+tl."
        )
    items = [f"strategy.name={match['name']}"]
    items += [f"strategy.{item}" for item in match["settings"].split(":")[1:]]
    for variant in match["variants"].split("+")[1:]:
        transfer = variant == TRANSFER
        items += (
            transfer_overrides(experiment, params)
            if transfer
            else variant_overrides(variant, params)
        )
    return items


def find_run(runs: Path, experiment: Experiment, data_md5: str) -> RunFolder | None:
    """The newest run for which exactly this was asked, of these data, finished ones first.

    What is `auto` is compared as that, whatever was planned for it. The runner does not matter, as
    every one gives the same weights. Where the run began from pretrained weights, the file must
    still be the same. The result is ``None`` if there is no such run.
    """
    wanted = _identity(experiment.to_json())
    best: tuple[bool, str] | None = None
    for config in (runs / experiment.name).glob("*/config.json"):
        folder = RunFolder(config.parent)
        if config.parent.is_symlink() or not (folder.root / "inputs.json").is_file():
            continue
        try:
            same = _identity(folder.asked()) == wanted and folder.data().md5 == data_md5
        except (ConsiliumError, ValidationError, KeyError):
            continue  # a run of an older version of this program
        if same and _same_weights(folder, experiment):
            found = (folder.summary_path.is_file(), folder.run_id)
            best = max(found, best) if best else found
    return RunFolder((runs / experiment.name / best[1]).resolve()) if best else None


def _identity(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: own for key, own in value.items() if key != "runner"}


def _same_weights(folder: RunFolder, experiment: Experiment) -> bool:
    if experiment.model.init == "random":
        return True
    path = Path(experiment.model.init)
    written = folder.transfer_path.is_file()
    return written and path.is_file() and read_json(folder.transfer_path)["md5"] == md5_of(path)
