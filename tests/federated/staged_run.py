"""A federation of two small sites, run by the stage functions themselves: no server, no pool."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from federated.configuration.experiment import Experiment
from federated.configuration.load import resolve
from federated.data.dataset import LocatedFile
from federated.data.load import load, locate
from federated.data.partition import Partition
from federated.data.partitioning import AnyDataset, partition_dataset
from federated.exchange.enrolment import Enrolment
from federated.exchange.message import Topic
from federated.files import write_json
from federated.run.folder import RunFolder
from federated.run.prepared import partition_inputs
from federated.run.runs import new_run
from federated.run.update_files import read_state, write_state
from federated.site.home import SiteHome, SiteRun
from federated.stages import worker
from federated.stages.aggregate import add_payloads, apply_sum, received_sum
from federated.stages.begin import write_initial_state
from federated.stages.compress import compress_site
from federated.stages.coordinator import (
    Coordinator,
    begin_round,
    plan_run,
    propose,
    publish_state,
)
from federated.stages.key_verdict import hear, relay_held
from federated.stages.key_words import Held
from federated.stages.keys import make_key, take_key
from federated.stages.local_train import train_site
from federated.stages.protect import protect_site
from federated.stages.secagg import advertise_site, agree_site, answer_site, share_site
from federated.stages.secagg_messages import Roster, masked_round
from federated.stages.secagg_relay import (
    relay_keys,
    relay_responded,
    relay_shares,
    relay_views,
    unmask_sum,
)
from federated.stages.share_style import share_style
from federated.stages.site import Site, SiteCall, open_site
from federated.stages.take_part import take_part
from federated.weights.build import new_model
from flows.simulation import enrol_parts
from flows.site_stages import call_site

CASES = {"train": 24, "val": 8, "test": 8}
ROUNDS = 2


def small_images(root: Path, cases: Mapping[str, int] = CASES) -> Path:
    """BloodMNIST's schema with a few noisy images; eight classes, by brightness."""
    rng = np.random.default_rng(0)
    path = root / "data" / "medmnist" / "bloodmnist.npz"
    path.parent.mkdir(parents=True)
    arrays = {}
    for split, count in cases.items():
        labels = (np.arange(count) % 8).astype(np.uint8)
        noise = rng.integers(0, 40, (count, 28, 28, 3))
        arrays[f"{split}_images"] = (noise + 25 * labels[:, None, None, None]).astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None]
    np.savez(path, **arrays)
    return root / "data"


def small_experiment(data: Path, /, **sections: Any) -> Experiment:
    """Two sites, two rounds of one epoch of SGD.

    Raises:
        ConsiliumError: the sections do not go together.
    """
    value: dict[str, Any] = {
        "rounds": ROUNDS,
        "data": {"dataset": "bloodmnist", "source": "files", "root": str(data)},
        "sites": {"count": 2, "partition": "iid", "min_cases": 2},
        "training": {"lr": 0.1, "batch_size": 6, "device": "cpu", "optimizer": "sgd"},
        "selection": {"metric": "val/loss", "keep": "last"},
        "compression": {"name": "none"},
        "protection": {"name": "plain"},
        "privacy": {"name": "none"},
        "strategy": {"name": "fedavg"},
        "runner": {"name": "processes"},
    }
    return resolve("small", value | sections, "a test")


@dataclass
class Staged:
    """A run whose stages a test calls itself; ``coordinator`` is that of the present attempt."""

    folder: RunFolder
    coordinator: Coordinator

    @property
    def sites(self) -> list[str]:
        return list(self.coordinator.run.sites)

    @property
    def experiment(self) -> Experiment:
        return self.coordinator.run.experiment

    def home(self, site: str) -> SiteHome:
        return SiteHome(self.folder.home_path(site))

    def store(self, site: str) -> SiteRun:
        return self.home(site).run(self.folder.run_id)

    def call(self, site: str) -> SiteCall:
        attempt = self.coordinator.start.attempt
        folder = self.folder
        return SiteCall(folder.home_path(site), folder.exchange_path, folder.run_id, attempt)

    def site(self, site: str) -> Site:
        return open_site(self.call(site))

    def resume(self) -> None:
        """Begin another attempt at the run, as a resumed run does."""
        self.coordinator = start(self.folder)


def begin(experiment: Experiment, runs: Path, run_id: str | None = None) -> Staged:
    """A run before its first round; ``run_id`` names it anew."""
    folder = new_run(runs, experiment)
    if run_id:
        target = folder.root.with_name(run_id)
        shutil.rmtree(target, ignore_errors=True)
        folder = RunFolder(folder.root.rename(target))
    located = locate(experiment.data)
    dataset = load(located, experiment.data)
    partition = partition_dataset(dataset, experiment.sites, experiment.seed)
    return begin_with(folder, experiment, located, dataset, partition)


