"""What is `auto` in an experiment becomes a plan: one for all sites, from what they have counted.

The sites count their cases in a run for statistics, before a training is proposed to them. The plan
stands in the run's configuration, which is what is proposed, signed and gone on with; how it came
about is in ``planned.json``.
"""

from dataclasses import asdict
from pathlib import Path

from federated.configuration.experiment import Experiment
from federated.configuration.planned import plan_line, planned_experiment
from federated.errors import ConsiliumError
from federated.files import write_json
from federated.run.folder import RunFolder
from federated.run.prepared import PreparedFolder
from federated.run.statistics_report import LARGEST_ERROR
from flows.prepare import Prepared, take_prepared, unvalidated
from flows.progress import tell
from flows.site_statistics import run_statistics


def planned(
    experiment: Experiment, folder: RunFolder, runs: Path, params: Path, given: Path | None = None
) -> Experiment:
    """The experiment of a run with numbers in place of `auto`, as its folder has it from then on.

    Args:
        experiment: the experiment; one in which nothing is `auto` comes back as it is.
        folder: the run's folder.
        runs: the folder that holds all runs.
        params: the parameter file.
        given: a folder of prepared data, if there is one.

    Raises:
        ConsiliumError: the sites cannot count their cases, or nothing can be planned by it.
    """
    if not experiment.planning.auto:
        return experiment

    def data(counting: RunFolder) -> Prepared:
        if given is not None:
            return take_prepared(experiment, PreparedFolder(given), counting)
        return unvalidated(experiment, counting)

    counted = run_statistics(experiment, runs, params, data)
    if counted.rank_error > LARGEST_ERROR:
        raise ConsiliumError(
            f"Nothing can be planned from the counts of the sites of {experiment.name}: with "
            f"statistics.epsilon={experiment.statistics.epsilon} noise moves the rank of a median "
            f"by {counted.rank_error:.0%} of the cases. Raise it, or state "
            f"{', '.join(experiment.planning.auto)} as numbers."
        )
    resolved, made = planned_experiment(experiment, counted.found)
    value = {
        "asked": experiment.to_json(),
        "auto": list(experiment.planning.auto),
        "sites": len(counted.sites),
        "cases": counted.found.cases,
        "statistics": counted.folder.run_id,
        "plan": asdict(made) if made else None,
    }
    write_json(folder.planned_path, value)
    write_json(folder.config_path, resolved.to_json())
    tell(plan_line(resolved, made, len(counted.sites)))
    return resolved
