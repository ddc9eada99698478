"""A site's release in a round: planned before the run, entered in its ledger, then made."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from federated.errors import RefusalError
from federated.exchange.policy_checks import refuse_beyond_epsilon
from federated.privacy import Private
from federated.privacy.accounting import Release
from federated.privacy.noise import SecretRandom, fresh_random, seeded_random
from federated.privacy.spending import SEEDED
from federated.provenance import code_digest
from federated.rounds.context import RoundContext
from federated.rounds.local_training import PrivateRound
from federated.site.holder import holder_ledger
from federated.site.releases import Kind, Sources
from federated.stages.entering import enter, numbers_kept, training_records
from federated.stages.site import Site
from federated.strategies.base import MeanNoise

# The name in the ledger of a site's style: the mean over its cases, with Gaussian noise.
STYLE_MECHANISM = "gaussian mean of styles"


def begin_release(
    site: Site,
    context: RoundContext,
    records: Sequence[str],
    clip: float | None,
) -> PrivateRound | None:
    """Enter what the site is about to release of ``records``; ``None`` without privacy.

    Without privacy it is entered too, as a release without a bound. The noise is new every time, so
    whoever begins a release twice has made two.

    Args:
        site: who releases.
        context: the round.
        records: the digests of the records that it trains on.
        clip: the present clipping norm, if it changes; ``None`` for the configured one.

    Raises:
        ConsiliumError: it would pass the site's budget or what its policy allows in a run, or the
            ledger is not whole.
    """
    privacy, round_number = context.experiment.privacy, context.round_number
    if not isinstance(privacy, Private):
        enter(site, round_number, records)
        return None
    _refuse_missing_rounds(site, round_number)
    release = context.run.release(site.name, round_number)
    norm = privacy.clip if clip is None else clip
    before = [
        Release(entry.noise_multiplier, entry.sampling_rate, entry.steps)
        for entry in holder_ledger(context.experiment).spendings(site.run.run_id)
        if entry.trains and entry.site == site.name
    ]
    with numbers_kept(site):
        refuse_beyond_epsilon(site.home.policy(), site.name, [*before, release], privacy.delta)
    enter(
        site,
        round_number,
        records,
        mechanism=privacy.mechanism + (SEEDED if privacy.noise == "seeded" else ""),
        unit=privacy.unit or "record",
        release=release,
        clip=norm,
    )
    site.store.note_entered(round_number)
    return PrivateRound(privacy, release, norm, _noise_source(context, privacy, site.name))


def _refuse_missing_rounds(site: Site, round_number: int) -> None:
    """Refuse to go on where the ledger is not the one that the run was begun with.

    Its ε would be that of the last rounds alone.

    Raises:
        RefusalError: a round that the site took part in has no entry.
    """
    ledger = holder_ledger(site.run.experiment)
    entries = ledger.spendings(site.run.run_id)
    entered = {entry.round_number for entry in entries if entry.trains and entry.site == site.name}
    done = site.store.rounds_entered()
    missing = [number for number in done if number < round_number and number not in entered]
    if missing:
        raise RefusalError(
            f"The privacy ledger {ledger.path} has no entry for round {missing[0]} of run "
            f"{site.run.run_id}, in which {site.name} took part, so nothing more is released in "
            "this run. Name the home, or the ledger, that the run was begun with by CONSILIUM_HOME "
            "or CONSILIUM_LEDGER, or start a new run."
        )


def release_sources(
    site: Site,
    context: RoundContext,
    records: Sequence[str],
    kind: Kind,
    clip: float | None,
    inputs: Mapping[str, str],
    numbers: Mapping[str, Any] | None = None,
) -> Sources:
    """What a private round's release is computed from.

    Args:
        site: who releases.
        context: the round.
        records: the digests of the records that it trains on.
        kind: the kind of release.
        clip: the present clipping norm, if it changes; ``None`` for the configured one.
        inputs: digests of the arrays that it is computed from.
        numbers: what the stage is given beside the plan and the clipping norm.
    """
    privacy = context.experiment.privacy
    assert isinstance(privacy, Private)
    plan = {
        **asdict(context.run.release(site.name, context.round_number)),
        "clip": privacy.clip if clip is None else clip,
        "mechanism": privacy.mechanism,
        "given": numbers,
    }
    return _sources(site, context.round_number, kind, records, plan, inputs)


def style_sources(site: Site, records: Sequence[str], noise: MeanNoise) -> Sources:
    """What a site's noised style is computed from; the style is asked for with the first round."""
    plan = {**noise.model_dump(), "mechanism": STYLE_MECHANISM}
    return _sources(site, 1, "style", records, plan, {})


def _sources(
    site: Site,
    round_number: int,
    kind: Kind,
    records: Sequence[str],
    plan: Mapping[str, Any],
    inputs: Mapping[str, str],
) -> Sources:
    return Sources(
        kind,
        site.run.run_id,
        site.name,
        round_number,
        site.run.experiment.to_json(),
        site.run.sites,
        tuple(records),
        plan,
        inputs,
        code_digest(),
    )


def begin_style_release(site: Site, noise: MeanNoise) -> SecretRandom:
    """Enter a site's style in its ledger, before round 1; return the stream that its noise is from.

    Raises:
        ConsiliumError: it would pass the site's budget, or the ledger is not whole.
    """
    release = Release(noise.noise_multiplier, sampling_rate=1.0, steps=1)
    enter(
        site,
        0,
        training_records(site),
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
