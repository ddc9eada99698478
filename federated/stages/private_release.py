"""A site's release in a round: planned before the run, entered in its ledger, then made."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from federated.errors import RefusalError
from federated.privacy import Private
from federated.privacy.accounting import Release
from federated.privacy.noise import SecretRandom, fresh_random, seeded_random
from federated.privacy.spending import SEEDED
from federated.provenance import code_digest
from federated.rounds.context import RoundContext, RunContext
from federated.rounds.local_training import PrivateRound
from federated.run.folder import RunFolder
from federated.site.holder import holder_ledger
from federated.site.releases import Kind, Sources
from federated.stages.entering import enter, training_records
from federated.stages.worker import worker_context
from federated.strategies.base import MeanNoise

# The name in the ledger of a site's style: the mean over its cases, with Gaussian noise.
STYLE_MECHANISM = "gaussian mean of styles"


def begin_release(
    folder: RunFolder,
    context: RoundContext,
    site: str,
    records: Sequence[str],
    clip: float | None,
) -> PrivateRound | None:
    """Enter what the site is about to release of ``records``; ``None`` without privacy.

    Without privacy it is entered too, as a release without a bound. The noise is new every time, so
    whoever begins a release twice has made two.

    Args:
        folder: the run's folder.
        context: the round.
        site: who releases.
        records: the digests of the records that it trains on.
        clip: the present clipping norm, if it changes; ``None`` for the configured one.

    Raises:
        ConsiliumError: it would pass the site's budget, or the ledger is not whole.
    """
    privacy, round_number = context.experiment.privacy, context.round_number
    if not isinstance(privacy, Private):
        enter(folder.root, site, round_number, records)
        return None
    _refuse_missing_rounds(folder, site, round_number)
    release = context.run.release(site, round_number)
    norm = privacy.clip if clip is None else clip
    enter(
        folder.root,
        site,
        round_number,
        records,
        mechanism=privacy.mechanism + (SEEDED if privacy.noise == "seeded" else ""),
        unit=privacy.unit or "record",
        release=release,
        clip=norm,
    )
    return PrivateRound(privacy, release, norm, _noise_source(context, privacy, site))


def _refuse_missing_rounds(folder: RunFolder, site: str, round_number: int) -> None:
    """Refuse to go on where the ledger is not the one that the run was begun with.

    Its ε would be that of the last rounds alone.

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
    context: RoundContext,
    site: str,
    records: Sequence[str],
    kind: Kind,
    clip: float | None,
    inputs: Mapping[str, str],
    numbers: Mapping[str, Any] | None = None,
) -> Sources:
    """What a private round's release is computed from.

    Args:
        context: the round.
        site: who releases.
        records: the digests of the records that it trains on.
        kind: the kind of release.
        clip: the present clipping norm, if it changes; ``None`` for the configured one.
        inputs: digests of the arrays that it is computed from.
        numbers: what the stage is given beside the plan and the clipping norm.
    """
    privacy = context.experiment.privacy
    assert isinstance(privacy, Private)
    plan = {
        **asdict(context.run.release(site, context.round_number)),
        "clip": privacy.clip if clip is None else clip,
        "mechanism": privacy.mechanism,
        "given": numbers,
    }
    return _sources(context.run, site, context.round_number, kind, records, plan, inputs)


def style_sources(run: RunContext, site: str, records: Sequence[str], noise: MeanNoise) -> Sources:
    """What a site's noised style is computed from; the style is asked for with the first round."""
    plan = {**noise.model_dump(), "mechanism": STYLE_MECHANISM}
    return _sources(run, site, 1, "style", records, plan, {})


def _sources(
    run: RunContext,
    site: str,
    round_number: int,
    kind: Kind,
    records: Sequence[str],
    plan: Mapping[str, Any],
    inputs: Mapping[str, str],
) -> Sources:
    return Sources(
        kind,
        run.run_id,
        site,
        round_number,
        run.experiment.to_json(),
        run.sites,
        tuple(records),
        plan,
        inputs,
        code_digest(),
    )


def begin_style_release(folder: RunFolder, site: str, noise: MeanNoise) -> SecretRandom:
    """Enter a site's style in its ledger, before round 1; return the stream that its noise is from.

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


def _noise_source(context: RoundContext, privacy: Private, site: str) -> SecretRandom:
    """The stream that the noise of a release is from.

    It is new every time, unless ``privacy.noise`` is ``seeded``.
    """
    if privacy.noise == "seeded":
        seed = context.experiment.seed
        return seeded_random(seed, site, context.round_number, privacy.mechanism)
    return fresh_random()
