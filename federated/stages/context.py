"""Reading what is known of a run and of a round, once in each stage."""

from collections.abc import Mapping

from federated.configuration.experiment import Experiment
from federated.errors import ConsiliumError, why_unreadable
from federated.files import read_json
from federated.privacy.accounting import Release
from federated.rounds.context import RoundContext, RunContext
from federated.run.folder import RunFolder
from federated.run.update_files import read_state


def read_run(folder: RunFolder) -> RunContext:
    """What stays the same in all rounds of a run.

    Raises:
        ConsiliumError: a file of the run is missing or damaged.
    """
    experiment = folder.experiment()
    return RunContext(
        folder.run_id,
        experiment,
        folder.case_counts(),
        tuple(folder.sites()),
        _planned(folder, experiment),
    )


def read_round(folder: RunFolder, round_number: int) -> RoundContext:
    """A round before it begins, with the state after the round before it.

    Raises:
        ConsiliumError: a file of the run is missing or damaged.
    """
    before = round_number - 1
    return RoundContext(read_run(folder), read_state(folder.state_path(before), before))


def _planned(folder: RunFolder, experiment: Experiment) -> Mapping[str, Release]:
    """What :func:`federated.stages.privacy.plan_site` found for each site."""
    if experiment.privacy.unit is None:
        return {}
    try:
        plan = read_json(folder.privacy_path)
    except (OSError, ValueError) as error:
        raise ConsiliumError(
            f"The plan of what each site releases, {folder.privacy_path}, cannot be read "
            f"({why_unreadable(error)}). Put the file back, or start a new run."
        ) from error
    return {
        site: Release(own["noise_multiplier"], own["sampling_rate"], own["steps"])
        for site, own in plan.items()
    }
