"""Who takes part in a round, and with which weight."""

from collections.abc import Iterable, Sequence

from federated.configuration.experiment import Experiment
from federated.data.partition import CaseCounts, Partition
from federated.randomness import numpy_generator
from federated.strategies.base import Participation
from federated.training.optimization import local_work
from federated.training.rule import LocalWork

# The name of the one who trains on all sites' cases, where the strategy pools them.
POOLED = "pooled"


def select_sites(experiment: Experiment, sites: Sequence[str], round_number: int) -> list[str]:
    """The sites selected in a round, in order: the configured share of all, at least one."""
    if experiment.strategy.pools_cases:
        return [POOLED]
    count = experiment.sites.selected_of(len(sites))
    rng = numpy_generator(experiment.seed, purpose="participation", round_number=round_number)
    return sorted(rng.choice(sites, size=count, replace=False).tolist())


def training_cases(counts: CaseCounts, site: str, sites: Iterable[str]) -> int:
    """The number of training cases of a site, or of all ``sites`` for :data:`POOLED`."""
    return sum(counts.cases(name, "train") for name in (sites if site == POOLED else [site]))


def site_weights(counts: CaseCounts | Partition, selected: Sequence[str]) -> dict[str, float]:
    """The weight n_k / Σn of each selected site, where n_k is its number of training cases."""
    if list(selected) == [POOLED]:
        return {POOLED: 1.0}
    cases = {site: counts.cases(site, "train") for site in selected}
    total = sum(cases.values())
    return {site: count / total for site, count in cases.items()}


def participation(
    experiment: Experiment, counts: CaseCounts, sites: Sequence[str], responded: Sequence[str]
) -> Participation:
    """The weights and the work of the sites that responded, and their share of all cases."""
    batch_norm = experiment.model.norm == "batch"
    cases = {site: training_cases(counts, site, sites) for site in responded}
    work: dict[str, LocalWork] = {
        site: local_work(count, experiment.training, batch_norm) for site, count in cases.items()
    }
    everyone = sum(counts.cases(site, "train") for site in sites)
    share = sum(cases.values()) / everyone
    return Participation(site_weights(counts, responded), work, share)