def begin_with(
    folder: RunFolder,
    experiment: Experiment,
    located: LocatedFile,
    dataset: AnyDataset,
    partition: Partition,
    excluded: tuple[str, ...] = (),
) -> Staged:
    """A run before its first round, in a folder that is there, on these data."""
    folder.write_partition(partition, partition_inputs(experiment, located, located.md5))
    folder.write_inputs(experiment, located, excluded)
    forget_processes()
    members = enrol_parts(folder, located, partition, folder.sites())
    coordinator = start(folder, members)
    write_initial_state(coordinator, new_model(experiment, dataset.info))
    return Staged(folder, coordinator)


def start(folder: RunFolder, members: Enrolment | None = None) -> Coordinator:
    """An attempt at a run: it is proposed, all sites take part, and its plan is signed."""
    if members is None:
        members = Enrolment.read(folder.coordinator_path / "members.json")
    proposed = propose(folder, members, folder.sites())
    for site in folder.sites():
        take_part(call_site(proposed, site))
    return plan_run(proposed)[0]


def agree_on_key(run: Staged, done: int = 0) -> Held:
    """Have all sites come to the run's key, which the first makes; ``done`` rounds are done."""
    publish_state(run.coordinator, done)
    maker = run.sites[0]
    make_key(run.call(maker), done)
    for site in run.sites[1:]:
        take_key(run.call(site), maker, done)
    held = relay_held(run.coordinator, hear(run.coordinator, maker, run.sites, done))
    write_json(run.folder.context_path, held.public.to_json())
    return held


def forget_processes() -> None:
    """Let this process be one that has not seen any run before."""
    worker.forget()


def train_round(run: Staged, number: int) -> Topic:
    """One round at all sites, up to what they send; the topic of their messages."""
    topic = begin_round(run.coordinator, number)
    if run.experiment.protection.masked:
        _exchange_keys(run, topic)
    for site in run.coordinator.run.selected(number):
        train_site(run.call(site), number)
        compress_site(run.call(site), number)
        protect_site(run.call(site), number)
    return topic


def play_round(run: Staged, number: int) -> None:
    """One round at all sites, up to the state that comes of it."""
    coordinator, sites = run.coordinator, run.coordinator.run.selected(number)
    topic = begin_round(coordinator, number)
    if number == 1 and run.experiment.strategy.introduction() is not None:
        for site in run.sites:
            share_style(run.call(site))
    masked = run.experiment.protection.masked
    roster = _exchange_keys(run, topic) if masked else None
    masks = masked_round(coordinator.run, list(roster.advertised), topic) if roster else None
    for site in sites:
        train_site(run.call(site), number)
        compress_site(run.call(site), number)
        protect_site(run.call(site), number)
    responded = add_payloads(coordinator, topic, sites, masks).responded
    if roster is not None:
        relay_responded(coordinator, topic, roster, responded)
        for site in responded:
            agree_site(run.call(site), number)
        relay_views(coordinator, topic, responded)
        for site in responded:
            answer_site(run.call(site), number)
        unmask_sum(coordinator, topic, roster, responded, responded)
    apply_sum(coordinator, topic, responded, received_sum(coordinator, topic, None))
    record(run, number, responded)


def record(run: Staged, number: int, responded: list[str]) -> None:
    """Mark a round as done."""
    value = {"round": number, "sites": responded, "metrics": {}}
    write_json(run.folder.record_path(number), value)


def leave_model(run: Staged, number: int) -> None:
    """Let the state after a round be that before the first."""
    folder = run.folder
    first = read_state(folder.state_path(0))
    write_state(folder.state_path(number), replace(first, round_number=number))
    folder.server_path(number).write_bytes(folder.server_path(0).read_bytes())


def start_again(run: Staged, number: int) -> None:
    """Let the next round start from the initial weights, as if no round's noise were in them.

    This is another attempt at the run: in the same one sites have another state of that round.
    """
    leave_model(run, number)
    run.resume()


def _exchange_keys(run: Staged, topic: Topic) -> Roster:
    sites = run.coordinator.run.selected(topic.round)
    for site in sites:
        advertise_site(run.call(site), topic.round)
    roster = relay_keys(run.coordinator, topic, sites)
    for site in sites:
        share_site(run.call(site), topic.round)
    return relay_shares(run.coordinator, topic, roster, sites)
