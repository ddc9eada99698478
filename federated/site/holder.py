"""Who holds an experiment's data: the ledger of what was released of them, and the cases.

In a simulation there is one holder for each data set, and all simulated sites have parts of its
records.
"""

from collections.abc import Sequence
from dataclasses import astuple

from federated.configuration.cases import experiment_cases
from federated.configuration.experiment import Experiment
from federated.data.partitioning import AnyDataset, partition_dataset
from federated.data.site_cases import SiteCases
from federated.errors import ConsiliumError
from federated.privacy.ledger import Ledger, ledger_root
from federated.privacy.old_ledger import old_files
from federated.privacy.spending import EVALUATIONS, NO_RELEASE, Spending


def holder_ledger(experiment: Experiment) -> Ledger:
    """The ledger of whoever holds an experiment's data; there is one for each data set.

    Raises:
        ConsiliumError: an older version has left ledgers of that data set that were not taken over.
    """
    dataset = experiment.data.dataset
    if left := old_files(dataset):
        raise ConsiliumError(
            f"There are {len(left)} privacy ledgers of an older version, the first {left[0]}. What "
            f"they say has to count: take them over with `consilium ledger migrate "
            f"{experiment.name}`."
        )
    return Ledger(ledger_root() / f"{dataset}.jsonl")


def held_cases(experiment: Experiment, dataset: AnyDataset) -> SiteCases:
    """The cases that each site of an experiment holds.

    Those that validation leaves out are among them: they stay the site's records.

    Raises:
        ConsiliumError: the cases cannot be dealt to the sites.
    """
    return experiment_cases(
        experiment, dataset, partition_dataset(dataset, experiment.sites, experiment.seed)
    )


def enter_file_evaluation(experiment: Experiment, site: str, records: Sequence[str]) -> None:
    """Enter in the ledger that scores of a model file on a site's cases are told, outside a run.

    Raises:
        ConsiliumError: a budget does not allow it, or the ledger is not whole.
    """
    if records:
        spending = evaluation_of(experiment, site, "consilium evaluate")
        holder_ledger(experiment).spend(spending, records)


def evaluation_of(experiment: Experiment, site: str, run: str) -> Spending:
    """The ledger's entry of an evaluation of a site's cases; its mechanism says what is shared."""
    noise, rate, steps = astuple(NO_RELEASE)
    name = experiment.name
    mechanism = EVALUATIONS[experiment.evaluation.share]
    return Spending(mechanism, "record", noise, rate, steps, 0.0, 0, run, name, site)
