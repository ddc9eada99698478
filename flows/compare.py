"""fl-compare: strategies side by side, each with several seeds."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import join

from prefect import flow

from federated.comparison.grid import TRANSFER, PlannedRun, find_run, planned_runs
from federated.comparison.table import Result, read_result
from federated.configuration.load import load_experiment, transfer_overrides
from federated.data.load import locate
from federated.errors import ConsiliumError
from federated.run.folder import RunFolder
from flows.going_on import goes_on_by
from flows.pretrain import missing_backbone, pretrain
from flows.progress import tell
from flows.round import fl_round
from flows.written import counted_task_runs
from tasks.compare import begin_comparison, compare
from tasks.track import comparison, end_tracking


@flow(name="fl-compare", flow_run_name="compare-{experiment}")
def fl_compare(
    experiment: str,
    strategies: list[str],
    seeds: int = 3,
    overrides: list[str] | None = None,
    params: str = "params.yaml",
    runs: str = "runs",
    rounds: int | None = None,
) -> str:
    """Run every strategy with every seed; finished runs are not repeated, stopped ones go on.

    Args:
        experiment: a name under ``experiments`` in params.yaml.
        strategies: labels, as ``fedprox:mu=0.1+tl``.
        seeds: how many seeds, from the experiment's own on.
        overrides: ``section.key=value`` items for all runs.
        params: the parameter file.
        runs: the folder that holds all runs.
        rounds: how many rounds each run has, instead of the experiment's own number.

    Returns:
        The comparison's folder, with ``table.md``, ``runs.json`` and ``auc.png`` or ``dice.png``.

    Raises:
        ConsiliumError: a label or setting cannot be used; or runs failed, after all others ran.
    """
    items = list(overrides or ())
    planned = planned_runs(experiment, strategies, seeds, items, Path(params), rounds)
    results: list[Result] = []
    failed: list[str] = []
    command = describe_command(experiment, strategies, seeds, items, rounds)
    folder = comparison_folder(Path(runs), experiment, command)
    with (
        counted_task_runs(),
        goes_on_by("Complete runs and rounds are kept; the same command goes on from there."),
    ):
        if any(TRANSFER in label.split("+")[1:] for label in strategies):
            _backbone(experiment, params, runs)
        with tracked(experiment, folder, command) as mlflow_run_id:
            for number, wanted in enumerate(planned, start=1):
                tell(f"run {number}/{len(planned)}: {wanted.label}, seed {wanted.seed}")
                try:
                    results.append(read_result(wanted, _run(wanted, experiment, params, runs)))
                except ConsiliumError as error:
                    failed.append(f"{wanted.label}, seed {wanted.seed}: {error}")
                    tell(f"failed: {failed[-1]}")
            if results:
                compare(experiment, results, folder, command, mlflow_run_id)
            if failed:
                raise ConsiliumError(
                    f"{len(failed)} of {len(planned)} runs failed; the others are kept, and the "
                    f"same command tries these again. {' '.join(failed)}"
                )
    return str(folder)


@contextmanager
def tracked(experiment: str, folder: Path, command: str) -> Iterator[str]:
    """Have runs that are begun in the block shown below the comparison's own in MLflow.

    Yields:
        The id of the comparison's, which :func:`tasks.compare.compare` closes.
    """
    mlflow_run_id = begin_comparison(experiment, folder, command)
    token = comparison.set(mlflow_run_id)
    try:
        yield mlflow_run_id
    except BaseException as error:
        with suppress(Exception):
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            end_tracking.fn(mlflow_run_id, status, [])
        raise
    finally:
        comparison.reset(token)


def describe_command(
    experiment: str,
    strategies: list[str],
    seeds: int,
    items: list[str],
    rounds: int | None = None,
) -> str:
    """The command that makes a comparison, for a shell.

    Args:
        experiment: its name.
        strategies: their labels.
        seeds: how many.
        items: what is set beside the parameter file.
        rounds: how many rounds, where that is said.
    """
    words = ["--strategies", ",".join(strategies), "--seeds", str(seeds)]
    words += [] if rounds is None else ["--rounds", str(rounds)]
    words += [word for item in items for word in ("--set", item)]
    return join(["consilium", "compare", experiment, *words])


def comparison_folder(runs: Path, experiment: str, command: str) -> Path:
    """The folder of a comparison; the same command always has the same one."""
    digest = hashlib.sha256(json.dumps(command).encode()).hexdigest()[:8]
    return runs / experiment / f"compare-{digest}"


def _backbone(experiment: str, params: str, runs: str) -> None:
    """Train the backbone that the experiment starts from, if it is not there."""
    name = missing_backbone(transfer_overrides(experiment, Path(params)))
    if name:
        tell(f"pretraining the backbone {name}")
        pretrain(name, params=params, runs=runs)


def _run(wanted: PlannedRun, experiment: str, params: str, runs: str) -> RunFolder:
    # As the run is asked for, whose sites plan what is `auto`.
    resolved = load_experiment(experiment, wanted.overrides, Path(params), plans=True)
    found = find_run(Path(runs), resolved, locate(resolved.data).md5)
    if found and found.summary_path.is_file():
        tell(f"done before: {found.run_id}")
        return found
    folder = fl_round(
        experiment,
        overrides=None if found else list(wanted.overrides),
        resume=found.run_id if found else None,
        params=params,
        runs=runs,
        register_model=False,
    )
    return RunFolder(Path(folder))
