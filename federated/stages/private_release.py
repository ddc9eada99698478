"""A site's release in a round: planned before the run, entered in its ledger, then made."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from federated.data.cases import Cases
from federated.data.records import identities
from federated.errors import RefusalError
from federated.files import read_json
from federated.privacy import DistributedSiteLevel, Private
from federated.privacy.accounting import Release
from federated.privacy.discrete_gaussian import NoisyGrid
from federated.privacy.noise import SecretRandom, fresh_random, seeded_random
from federated.privacy.patients import patient_warnings
from federated.privacy.spending import SEEDED
from federated.provenance import code_digest
from federated.run.folder import RunFolder
from federated.site.holder import holder_ledger
from federated.site.releases import Kind, Sources
from federated.stages.entering import enter, refuse_evaluation, training_records
from federated.stages.worker import site_cases, worker_context
from federated.strategies.resfim.strategy import StyleNoise
from federated.training.loop import MakeGradients
from federated.training.optimization import local_work
from federated.update import Vector

# A site's style in the ledger: the mean over its cases, with Gaussian noise.
STYLE_MECHANISM = "gaussian mean of styles"


def plan_site(run: Path, site: str) -> dict[str, Any]:
    """What a site is to release in every round, and what a person should know of that.

    Raises:
        ConsiliumError: the privacy that is asked for cannot be reached, or a budget does not allow
            that the site's cases are evaluated.
    """
    refuse_evaluation(run, site)
    folder = RunFolder(run)
    experiment = folder.experiment()
    privacy = experiment.privacy
    assert isinstance(privacy, Private)
    cases = folder.case_counts().cases(site, "train")
    steps = local_work(cases, experiment.training, batch_norm=False).steps
    release = privacy.plan(cases, steps, experiment.training.batch_size, experiment.rounds)
    warnings = privacy.warnings(cases, len(folder.sites()))
    patients = worker_context(run).cases.patients(site, "train")
    planned = [
        privacy.of_round(release, n + 1, experiment.rounds) for n in range(experiment.rounds)
    ]
    warnings += patient_warnings(privacy, site, planned, patients)
    return {**asdict(release), "warnings": warnings}


@dataclass(frozen=True)
class PrivateRound:
    """What makes a site's round private, once it is entered in the ledger."""

    privacy: Private
    release: Release
    clip: float
    random: SecretRandom

    def make_gradients(self, cases: Cases) -> MakeGradients | None:
        """What local training on these cases computes its gradients with, if not as usual."""
        if self.privacy.unit != "record":
            return None
        return partial(
            self.privacy.gradients,
            release=self.release,
            cases=identities(cases.records),
            random=self.random,
            clip=self.clip,
        )

    def protect_update(self, update: Vector) -> tuple[Vector, float]:
        """What the site sends instead of its update, and ``ModelUpdate.below``."""
        return self.privacy.protect_update(update, self.release, self.clip, self.random)


def begin_release(
    folder: RunFolder, site: str, round_number: int, clip: float | None
) -> PrivateRound | None:
    """Enter what the site is about to release in the ledger; ``None`` without privacy.

    Without privacy it is entered too, as a release without a bound. ``clip`` is where the clipping
    norm has got, if it changes. The noise is new every time, so whoever begins a release twice has
    made two.

    Raises:
        ConsiliumError: it would pass the site's budget, or the ledger is not whole.
    """
    privacy = worker_context(folder.root).experiment.privacy
    records = training_records(folder.root, site)
    if not isinstance(privacy, Private):
        enter(folder.root, site, round_number, records)
        return None
    _refuse_missing_rounds(folder, site, round_number)
    release, clip = _planned_round(folder, privacy, site, round_number, clip)
    enter(
        folder.root,
        site,
        round_number,
        records,
        mechanism=privacy.mechanism + (SEEDED if privacy.noise == "seeded" else ""),
        unit=privacy.unit or "record",
        release=release,
        clip=clip,
    )
    random = _noise_source(folder, privacy, site, round_number)
    return PrivateRound(privacy, release, clip, random)


