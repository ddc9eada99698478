"""What the coordinator does in a round beside adding payloads: choose sites, evaluate, commit."""

from collections.abc import Iterable, Mapping
from typing import Any

from federated.configuration.experiment import Experiment
from federated.data.dataset import DatasetInfo
from federated.data.partition import CaseCounts, Partition
from federated.files import write_json
from federated.learning import task_of
from federated.learning.evaluation import Evaluation
from federated.randomness import numpy_generator
from federated.run.folder import MEMORY_KINDS, MESSAGE_KINDS, RunFolder, memory_round
from federated.run.selection import kept_round
from federated.stages.site import read_predictions
from federated.stages.worker import POOLED
from federated.strategies.base import Participation
from federated.training.optimization import local_work
from federated.training.rule import LocalWork


def choose_sites(experiment: Experiment, sites: list[str], round_number: int) -> list[str]:
    """The sites asked in a round: the configured share of all, at least one, in order."""
    if experiment.strategy.pools_cases:
        return [POOLED]
    count = experiment.sites.asked_of(len(sites))
    rng = numpy_generator(experiment.seed, purpose="participation", round_number=round_number)
    return sorted(rng.choice(sites, size=count, replace=False).tolist())


def training_cases(partition: CaseCounts, site: str, sites: Iterable[str]) -> int:
    """Training cases of a site, or of all ``sites`` for :data:`POOLED`."""
    return sum(partition.cases(one, "train") for one in (sites if site == POOLED else [site]))


def site_weights(partition: CaseCounts | Partition, asked: list[str]) -> dict[str, float]:
    """n_k / Σn over the sites asked, with n_k the training cases of site k."""
    if asked == [POOLED]:
        return {POOLED: 1.0}
    cases = {site: partition.cases(site, "train") for site in asked}
    total = sum(cases.values())
    return {site: count / total for site, count in cases.items()}


def participation(folder: RunFolder, experiment: Experiment, asked: list[str]) -> Participation:
    """Weights and work of the sites asked, and their share of all sites' training cases."""
    partition, sites = folder.case_counts(), folder.sites()
    batch_norm = experiment.model.norm == "batch"
    cases = {site: training_cases(partition, site, sites) for site in asked}
    work: dict[str, LocalWork] = {
        site: local_work(count, experiment.training, batch_norm) for site, count in cases.items()
    }
    everyone = sum(partition.cases(site, "train") for site in sites)
    share = sum(cases.values()) / everyone
    return Participation(site_weights(partition, asked), work, share)


def forget_round(folder: RunFolder, round_number: int, site: str) -> None:
    """Leave a site that has dropped out of a round as it was before: nothing of it was sent."""
    for kind in MEMORY_KINDS:
        folder.memory_path(round_number, site, kind).unlink(missing_ok=True)


def evaluate(
    folder: RunFolder, round_number: int, sites: Iterable[str], info: DatasetInfo
) -> Evaluation:
    """Metrics from what the sites wrote: their predictions, in segmentation their cases' scores.

    In classification the overall metrics need every site's predicted probabilities and labels; a
    federation that does not share those has the per-site ones alone.
    """
    predictions = {site: read_predictions(folder, round_number, site) for site in sites}
    return task_of(info).score(predictions, info)


def commit_round(folder: RunFolder, round_number: int, record: Mapping[str, Any]) -> None:
    """Mark a round as done, then drop what no later round reads.

    The states of the last two rounds stay, that of the round whose model is kept so far, and the
    predictions of the last round.
    """
    write_json(folder.record_path(round_number), record)
    for kind in ("update", "compressed", "payload"):
        for path in folder.round_path(round_number).glob(f"*.{kind}.safetensors"):
            path.unlink()
    for message in MESSAGE_KINDS:
        for path in folder.round_path(round_number).glob(f"*.{message}.json"):
            path.unlink()
    folder.sum_path(round_number).unlink(missing_ok=True)
    folder.roster_path(round_number).unlink(missing_ok=True)
    for path in folder.round_path(round_number - 1).glob("*.predictions.safetensors"):
        path.unlink()
    kept = {
        round_number,
        round_number - 1,
        kept_round(folder.records(), folder.experiment().selection),
    }
    for number in set(range(round_number)) - kept:
        folder.state_path(number).unlink(missing_ok=True)
        folder.server_path(number).unlink(missing_ok=True)
    for site in folder.sites():
        needed = {folder.latest_memory(site, number) for number in kept}
        needed.add(folder.latest_memory(site, round_number, "residual"))
        for path in [*folder.memory_paths(site), *folder.memory_paths(site, "residual")]:
            if path not in needed and memory_round(path) <= round_number:
                path.unlink()
