"""fl-round and fl-statistics as a coordinator deploys them: of the sites of its consortium."""

from collections.abc import Sequence

from prefect import flow

from federated.configuration.params_file import parse_overrides
from flows.round import fl_round
from flows.site_statistics import fl_statistics
from flows.threads import RUNNER

# What makes a run one of the consortium's sites.
OF_SITES = "runner.name=sites"


def of_sites(overrides: Sequence[str]) -> list[str]:
    """Some overrides, with the consortium's sites as the runner where they name none.

    Whoever gives a deployment overrides replaces all that it had. Without a runner the run would be
    a simulation at the coordinator, on generated images if it has no others.

    Raises:
        ConsiliumError: an item is not of the form ``section.key=value``.
    """
    runner = parse_overrides(overrides).get("runner", {})
    named = not isinstance(runner, dict) or "name" in runner
    return list(overrides) if named else [OF_SITES, *overrides]


@flow(name=fl_round.name, flow_run_name="{experiment}", task_runner=RUNNER)
def fl_round_of_sites(
    experiment: str,
    overrides: list[str] | None = None,
    rounds: int | None = None,
    resume: str | None = None,
    params: str = "params.yaml",
    runs: str = "runs",
    register_model: bool = True,
) -> str:
    """Run the rounds of an experiment over the consortium's sites, or go on with such a run.

    Args:
        experiment: a name under ``experiments`` in params.yaml.
        overrides: ``section.key=value`` items. One of ``runner.name`` names another runner.
        rounds: how many rounds in all, instead of the experiment's own number.
        resume: a run id, or ``latest``; the run's own configuration is used.
        params: the parameter file.
        runs: the folder that holds all runs.
        register_model: whether the model becomes a version in MLflow's registry.

    Returns:
        The run's folder.

    Raises:
        ConsiliumError: something in the input cannot be used.
    """
    items = of_sites(overrides or ())
    return fl_round.fn(experiment, items, rounds, resume, None, params, runs, register_model)


@flow(name=fl_statistics.name, flow_run_name="statistics-{experiment}", task_runner=RUNNER)
def fl_statistics_of_sites(
    experiment: str,
    overrides: list[str] | None = None,
    params: str = "params.yaml",
    runs: str = "runs",
) -> str:
    """Count the training cases of the consortium's sites, and report what they are like.

    Args:
        experiment: a name under ``experiments`` in params.yaml.
        overrides: ``section.key=value`` items. One of ``runner.name`` names another runner.
        params: the parameter file.
        runs: the folder that holds all runs.

    Returns:
        The run's folder, with ``statistics.json`` and ``statistics.md``.

    Raises:
        ConsiliumError: something in the input cannot be used, or too few sites take part.
    """
    return fl_statistics.fn(experiment, of_sites(overrides or ()), params, runs)
