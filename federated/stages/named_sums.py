"""Which sums sites help to open, beside that of a round's updates, and what a site checks of each.

A named sum is asked for by a plan that the coordinator has signed, and its messages have its name
(``Topic.sum``). What goes into it a site works out by its own program: the coordinator chooses
neither the name nor the numbers. A further one is a :class:`NamedSum` in :data:`NAMED_SUMS`, and
then goes the way that ``secure_sum.py`` describes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from federated.configuration.experiment import Experiment
from federated.data.dataset import SPLITS, DatasetInfo, Split
from federated.data.partition import CaseCounts
from federated.errors import RefusalError, TooFewSitesError
from federated.exchange.message import Topic
from federated.learning import summed_bounds, task_of
from federated.learning.final_task import final_task
from federated.learning.quantised_statistics import statistics_bounds
from federated.protection import Protection
from federated.protection.digits import Bounds, digit_base
from federated.rounds.context import RoundContext, RunContext
from federated.rounds.participation import POOLED
from federated.rounds.statistics import CountNoise, scheme_of
from federated.settings.sections import Parties
from federated.site.releases import weights_digest
from federated.stages.site import (
    Site,
    SiteRound,
    open_evaluation,
    open_final_sum,
    open_round,
    open_statistics,
)
from federated.stages.site_model import own_weights
from federated.stages.worker import worker_context
from federated.update import RoundState

# The bits of a digit where nothing is quantised, so that the protection adds any numbers.
PLAIN_BITS = 16


@dataclass(frozen=True)
class NamedSum:
    """A sum over all sites of a run of one vector of whole numbers of each.

    Attributes:
        name: what its messages and files are called after.
        splits: of which cases it is.
        open: gives, at a site, the round that it is asked for in, with all sites selected, once the
            signed plan is checked.
        bounds: of the vector of any site, as all parties work them out.
        source: gives, at a site, the SHA-256 of all that its vector follows from beside its cases;
            of one source a site helps to one sum, whatever else a state says of itself.
        predicted: of which cases it tells what the model of its source makes of them. Two sums that
            do so of the same cases count the same, whatever their names: they are of the same
            sites, or the difference would be what one of these counts.
    """

    name: str
    splits: tuple[Split, ...]
    open: Callable[[Site, int], SiteRound]
    bounds: Callable[[RunContext, DatasetInfo], Bounds]
    source: Callable[[Site, RoundState], str]
    predicted: tuple[Split, ...] = ()


def _open_evaluation(site: Site, round_number: int) -> SiteRound:
    share = site.run.experiment.evaluation.share
    if share != "sums":
        raise RefusalError(
            f"{site.name} sums nothing of its evaluation: by the plan of the run, what is told is "
            f"evaluation.share={share}."
        )
    state, topic, plan = open_evaluation(site, round_number)
    return SiteRound(RoundContext(site.run, state), topic, plan)


def _evaluation_bounds(run: RunContext, info: DatasetInfo) -> Bounds:
    return summed_bounds(task_of(info, run.experiment.evaluation), run.counts, info)


def _evaluated_model(site: Site, state: RoundState) -> str:
    return weights_digest(own_weights(site, state))


def _open_final(site: Site, round_number: int) -> SiteRound:
    evaluation = site.run.experiment.evaluation
    if evaluation.share != "sums" or not evaluation.evaluates_at_end:
        raise RefusalError(
            f"{site.name} sums nothing of its test cases at the end of the run: by its plan "
            "nothing is asked for then, or not in a sum."
        )
    return open_final_sum(site, round_number)


def _final_bounds(run: RunContext, info: DatasetInfo) -> Bounds:
    most = max((run.counts.cases(site, "test") for site in run.counts.sites), default=0)
    return statistics_bounds(final_task(info, run.experiment.evaluation).summed_form, most)


def _statistics_bounds(run: RunContext, info: DatasetInfo) -> Bounds:
    noise = CountNoise.of(scheme_of(run.experiment, info), run.experiment)
    return noise.bounds(most_cases(run.counts))


def most_cases(counts: CaseCounts) -> int:
    """How many training cases the largest site has, which everyone knows."""
    return max(counts.cases(site, "train") for site in counts.sites)


def _counted_release(_: Site, state: RoundState) -> str:
    # Counts follow from the cases alone; with noise each run's are a release of their own.
    return weights_digest(state.weights)


EVALUATION = NamedSum(
    "evaluation",
    SPLITS[1:],
    _open_evaluation,
    _evaluation_bounds,
    _evaluated_model,
    predicted=SPLITS[1:],
)
FINAL = NamedSum(
    "final", SPLITS[2:], _open_final, _final_bounds, _evaluated_model, predicted=SPLITS[2:]
)
STATISTICS = NamedSum(
    "statistics", SPLITS[:1], open_statistics, _statistics_bounds, _counted_release
)
NAMED_SUMS = {known.name: known for known in (EVALUATION, STATISTICS, FINAL)}


def same_predictions(named: NamedSum) -> list[NamedSum]:
    """The sums, other than this one, that tell what a model makes of some of the same cases."""
    return [
        other
        for other in NAMED_SUMS.values()
        if other is not named and {*other.predicted} & {*named.predicted}
    ]


def named_sum(name: str) -> NamedSum:
    """The sum of a name.

    Raises:
        RefusalError: there is none.
    """
    if name not in NAMED_SUMS:
        raise RefusalError(f"There is no sum {name!r:.80} that sites would help to open.")
    return NAMED_SUMS[name]


def open_sum(site: Site, round_number: int, name: str = "") -> SiteRound:
    """At a site, what a sum of a round is asked for by: of the updates, or a named one.

    Raises:
        ConsiliumError: nothing asks for it that counts, or not of exactly the sites that follow
            from the plan of the run.
    """
    if not name:
        return open_round(site, round_number)
    opened = named_sum(name).open(site, round_number)
    if list(opened.selected) != list(site.run.sites):
        raise RefusalError(
            f"{site.name} does nothing for the sum {name} in round {round_number}: it is asked for "
            f"of {', '.join(opened.selected) or 'nobody':.200}, and the run has "
            f"{', '.join(site.run.sites):.200}."
        )
    return replace(opened, topic=replace(opened.topic, sum=name))


def senders(run: RunContext, topic: Topic) -> list[str]:
    """Who sends to a sum: the sites selected, or of a named one all sites of the run."""
    return list(run.sites) if topic.sum else run.selected(topic.round)


def weights(run: RunContext, topic: Topic) -> dict[str, float]:
    """The weight of each sender's payload: its share of the cases; in a named sum all are alike."""
    if topic.sum:
        return dict.fromkeys(run.sites, 1 / len(run.sites))
    return run.weights(topic.round)


