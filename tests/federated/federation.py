"""A small federation on disk whose stages a test calls itself, as a coordinator could."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from federated.configuration.load import load_experiment
from federated.data.load import load, locate
from federated.data.partitioning import partition_dataset
from federated.exchange import kinds
from federated.exchange.plan import RunPlan
from federated.files import read_json, write_json
from federated.run.folder import RunFolder
from federated.run.runs import new_run
from federated.run.update_files import read_update
from federated.secrets.home import private_folder
from federated.stages.coordinator import begin_round
from federated.stages.local_train import train_site
from federated.stages.privacy_report import report_site
from federated.update import ModelUpdate
from tests.federated.staged_run import Staged, begin_with, forget_processes

SITE = "site-00"
# SGD without momentum: the update is a sum of gradients, as an attack wants it.
PLAIN = [
    *("training.optimizer=sgd", "training.momentum=0", "training.lr=0.01", "training.augment=none"),
    *("sites.partition=iid", "strategy.name=fedavg", "model.name=small_cnn"),
]


def begin(*overrides: str, run_id: str | None = None, excluded: tuple[str, ...] = ()) -> Staged:
    """A run before its first round, in the working folder.

    ``run_id`` names it anew. If there is a run of that name the sites keep their homes, and the
    coordinator its key, and all else of that run is gone.
    """
    experiment = load_experiment("tiny", [*PLAIN, *overrides])
    folder = new_run(Path("runs"), experiment)
    if run_id:
        target = RunFolder(folder.root.with_name(run_id))
        for own in ("sites", "coordinator/identity.key"):
            if (target.root / own).exists():
                private_folder((folder.root / own).parent, folder.root)
                (target.root / own).rename(folder.root / own)
        shutil.rmtree(target.root, ignore_errors=True)
        folder = RunFolder(folder.root.rename(target.root))
    located = locate(experiment.data)
    dataset = load(located, experiment.data)
    partition = partition_dataset(dataset, experiment.sites, experiment.seed)
    return begin_with(folder, experiment, located, dataset, partition, excluded)


def edit(run: Staged, **sections: Mapping[str, Any]) -> None:
    """Propose another configuration in another attempt at a run, as a coordinator could."""
    path = run.folder.config_path
    config = read_json(path)
    for name, values in sections.items():
        config[name] = dict(values) if "name" in values else config[name] | values
    write_json(path, config)
    run.resume()


def signed_plan(run: Staged) -> RunPlan:
    """The plan of a run that the coordinator has signed in the present attempt."""
    site = run.site(SITE)
    before = replace(site.start, plan="")
    return RunPlan.from_bytes(site.from_coordinator(before, kinds.RUN_PLAN, kinds.MOST_PLAN).body)


def sign_other_plan(run: Staged, **changes: Any) -> None:
    """Sign a plan, in another attempt at a run, that does not follow from what sites answered.

    It is what was proposed in that attempt, but for the releases, which no proposal has.
    """
    plan = replace(signed_plan(run), **changes)
    attempt = run.coordinator.start.attempt + 1
    write_json(run.folder.coordinator_path / "attempt.json", attempt)
    before = replace(run.coordinator.start, attempt=attempt, plan="")
    send = run.coordinator.mailbox.send
    send(before, kinds.PROPOSAL, replace(plan, releases={}).to_bytes())
    signed = send(before, kinds.RUN_PLAN, plan.to_bytes()).signed
    run.coordinator = replace(
        run.coordinator, start=replace(before, plan=signed.digest), published={}
    )


def sent(run: Staged, round_number: int = 1, site: str = SITE) -> ModelUpdate:
    """Ask a site to train, in a process that has not seen the run before; what it sends."""
    forget_processes()
    begin_round(run.coordinator, round_number)
    train_site(run.call(site), round_number)
    return read_update(run.store(site).work_path(round_number, "update"))


def entries(run: Staged, site: str = SITE) -> int:
    """How many releases of the run a site's ledger has."""
    forget_processes()
    return len(report_site(run.call(site))["releases"])


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Of the angle between two vectors, in float64."""
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def unrelated(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two vectors are no more alike than independent ones are; wrong once in 10^9 times."""
    return abs(cosine(one, other)) < 6 / np.sqrt(one.size)
