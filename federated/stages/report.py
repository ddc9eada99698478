"""report: what a site tells of the stages that it has done, and what the coordinator takes of it.

A site tells of its stages in a signed message, as all that it tells. It goes with what the site
sends anyway: one report after training, of local-train, compress and protect together, one after
its evaluation, and one for each stage in which it helps to open a sum. A report that is missing or
refused costs the record its numbers, and nothing else: the site's part of the round stands.
"""

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, replace

from cachetools import LRUCache, cached

from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.files import append_line
from federated.privacy import Private
from federated.privacy.accounting import Release, epsilon
from federated.rounds.context import RunContext, sum_length
from federated.rounds.participation import training_cases
from federated.run.report import MOST_REPORT, Known, pack_report, read_report
from federated.run.result import TOLD, Outcome, Stage, StageResult, Unreported
from federated.run.update_files import most_payload, read_layout
from federated.stages.coordinator import Coordinator
from federated.stages.site import Site


def tell(site: Site, round_number: int, result: StageResult, name: str = "") -> None:
    """Tell the coordinator of a stage at a site, with those before it of which it is yet to know.

    ``name`` is that of the sum that the stage is for; it is empty for that of the updates.

    Of a stage of a private run neither times nor memory are told, and the loss of a training only
    where the coordinator sees the site's update too (:attr:`RunContext.tells_losses`). Where the
    site's policy does not let it send more in the run nothing is told, and the stage is done all
    the same.
    """
    if site.run.is_private:
        result = replace(result, started=None, ended=None, peak_rss_mb=None)
    if not site.run.tells_losses:
        result = replace(result, loss=None)
    untold = site.store.untold_path
    when = [round_number, site.start.attempt]
    if result.stage not in TOLD:
        append_line(untold, json.dumps([*when, asdict(result)]))
        return
    stages = TOLD[result.stage]
    known = {**(_untold(site, when) if len(stages) > 1 else {}), result.stage: result}
    body = pack_report([known[stage] for stage in stages if stage in known])
    if len(stages) > 1:
        untold.unlink(missing_ok=True)
    topic, kind = replace(site.topic(round_number), sum=name), kinds.REPORT + result.stage
    if site.sent_before(topic, kind, MOST_REPORT) is not None:
        # The stage is done again: of its times there would be two reports.
        return
    # What is not sent is missing at the coordinator, which says so.
    with suppress(RefusalError):
        site.to_coordinator(topic, kind, body)


def _untold(site: Site, when: list[int]) -> dict[Stage, StageResult]:
    """What a site has noted of stages of this attempt at a round; done twice, the last counts."""
    path, found = site.store.untold_path, {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        # Of a line that a crash has cut short nothing is known.
        with suppress(ValueError, TypeError):
            number, attempt, value = json.loads(line)
            if [number, attempt] == when:
                result = StageResult(**value)
                found[result.stage] = result
    return found


def reports(
    coordinator: Coordinator,
    round_number: int,
    stage: Stage,
    sites: Iterable[str],
    name: str = "",
) -> list[Outcome]:
    """What sites tell of a stage that they have done, and of those before it that it tells of.

    Args:
        coordinator: the coordinator.
        round_number: the round.
        stage: the stage after which the sites have told.
        sites: those that have done it.
        name: of the sum that the stage was for; empty for that of the updates.

    Returns:
        The results of each site; or, where they are missing or refused, why. What is refused has a
        line in the audit log, ``unreported``.
    """
    found: list[Outcome] = []
    for site in sites:
        try:
            found += _report(coordinator, round_number, stage, site, name)
        except ConsiliumError as error:
            run, said = coordinator.run.run_id, str(error)
            coordinator.mailbox.audit.add(
                "unreported", run=run, round=round_number, sender=site, said=said
            )
            found.append(Unreported(site, TOLD[stage], said))
    return found


def _report(
    coordinator: Coordinator, round_number: int, stage: Stage, site: str, name: str
) -> list[StageResult]:
    run, topic = coordinator.run, replace(coordinator.topic(round_number), sum=name)
    message = coordinator.mailbox.receive(topic, kinds.REPORT + stage, site, MOST_REPORT)
    known = Known(
        site,
        TOLD[stage],
        coordinator.begun.get(round_number, 0.0),
        time.time(),
        run.is_private,
        run.tells_losses,
        training_cases(run.counts, site, run.sites),
        _most_bytes(coordinator),
        most_epsilon(run, site, topic.attempt),
    )
    return read_report(message.body, known)


_most: LRUCache[str, int] = LRUCache(maxsize=8)


@cached(_most, key=lambda coordinator: str(coordinator.folder.root))
def _most_bytes(coordinator: Coordinator) -> int:
    """How many bytes a site can send, or be sent, in a stage of a run.

    That is a payload or an evaluation, or what all sites tell each other beside their payloads.
    """
    run, number = coordinator.run, max(coordinator.published)
    length = sum_length(run.experiment, read_layout(coordinator.folder.state_path(number), number))
    payload = max(most_payload(length).most, kinds.MOST_EVALUATION)
    return payload + kinds.most_bundle(len(run.sites), kinds.MOST_SMALL)


def most_epsilon(run: RunContext, site: str, attempts: int) -> float | None:
    """The largest ε, by RDP, that a site can spend in a run by its plan; ``None`` for no ε.

    A round that is begun anew is another release, so that each attempt may have all rounds.
    """
    release = run.planned.get(site)
    if not isinstance(run.experiment.privacy, Private) or release is None:
        return None
    return _composed(run, release, attempts)


_composed_of: LRUCache[object, float] = LRUCache(maxsize=1024)


@cached(_composed_of, key=lambda run, *given: (run.experiment, *given))
def _composed(run: RunContext, release: Release, attempts: int) -> float:
    experiment = run.experiment
    privacy, rounds = experiment.privacy, experiment.rounds
    assert isinstance(privacy, Private)
    each = [privacy.of_round(release, number, rounds) for number in range(1, rounds + 1)]
    introduction = experiment.strategy.introduction()
    noise = introduction.noise if introduction else None
    if noise is not None:
        each.append(Release(noise.noise_multiplier, sampling_rate=1.0, steps=1))
    total = [replace(one, steps=one.steps * attempts) for one in each]
    return epsilon(total, privacy.delta, "rdp")