def payload_length(site: Site, opened: SiteRound) -> int:
    """How many numbers the payload of a sum has, as a site works it out."""
    if not opened.topic.sum:
        return opened.context.sum_length
    bounds = named_sum(opened.topic.sum).bounds(site.run, worker_context(site).info)
    return bounds.digits(base_of(site.run.experiment))


def base_of(experiment: Experiment) -> int:
    """The base of the digits that a named sum of a run is added in."""
    return digit_base(experiment.compression.bits or PLAIN_BITS)


def refuse_sum(
    run: RunContext, topic: Topic, site: str, responded: Sequence[str]
) -> frozenset[str]:
    """Refuse to open a sum that is not one of enough of its senders; return who is in it.

    Args:
        run: the run.
        topic: of the sum.
        site: who refuses.
        responded: the sites that are said to be in the sum.

    Raises:
        ConsiliumError: it is not; or so few of the sites in it have cases that it would be the
            numbers of those.
    """
    protection: Protection = run.experiment.protection
    counted = protection.refuse_too_few(site, topic.round, senders(run, topic), responded)
    named = named_sum(topic.sum) if topic.sum else None
    refuse_thin(run.experiment, run.counts, named, sorted(counted))
    return counted


def refuse_few_parties(run: RunContext, sites: Sequence[str]) -> None:
    """Refuse, at the coordinator, a sum of fewer sites of a consortium than its runner asks for.

    ``sites`` are those that have sent something for it, or whose payloads count.

    Raises:
        TooFewSitesError: they are fewer, or have fewer training cases.
    """
    runner = run.experiment.runner
    if not isinstance(runner, Parties):
        return
    cases = sum(run.counts.cases(site, "train") for site in sites)
    if len(sites) < runner.quorum:
        raise TooFewSitesError(
            f"{len(sites)} sites have sent something that counts, and runner.quorum is "
            f"{runner.quorum}"
        )
    if cases < runner.min_cases:
        raise TooFewSitesError(
            f"the sites that have sent something that counts have {cases} training cases, and "
            f"runner.min_cases is {runner.min_cases}"
        )


def refuse_thin(
    experiment: Experiment, counts: CaseCounts, named: NamedSum | None, sites: Sequence[str]
) -> None:
    """Refuse a sum in which fewer sites have cases of a split than have to be in a sum.

    Everyone knows how many cases each site has, so that zeros of a site without any hide nobody.
    How many it has otherwise is not looked at: what one case has made of an update or a count is in
    the sum beside what the other sites have. But a sum of updates is weighted by cases, and nearly
    the update of a site that has nearly all of them.

    Args:
        experiment: of the run.
        counts: how many cases each site has.
        named: the sum; ``None`` for that of updates.
        sites: those in it.

    Raises:
        RefusalError: a split has some cases, and at fewer sites.
    """
    fewest = getattr(experiment.protection, "min_sites", 1)
    splits, name = (named.splits, named.name) if named else (SPLITS[:1], "of updates")
    for split in splits:
        # Who trains on the cases of all has some wherever anybody has.
        having = [site for site in sites if site == POOLED or counts.cases(site, split)]
        if 0 < len(having) < fewest:
            raise TooFewSitesError(
                f"The sum {name} is refused: only {', '.join(having)} of the {len(sites)} "
                f"sites in it have cases of the {split} split, fewer than protection.min_sites="
                f"{fewest}, so it would tell of each what the sum is to hide. Give more sites such "
                "cases; or, of an evaluation, set another evaluation.share."
            )
