"""A site's release in a round: planned before the run, entered in its ledger, then made."""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from math import isinf
from pathlib import Path
from typing import Any

from federated.config import Experiment
from federated.data.partition import Partition
from federated.files import read_json
from federated.key_derivation import KEY_BYTES
from federated.optimization import local_work
from federated.privacy import DistributedSiteLevel, Private
from federated.privacy.accounting import Release
from federated.privacy.discrete_gaussian import NoisyGrid
from federated.privacy.ledger import Ledger, Spending, ledger_root, spent
from federated.privacy.noise import SecretRandom, secret_random, seeded_random
from federated.protection.keys import keys_root, refuse_keys_in
from federated.run_folder import RunFolder
from federated.training import MakeGradients
from federated.update import Doubles, Levels, Vector
from federated.worker import worker_context


def site_ledger(experiment: Experiment, data_md5: str, partition: Partition, site: str) -> Ledger:
    """The ledger of a site's training cases: the same in every run and experiment that uses them.

    Simulated sites of another partition hold other cases and have ledgers of their own.
    """
    cases = ",".join(map(str, sorted(partition.sites[site]["train"])))
    name = sha256(f"{data_md5}|{cases}".encode()).hexdigest()[:12]
    return Ledger(ledger_root() / experiment.data.dataset / f"{site}-{name}.jsonl")


def plan_site(run: Path, site: str) -> dict[str, Any]:
    """What a site is to release in every round, and what a person should know of that.

    Raises:
        ConsiliumError: the privacy that is asked for cannot be reached.
    """
    folder = RunFolder(run)
    experiment = folder.experiment()
    privacy = experiment.privacy
    assert isinstance(privacy, Private)
    cases = folder.partition().cases(site, "train")
    steps = local_work(cases, experiment.training, batch_norm=False).steps
    release = privacy.plan(cases, steps, experiment.training.batch_size, experiment.rounds)
    return {**asdict(release), "warnings": privacy.warnings(cases, len(folder.sites()))}


@dataclass(frozen=True)
class PrivateRound:
    """What makes a site's round private, once it is entered in the ledger."""

    privacy: Private
    release: Release
    clip: float
    random: SecretRandom

    def make_gradients(self, cases: int) -> MakeGradients | None:
        """What local training on ``cases`` cases computes its gradients with, if not as usual."""
        if self.privacy.unit != "record":
            return None
        return partial(
            self.privacy.gradients,
            release=self.release,
            cases=cases,
            random=self.random,
            clip=self.clip,
        )

    def protect_update(self, update: Vector) -> tuple[Vector, float]:
        """What the site sends instead of its update, and ``ModelUpdate.below``."""
        return self.privacy.protect_update(update, self.release, self.clip, self.random)


def begin_release(
    folder: RunFolder, site: str, round_number: int, clip: float | None
) -> PrivateRound | None:
    """Enter what the site is about to release in its ledger; ``None`` without privacy.

    ``clip`` is where the clipping norm has got, if it changes.

    Raises:
        ConsiliumError: it would pass the site's budget, or the ledger is not whole.
    """
    context = worker_context(folder.root)
    experiment, privacy = context.experiment, context.experiment.privacy
    if not isinstance(privacy, Private):
        return None
    clip = privacy.clip if clip is None else clip
    planned = planned_release(folder, site)
    release = privacy.of_round(planned, round_number, experiment.rounds)
    ledger = site_ledger(experiment, folder.data().md5, context.partition, site)
    refuse_keys_in(folder.root.parent.parent, ledger.path)
    ledger.spend(
        Spending(
            privacy.mechanism,
            privacy.unit or "record",
            release.noise_multiplier,
            release.sampling_rate,
            release.steps,
            clip,
            round_number,
            folder.run_id,
            experiment.name,
            site,
        )
    )
    random = _noise_source(folder, privacy, site, round_number)
    return PrivateRound(privacy, release, clip, random)


def _noise_source(
    folder: RunFolder, privacy: Private, site: str, round_number: int
) -> SecretRandom:
    """Where a site's noise of a round comes from.

    A release that is made again after a crash is the same one again, with the same noise. Not so
    a sum, to which other sites may have come: it has noise of its own.
    """
    if privacy.noise == "seeded":
        seed = worker_context(folder.root).experiment.seed
        return seeded_random(seed, site, round_number, privacy.mechanism)
    if isinstance(privacy, DistributedSiteLevel):
        return SecretRandom(os.urandom(KEY_BYTES))
    place = keys_root() / "noise"
    refuse_keys_in(folder.root.parent.parent, place)
    return secret_random(place, site, folder.run_id, round_number, privacy.mechanism)


def noisy_grid(folder: RunFolder, length: int) -> NoisyGrid | None:
    """The grid that sites round what they send to, of ``length`` values, and add their noise on.

    ``None`` where a privacy does not do so.

    Raises:
        ConsiliumError: too few bits for this much noise.
    """
    experiment = folder.experiment()
    privacy, bits = experiment.privacy, experiment.compression.bits
    if not isinstance(privacy, DistributedSiteLevel):
        return None
    assert bits is not None
    sites = folder.sites()
    release = planned_release(folder, sites[0])
    return privacy.grid(release, experiment.sites.asked_of(len(sites)), bits, length)


