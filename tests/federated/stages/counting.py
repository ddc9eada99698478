"""A secure sum of the counts of three sites, stage by stage as a coordinator calls them."""

from pathlib import Path
from typing import Any

from federated.configuration.experiment import Experiment
from federated.data.dataset import DatasetInfo
from federated.data.load import load, locate
from federated.data.partitioning import partition_dataset
from federated.exchange.enrolment import Enrolment
from federated.exchange.message import Topic
from federated.planning.fingerprint import Fingerprint
from federated.run.folder import RunFolder
from federated.run.prepared import partition_inputs
from federated.run.runs import new_run
from federated.stages.aggregate import add_payloads
from federated.stages.coordinator import Coordinator, ask_statistics, plan_run, propose
from federated.stages.secagg_messages import Roster, masked_round
from federated.stages.secure_sum import digits_in
from federated.stages.statistics import (
    begin_statistics,
    collect_statistics,
    count_site,
)
from federated.stages.take_part import take_part
from federated.stages.worker import worker_context
from flows.simulation import enrol_parts
from flows.site_stages import call_site
from tests.federated.staged_run import Staged, forget_processes, small_experiment
from tests.federated.stages.lies import SITE
from tests.federated.stages.summing import exchange, open_up, tell_key

THREE = {
    "sites": {"count": 3, "partition": "iid", "min_cases": 2},
    "compression": {"name": "none", "bits": 8},
}
NOISE = {"statistics": {"epsilon": 2.0, "delta": 1e-4}}


class Counting(Staged):
    """A run for statistics whose stages a test calls itself."""

    def resume(self) -> None:
        """Begin another attempt at the run."""
        members = Enrolment.read(self.folder.coordinator_path / "members.json")
        self.coordinator = planned(self.folder, members)
        tell_key(self)


def planned(folder: RunFolder, members: Enrolment) -> Coordinator:
    proposed = propose(folder, members, folder.sites(), "statistics")
    for site in folder.sites():
        take_part(call_site(proposed, site))
    coordinator = plan_run(proposed)[0]
    begin_statistics(coordinator)
    return coordinator


def begin_counting(place: Path, data: Path, name: str, /, **sections: Any) -> Counting:
    """A run for statistics of three sites; ``sections["protection"]`` has other values of that."""
    own = {"name": name} | sections.pop("protection", {})
    return begin_with_experiment(place, small_experiment(data, **THREE | sections, protection=own))


def begin_with_experiment(place: Path, experiment: Experiment) -> Counting:
    """A run for statistics of an experiment's sites, with their key where they have one."""
    folder = new_run(place, experiment)
    located = locate(experiment.data)
    dataset = load(located, experiment.data)
    partition = partition_dataset(dataset, experiment.sites, experiment.seed)
    folder.write_partition(partition, partition_inputs(experiment, located, located.md5))
    folder.write_inputs(experiment, located, ())
    forget_processes()
    members = enrol_parts(folder, located, partition, folder.sites())
    run = Counting(folder, planned(folder, members))
    tell_key(run)
    return run


def info_of(run: Staged) -> DatasetInfo:
    return worker_context(run.site(SITE)).info


def add_counts(run: Staged, topic: Topic, roster: Roster | None, sites: list[str]) -> list[str]:
    """Add the parts of some sites; those that count."""
    masks = masked_round(run.coordinator.run, list(roster.advertised), topic) if roster else None
    length = digits_in(run.coordinator, topic, info_of(run))
    return add_payloads(run.coordinator, topic, sites, masks, length).responded


def opened_counts(run: Staged, sites: list[str] | None = None) -> tuple[Topic, list[str]]:
    """Everything up to the opened sum; of some sites alone, as if the others had dropped out."""
    topic = ask_statistics(run.coordinator)
    roster = exchange(run, topic)
    for site in run.sites:
        count_site(run.call(site), 1)
    responded = add_counts(run, topic, roster, sites or run.sites)
    open_up(run, topic, roster, responded)
    return topic, responded


def counted(run: Staged, sites: list[str] | None = None) -> Fingerprint:
    """What the coordinator makes of the opened sum."""
    topic, responded = opened_counts(run, sites)
    return collect_statistics(run.coordinator, topic, info_of(run), responded, responded[0])
