"""Whose training case was this? The attack on plain updates, on their sum, and under privacy.

    CONSILIUM_DATA=FOLDER python benchmarks/membership.py adrenal

All sites train one round from the same initial weights. For each target site the attacker scores
every training case of the federation by its share in what was seen (membership.py): the target's
update, or the sum of all. The AUC of telling the target's cases from the others', within classes,
is meaned over sites. 0.5 is chance.
"""

import argparse
from collections.abc import Sequence
from functools import partial

import numpy as np
from membership_attack import advantage, shares
from rich.console import Console
from rich.table import Table

from federated.configuration.experiment import Experiment
from federated.configuration.load import load_experiment
from federated.data.cases import LabelledImages
from federated.data.label_partition import partition_labels
from federated.data.load import load, locate
from federated.data.records import identities
from federated.learning.classification import make_loss
from federated.privacy import DPSGD, Private, SiteLevel
from federated.privacy.noise import seeded_random
from federated.training.loop import Turn, place, train
from federated.training.optimization import local_work
from federated.training.rule import LocalRule
from federated.update import Layout, Vector
from federated.weights.build import new_model


class Federation:
    """An experiment's sites, and the updates of their first round."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        located = locate(experiment.data)
        self.source = located.source
        self.dataset = load(located, experiment.data)
        self.partition = partition_labels(self.dataset.labels, experiment.sites, experiment.seed)
        self.model = new_model(experiment, self.dataset.info)
        self.layout = Layout.of(self.model)
        self.start = self.layout.flatten(self.model)
        place(self.model, next(self.model.parameters()).device)

    def update(self, site: str, privacy: Private | None = None) -> Vector:
        """What a site sends after one round, with noise that depends on the seed."""
        experiment = self.experiment
        indices = list(self.partition.sites[site]["train"])
        cases = LabelledImages(
            self.dataset.images["train"][indices], self.dataset.labels["train"][indices]
        )
        make = release = random = None
        if privacy:
            steps = local_work(len(cases), experiment.training, batch_norm=False).steps
            release = privacy.plan(
                len(cases), steps, experiment.training.batch_size, experiment.rounds
            )
            random = seeded_random(experiment.seed, site, 1, privacy.mechanism)
            if privacy.unit == "record":
                make = partial(
                    privacy.gradients,
                    release=release,
                    cases=identities(cases.records),
                    clip=privacy.clip,
                    random=random,
                )
        self.layout.load(self.model, self.start)
        device = next(self.model.parameters()).device
        train(
            self.model,
            cases,
            experiment.training,
            LocalRule(),
            make_loss(cases, experiment.training, self.dataset.info, device),
            Turn(experiment.seed, site, 1, experiment.rounds),
            private=make,
        )
        update = self.layout.flatten(self.model) - self.start
        if privacy:
            update, _ = privacy.protect_update(update, release, privacy.clip, random)
        return update

    def sum_of(self, updates: dict[str, Vector]) -> Vector:
        """What the coordinator learns under SecAgg+ or encryption: Σ n_k Δ_k."""
        cases = {site: self.partition.cases(site, "train") for site in updates}
        return np.sum([cases[s] * update for s, update in updates.items()], axis=0, dtype=float)

    def attack(self, seen: Sequence[Vector]) -> list[float]:
        """The AUC at each target site of what the attacker has ``seen`` of it."""
        self.layout.load(self.model, self.start)
        images, labels = self.dataset.images["train"], self.dataset.labels["train"]
        scores = shares(self.model, seen, images, labels)
        members = [
            np.isin(np.arange(len(labels)), splits["train"])
            for splits in self.partition.sites.values()
        ]
        return [advantage(*pair, labels) for pair in zip(scores, members, strict=True)]


def main() -> None:
    """Attack, and print a row for each protection."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment")
    parser.add_argument("--set", action="append", default=[], help="section.key=value")
    given = parser.parse_args()
    experiment = load_experiment(given.experiment, given.set)
    federation = Federation(experiment)
    sites = list(federation.partition.sites)
    protections: dict[str, Private | None] = {
        "plain": None,
        "site_level, C 7, epsilon 6 a round, delta 1.9e-4": SiteLevel(
            clip=7, epsilon_per_round=6, delta=1.9e-4
        ),
        "dp_sgd, C 1, composed epsilon 8, delta 1e-4": DPSGD(epsilon=8, delta=1e-4),
    }
    table = Table(
        title=f"{experiment.name} ({federation.source}), {len(sites)} sites, seed {experiment.seed}"
    )
    for column in ("the attacker sees", "AUC, mean over sites", "largest"):
        table.add_column(column)
    for name, privacy in protections.items():
        updates = {site: federation.update(site, privacy) for site in sites}
        total = federation.sum_of(updates)
        seen = {"each update": list(updates.values()), "the sum": [total] * len(sites)}
        for what, vectors in seen.items():
            found = federation.attack(vectors)
            table.add_row(f"{what} ({name})", f"{np.mean(found):.3f}", f"{max(found):.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