def noise_levels(
    folder: RunFolder, site: str, round_number: int, length: int
) -> Callable[[Doubles], Levels] | None:
    """What makes noised levels of a site's values in a round; ``None`` as :func:`noisy_grid`."""
    grid = noisy_grid(folder, length)
    if grid is None:
        return None
    privacy = folder.experiment().privacy
    assert isinstance(privacy, Private)
    return partial(grid.levels, random=_noise_source(folder, privacy, site, round_number))


def refuse_too_little_noise(folder: RunFolder, arrived: int) -> None:
    """At a site, before it helps to open a sum of ``arrived`` sites.

    Raises:
        ConsiliumError: more have dropped out than its privacy allows.
    """
    experiment = folder.experiment()
    if isinstance(experiment.privacy, DistributedSiteLevel):
        asked = experiment.sites.asked_of(len(folder.sites()))
        experiment.privacy.refuse_too_little_noise(asked, arrived)


def planned_release(folder: RunFolder, site: str) -> Release:
    """What :func:`plan_site` found for a site, before the schedule of its noise."""
    plan = read_json(folder.privacy_path)[site]
    return Release(plan["noise_multiplier"], plan["sampling_rate"], plan["steps"])


def largest_noise(folder: RunFolder) -> float:
    """The largest standard deviation of the noise in a value of any site's update."""
    privacy = folder.experiment().privacy
    if not isinstance(privacy, Private):
        return 0.0
    releases = (planned_release(folder, site) for site in folder.sites())
    planned = max(privacy.update_noise(release, privacy.clip) for release in releases)
    return planned * max(privacy.noise_schedule)


def spent_so_far(folder: RunFolder, site: str) -> float | None:
    """ε of all that a site has released in a run, by RDP, which is quick and an upper bound.

    ``None`` where there is no guarantee.
    """
    privacy, ledger = _privacy_and_ledger(folder, site)
    return _finite(
        spent(ledger.spendings(folder.run_id), privacy.unit or "record", privacy.delta, "rdp")
    )


def _finite(epsilon: float) -> float | None:
    return None if isinf(epsilon) else epsilon


def report_site(run: Path, site: str) -> dict[str, Any]:
    """What a site's ledger says of a run, for the run's summary.

    ``epsilon`` is composed over the run, ``epsilon_ledger`` over everything that was ever released
    of the site's training cases, ``epsilon_per_round`` that of the round with the least noise;
    ``None`` stands for "no guarantee".
    """
    folder = RunFolder(run)
    privacy, ledger = _privacy_and_ledger(folder, site)
    unit, delta, accountant = privacy.unit or "record", privacy.delta, privacy.accountant
    release = planned_release(folder, site)
    own = ledger.spendings(folder.run_id)
    least = sorted(own, key=lambda spending: spending.noise_multiplier)[:1]
    budget = ledger.budgets().get(unit)
    return {
        **{
            key: _finite(spent(spendings, unit, delta, accountant))
            for key, spendings in {
                "epsilon": own,
                "epsilon_per_round": least,
                "epsilon_ledger": ledger.spendings(),
            }.items()
        },
        "budget": budget.epsilon if budget else None,
        "noise_multiplier": release.noise_multiplier,
        "sampling_rate": release.sampling_rate,
        "steps": sum(spending.steps for spending in own),
        "releases": [asdict(spending) for spending in own],
        "head": asdict(ledger.head()),
    }


def summarise_privacy(
    experiment: Experiment, per_site: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The ``privacy`` part of a run's summary; its ε are those of the site that has spent most.

    ``None`` stands for "no guarantee".
    """
    privacy = experiment.privacy
    if not isinstance(privacy, Private):
        empty = ("unit", "delta", "epsilon", "epsilon_per_round", "epsilon_ledger", "accountant")
        return {"name": privacy.name, **dict.fromkeys(empty), "per_site": {}}
    most = {}
    for key in ("epsilon", "epsilon_per_round", "epsilon_ledger"):
        found = [report[key] for report in per_site.values()]
        most[key] = None if None in found else max(found)
    kept = ("epsilon", "epsilon_ledger", "budget", "noise_multiplier", "sampling_rate", "steps")
    return {
        "name": privacy.name,
        "unit": privacy.unit,
        "delta": privacy.delta,
        **most,
        "accountant": privacy.accountant,
        "noise": privacy.noise,
        "missing": privacy.missing if isinstance(privacy, DistributedSiteLevel) else 0,
        "per_site": {site: {key: report[key] for key in kept} for site, report in per_site.items()},
    }


def _privacy_and_ledger(folder: RunFolder, site: str) -> tuple[Private, Ledger]:
    context = worker_context(folder.root)
    privacy = context.experiment.privacy
    assert isinstance(privacy, Private)
    return privacy, site_ledger(context.experiment, folder.data().md5, context.partition, site)