def _refuse_missing_rounds(folder: RunFolder, site: str, round_number: int) -> None:
    """Refuse to go on where the ledger is not the one that the run was begun with: its epsilon
    would be that of the last rounds alone.

    Raises:
        ConsiliumError: a round that the site took part in has no entry.
    """
    ledger = holder_ledger(worker_context(folder.root).experiment)
    entries = ledger.spendings(folder.run_id)
    entered = {entry.round_number for entry in entries if entry.trains and entry.site == site}
    done = [r["round"] for r in folder.records() if site in r["sites"]]
    missing = [number for number in done if number < round_number and number not in entered]
    if missing:
        raise RefusalError(
            f"The privacy ledger {ledger.path} has no entry for round {missing[0]} of run "
            f"{folder.run_id}, in which {site} took part, so nothing more is released in this run. "
            "Name the home, or the ledger, that the run was begun with by CONSILIUM_HOME or "
            "CONSILIUM_LEDGER, or start a new run."
        )


def release_sources(
    folder: RunFolder,
    site: str,
    round_number: int,
    kind: Kind,
    clip: float | None,
    inputs: Mapping[str, str],
    numbers: Mapping[str, Any] | None = None,
) -> Sources:
    """What a private round's release is computed from: ``inputs`` are digests of arrays.

    ``numbers`` are what the stage is given beside the plan and the clipping norm.
    """
    privacy = worker_context(folder.root).experiment.privacy
    assert isinstance(privacy, Private)
    release, clip = _planned_round(folder, privacy, site, round_number, clip)
    plan = {**asdict(release), "clip": clip, "mechanism": privacy.mechanism, "given": numbers}
    return _sources(folder, site, round_number, kind, plan, inputs)


def style_sources(folder: RunFolder, site: str, noise: StyleNoise) -> Sources:
    """What a site's noised style is computed from. It is asked for with the first round."""
    plan = {**noise.model_dump(), "mechanism": STYLE_MECHANISM}
    return _sources(folder, site, 1, "style", plan, {})


def _sources(
    folder: RunFolder,
    site: str,
    round_number: int,
    kind: Kind,
    plan: Mapping[str, Any],
    inputs: Mapping[str, str],
) -> Sources:
    context = worker_context(folder.root)
    return Sources(
        kind,
        folder.run_id,
        site,
        round_number,
        context.experiment.to_json(),
        context.sites,
        site_cases(folder.root, site, "train").records,
        plan,
        inputs,
        code_digest(),
    )


def _planned_round(
    folder: RunFolder, privacy: Private, site: str, round_number: int, clip: float | None
) -> tuple[Release, float]:
    """What a round releases by the plan and its schedule, and the clipping norm it begins with."""
    rounds = worker_context(folder.root).experiment.rounds
    release = privacy.of_round(planned_release(folder, site), round_number, rounds)
    return release, privacy.clip if clip is None else clip


def begin_style_release(folder: RunFolder, site: str, noise: StyleNoise) -> SecretRandom:
    """Enter a site's style in its ledger, before round 1; return where its noise comes from.

    Raises:
        ConsiliumError: it would pass the site's budget, or the ledger is not whole.
    """
    release = Release(noise.noise_multiplier, sampling_rate=1.0, steps=1)
    enter(
        folder.root,
        site,
        0,
        training_records(folder.root, site),
        mechanism=STYLE_MECHANISM,
        release=release,
        clip=noise.clip,
    )
    return fresh_random()


def _noise_source(
    folder: RunFolder, privacy: Private, site: str, round_number: int
) -> SecretRandom:
    """Where the noise of a release comes from: new every time, unless it is to be ``seeded``."""
    if privacy.noise == "seeded":
        seed = worker_context(folder.root).experiment.seed
        return seeded_random(seed, site, round_number, privacy.mechanism)
    return fresh_random()


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
