"""Entering what a site is about to release in the ledger of whoever holds its data.

Everything that leaves a site goes through here first: updates with privacy and without, styles,
what is told of validation and test cases, and pictures.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from federated.data.dataset import SPLITS, Split
from federated.errors import RefusalError
from federated.privacy.accounting import Release
from federated.privacy.ledger import Head
from federated.privacy.spending import EVALUATIONS, NO_MECHANISM, NO_RELEASE, Spending
from federated.settings.base import Unit
from federated.site.holder import evaluation_of, holder_ledger
from federated.stages.site import Site
from federated.stages.worker import site_cases


class EnteredBeforeError(RefusalError):
    """A stage that is done again would enter a release that the first time may have entered."""


def enter(
    site: Site,
    round_number: int,
    records: Sequence[str],
    *,
    mechanism: str = NO_MECHANISM,
    unit: Unit = "record",
    release: Release = NO_RELEASE,
    clip: float = 0.0,
) -> Head | None:
    """Enter a release of ``records`` before it is made, and return the ledger's head.

    If there are no records nothing is entered, and the result is ``None``. The defaults stand for a
    release without a bound.

    Args:
        site: who releases.
        round_number: in which round; 0 before the first.
        records: the digests of the records that are released of.
        mechanism: its name in the ledger.
        unit: whom it protects.
        release: its noise, sampling rate and steps.
        clip: its clipping norm.

    Raises:
        ConsiliumError: it would pass a budget, or the ledger is not whole. Then nothing may be
            released.
        EnteredBeforeError: this call may enter nothing.
    """
    if not site.may_enter:
        raise EnteredBeforeError(f"{site.name} enters nothing more of what it was asked.")
    experiment = site.run.experiment
    ledger = holder_ledger(experiment)
    spending = Spending(
        mechanism,
        unit,
        release.noise_multiplier,
        release.sampling_rate,
        release.steps,
        clip,
        round_number,
        site.run.run_id,
        experiment.name,
        site.name,
    )
    if not records:
        return None
    with numbers_kept(site):
        return ledger.spend(spending, records)


@contextmanager
def numbers_kept(site: Site) -> Iterator[None]:
    """Keep in the site's own log what a refusal in this block has of numbers, and tell the rest.

    How much a site has spent follows from what it has released before, in whatever runs.

    Raises:
        RefusalError: the refusal, as others may read it.
    """
    try:
        yield
    except RefusalError as error:
        if error.kept:
            run = site.run.run_id
            site.home.audit.add("refused", reason="privacy budget", run=run, said=error.kept)
        raise RefusalError(str(error)) from None


def training_records(site: Site) -> tuple[str, ...]:
    """The digests of the records that a site trains on in a run."""
    return site_cases(site, "train").records


def split_records(site: Site, splits: Sequence[Split]) -> tuple[str, ...]:
    """The digests of the records that a site has in some splits."""
    return tuple(record for split in splits for record in site_cases(site, split).records)


def enter_evaluation(
    site: Site,
    round_number: int,
    splits: Sequence[Split] = SPLITS[1:],
    mechanism: str | None = None,
) -> None:
    """Enter that something of a site's cases leaves it without a bound: an evaluation or pictures.

    Args:
        site: whose cases they are.
        round_number: after which round.
        splits: which cases.
        mechanism: what is told of them; what ``evaluation.share`` says if it is left out.

    Raises:
        ConsiliumError: a budget does not allow it, or the ledger is not whole.
    """
    records = split_records(site, splits)
    shared = EVALUATIONS[site.run.experiment.evaluation.share]
    enter(site, round_number, records, mechanism=mechanism or shared)


def refuse_evaluation(site: Site) -> None:
    """Refuse, before a run's first round, what :func:`enter_evaluation` would refuse after it.

    Raises:
        ConsiliumError: a budget does not allow that the site's cases are evaluated.
    """
    experiment = site.run.experiment
    records = split_records(site, SPLITS[1:])
    spending = evaluation_of(experiment, site.name, site.run.run_id)
    holder_ledger(experiment).refuse(spending, records)
