"""Which runs evaluate a round beside the training of the next one, and why others do not.

Without overlap workers stand idle while the coordinator measures, writes records and plans. With it
a round is begun before the one before has its record. So nothing may follow from that record for
the next round, and nothing of a site from the order of the two.
"""

from federated.configuration.experiment import Experiment
from federated.settings.sections import Processes
from flows.site_stages import MOST_RUNS


def why_in_turn(experiment: Experiment, sites: int) -> str | None:
    """Why each round of a run is evaluated before the next one is trained.

    Args:
        experiment: of the run.
        sites: how many take part in it.

    Returns:
        The reason, in words; ``None`` where a round is evaluated beside the training of the next.
    """
    runner, privacy, strategy = experiment.runner, experiment.privacy, experiment.strategy
    protection, compression = experiment.protection, experiment.compression
    if not isinstance(runner, Processes):
        return f"runner.name={runner.name}"
    if privacy.name != "none":
        return f"privacy.name={privacy.name}"
    if protection.name != "plain":
        return f"protection.name={protection.name}"
    if not strategy.keeps_nothing or strategy.introduction() is not None:
        return f"strategy.name={strategy.name}, by which sites keep something between rounds"
    if not compression.keeps_nothing:
        return "compression, by which sites keep what they do not send"
    if experiment.evaluation.share == "sums":
        return "evaluation.share=sums"
    if experiment.selection.patience is not None:
        return "selection.patience, by which metrics say whether there is another round"
    if runner.stacked_sites > 1:
        return f"runner.stacked_sites={runner.stacked_sites}, by which sites train in groups"
    if sites > MOST_RUNS:
        return f"{sites} sites, which do their stages in groups"
    return None


def order_of_rounds(why: str | None) -> str:
    """What is told of the order of a run's rounds; ``why`` they are in turn, if they are."""
    if why is None:
        return "each round is evaluated beside the training of the next one"
    return f"each round is evaluated before the next one is trained: {why}"
