"""Entering what a site is about to release in the ledger of whoever holds its data.

Everything that leaves a site goes through here first: updates with privacy and without, styles,
what is told of validation and test cases, pictures. In a simulation there is one holder for each
data set, and all simulated sites have parts of its records.
"""

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

from federated.configuration.experiment import Experiment
from federated.data.dataset import SPLITS, Split
from federated.data.deal import AnyDataset, deal
from federated.data.site_cases import SiteCases
from federated.errors import ConsiliumError
from federated.privacy.accounting import Release
from federated.privacy.ledger import Head, Ledger, ledger_root
from federated.privacy.old_ledger import old_files
from federated.privacy.spending import EVALUATION, NO_MECHANISM, NO_RELEASE, Spending, Unit
from federated.run.folder import RunFolder
from federated.secrets.home import refuse_shared
from federated.stages.worker import site_cases, worker_context


def holder_ledger(experiment: Experiment) -> Ledger:
    """The ledger of who holds an experiment's data: one for each data set.

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
    """The cases that each site of an experiment holds, those that validation leaves out included:
    they stay the site's records.

    Raises:
        ConsiliumError: the sites cannot be dealt.
    """
    return SiteCases(experiment, dataset, deal(dataset, experiment.sites, experiment.seed))


def enter(
    run: Path,
    site: str,
    round_number: int,
    records: Sequence[str],
    *,
    mechanism: str = NO_MECHANISM,
    unit: Unit = "record",
    release: Release = NO_RELEASE,
    clip: float = 0.0,
) -> Head | None:
    """Enter a release of ``records`` before it is made; ``None`` where it is of no record.

    What is left out stands for a release without a bound.

    Raises:
        ConsiliumError: it would pass a budget, or the ledger is not whole. Then nothing may be
            released.
    """
    folder, experiment = RunFolder(run), worker_context(run).experiment
    ledger = holder_ledger(experiment)
    refuse_shared(folder.root.parent.parent, ledger.path)
    spending = Spending(
        mechanism,
        unit,
        release.noise_multiplier,
        release.sampling_rate,
        release.steps,
        clip,
        round_number,
        folder.run_id,
        experiment.name,
        site,
    )
    return ledger.spend(spending, records) if records else None


def training_records(run: Path, site: str) -> tuple[str, ...]:
    """The records that a site trains on in a run."""
    return site_cases(run, site, "train").records


def enter_evaluation(
    run: Path,
    site: str,
    round_number: int,
    splits: Sequence[Split] = SPLITS[1:],
    mechanism: str = EVALUATION,
) -> None:
    """Enter that predictions, scores or pictures of a site's cases leave it as they are.

    Raises:
        ConsiliumError: a budget does not allow it, or the ledger is not whole.
    """
    records = [record for split in splits for record in site_cases(run, site, split).records]
    enter(run, site, round_number, records, mechanism=mechanism)


def refuse_evaluation(run: Path, site: str) -> None:
    """Before a run's first round: refuse what :func:`enter_evaluation` would refuse after it.

    Raises:
        ConsiliumError: a budget does not allow that the site's cases are evaluated.
    """
    experiment = worker_context(run).experiment
    records = [record for split in SPLITS[1:] for record in site_cases(run, site, split).records]
    run_id = RunFolder(run).run_id
    holder_ledger(experiment).refuse(_evaluation(experiment, site, run_id), records)


def enter_file_evaluation(experiment: Experiment, site: str, records: Sequence[str]) -> None:
    """Enter that scores of a model file on a site's cases are told, outside of any run.

    Raises:
        ConsiliumError: a budget does not allow it, or the ledger is not whole.
    """
    if records:
        spending = _evaluation(experiment, site, "consilium evaluate")
        holder_ledger(experiment).spend(spending, records)


def _evaluation(experiment: Experiment, site: str, run: str) -> Spending:
    noise, rate, steps = astuple(NO_RELEASE)
    name = experiment.name
    return Spending(EVALUATION, "record", noise, rate, steps, 0.0, 0, run, name, site)
