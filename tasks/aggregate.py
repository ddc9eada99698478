"""aggregate: the coordinator adds the payloads and makes the next state from their sum."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.errors import ConsiliumError
from federated.exchange.message import Topic
from federated.rounds.sum_limits import ImpossibleSumError
from federated.run.timing import Interval
from federated.stages.aggregate import (
    Added,
    add_payloads,
    decrypt_site,
    hand_sum,
    received_sum,
    refuse_impossible,
    vouch_site,
)
from federated.stages.begun_sums import note_begun
from federated.stages.coordinator import Coordinator, begin_round
from federated.stages.opening import (
    Openings,
    apply_or_lose,
    find_wrong_tags,
    is_enough_without,
    lose_sum,
    unvouched,
)
from federated.stages.secagg_messages import Roster, masked_round
from federated.stages.tag_verdict import ask_proofs
from federated.stages.tags import prove_tags
from tasks.pool import AnyCall, DeadWorkerError, gathered, run_stage, submit_reported, submit_stage


@task(name="plan-round", task_run_name="plan round {round_number}", cache_policy=NO_CACHE)
def plan_round(coordinator: Coordinator, round_number: int, responded: Sequence[str] = ()) -> Topic:
    """Sign the plan of a round, and send it to all sites with what the round starts from.

    Where the round before has no record yet, ``responded`` are in its sum.
    """
    return begin_round(coordinator, round_number, responded)


@dataclass(frozen=True)
class Aggregated:
    """Whose payloads are in the sum, and when they were added.

    ``lost`` says why the round is lost, where the sum is in the clear and no training gives it.
    """

    added: Added
    when: Interval
    lost: str | None = None


@task(name="aggregate", task_run_name="aggregate round {topic.round}", cache_policy=NO_CACHE)
def aggregate(
    coordinator: Coordinator,
    topic: Topic,
    sites: list[str],
    roster: Roster | None,
    length: int | None = None,
) -> Aggregated:
    """Add the payloads of ``sites``; of updates in the clear, write the round's state too.

    Args:
        coordinator: the coordinator.
        topic: what the sites' messages have in common.
        sites: those whose payloads are expected.
        roster: who takes part in a round in which sites mask.
        length: how many numbers each sends to a named sum.
    """
    started = time.time()
    protection, run = coordinator.run.experiment.protection, coordinator.run
    masks = masked_round(run, list(roster.advertised), topic) if roster else None
    added = add_payloads(coordinator, topic, sites, masks, length)
    lost = None
    if not (protection.keyed or protection.masked or topic.sum):
        lost = apply_or_lose(coordinator, topic, added.responded)
    return Aggregated(added, Interval(started, time.time()), lost)


@dataclass(frozen=True)
class Decrypted:
    """What came of opening a sum at its sites.

    Attributes:
        openers: the sites that have opened it, all with the same numbers.
        passed_over: the sites that were to open it and did not, or otherwise than those, with the
            reasons; their updates are in it.
        lost: why nobody opens it, if the round is lost by that.
        faulty: the sites because of which it is lost, as far as they are known, with the reasons.
    """

    openers: tuple[str, ...]
    passed_over: Mapping[str, str]
    lost: str | None = None
    faulty: Mapping[str, str] = field(default_factory=dict)


@task(name="decrypt", task_run_name="decrypt round {topic.round}", cache_policy=NO_CACHE)
def decrypt(
    pool: Executor,
    coordinator: Coordinator,
    calls: Sequence[AnyCall],
    topic: Topic,
    length: int | None = None,
) -> Decrypted:
    """Have the sum of some sites opened at one of them; of updates, write the round's state.

    Before, each of them says that it helps to open this sum and no other. If the first does not
    open it, the sites tell whose tags are wrong; if nobody's are, the next is to open it. So is the
    next where the sum that a site opens is an impossible one, or until as many have opened the same
    as ``protection.openers`` says, or most when all were asked. Who has opened one otherwise than
    it is, is asked last from then on.

    Args:
        pool: what runs the sites' stages.
        coordinator: the coordinator.
        calls: the sites whose payloads are in the sum, in the order in which they are to open it.
        topic: what the messages of the round have in common.
        length: how many numbers each sends to a named sum.

    Raises:
        ConsiliumError: no site has opened the sum, too few are left for another one, or, where
            ``sites.on_dropout`` is ``abort``, a site has failed to say that it helps.
    """
    sites = [call.site for call in calls]
    told = (topic.round, sites, topic.sum)
    abort = coordinator.run.experiment.sites.on_dropout == "abort"
    note_begun(coordinator, topic, sites)
    vouching = {c.site: submit_reported(pool, vouch_site, c, *told) for c in calls}
    vouches = gathered(vouching, abort)
    if silent := unvouched(coordinator, topic, sites):
        faulty = {site: vouches.failed.get(site, reason) for site, reason in silent.items()}
        if vouches.late and not is_enough_without(coordinator, topic, faulty):
            # Who is away is not at fault, where without it there would be no other sum.
            said = "; ".join(f"{site}: {reason}" for site, reason in faulty.items())
            wrong = {site: why for site, why in faulty.items() if site not in vouches.late}
            return _lost(coordinator, topic, wrong, f"nobody opens the sum: {said}")
        return _lost(coordinator, topic, faulty)
    openings = Openings(getattr(coordinator.run.experiment.protection, "openers", 1))
    proven = False
    for call in sorted(calls, key=lambda each: each.site in coordinator.false_openers):
        hand_sum(coordinator, topic, call.site)
        try:
            run_stage(pool, decrypt_site, call, *told)
            numbers = received_sum(coordinator, topic, call.site).numbers
        except DeadWorkerError:
            raise
        except ConsiliumError as error:
            if not proven:
                proven = True
                if faulty := _wrong_tags(pool, coordinator, calls, topic, length):
                    return _lost(coordinator, topic, faulty)
            openings.failed[call.site] = str(error)
            continue
        try:
            refuse_impossible(coordinator, topic, numbers, sites)
        except ImpossibleSumError as error:
            coordinator.note_left_out(topic, call.site, str(error))
            openings.failed[call.site] = str(error)
            if openings.agree_on_impossible(call.site, numbers, len(sites)):
                return _lost(coordinator, topic, {}, str(error))
            continue
        if openers := openings.agree(call.site, numbers):
            return _opened(coordinator, topic, sites, openings, openers)
    if openers := openings.majority(len(sites)):
        return _opened(coordinator, topic, sites, openings, openers)
    said = "; ".join(f"{site}: {reason}" for site, reason in openings.told().items())
    nobody = f"No site has opened the sum of round {topic.round}. {said}"
    if abort:
        raise ConsiliumError(nobody)
    # Something in it opens nowhere, and whose it is nobody can be shown: the next round begins
    # from the same model, and its sum is another one, for which the sites can say that they help.
    return _lost(coordinator, topic, {}, nobody)


def _opened(
    coordinator: Coordinator,
    topic: Topic,
    sites: list[str],
    openings: Openings,
    openers: tuple[str, ...],
) -> Decrypted:
    """Go by what ``openers`` have opened a sum of ``sites`` as, and name who has it otherwise."""
    for site, reason in openings.differing(openers).items():
        coordinator.note_left_out(topic, site, reason)
    coordinator.false_openers.update(openings.false(openers))
    if not topic.sum and (lost := apply_or_lose(coordinator, topic, sites, openers[0])):
        return Decrypted((), openings.failed, lost)
    return Decrypted(openers, openings.failed)


def _lost(
    coordinator: Coordinator, topic: Topic, faulty: Mapping[str, str], said: str = ""
) -> Decrypted:
    """A sum that nobody opens, because of ``faulty`` sites or, where none is known, of ``said``."""
    lose_sum(coordinator, topic, faulty)
    named = "; ".join(f"{site}: {reason}" for site, reason in faulty.items())
    return Decrypted((), {}, named or said, faulty)


def _wrong_tags(
    pool: Executor,
    coordinator: Coordinator,
    calls: Sequence[AnyCall],
    topic: Topic,
    length: int | None,
) -> dict[str, str]:
    """Because of whom a sum was not opened, and why, as far as that can be shown.

    Those are the sites that no longer say that they help, and by what all of them prove, those
    whose tags are not those of their payloads. Where they do not agree nobody can be named.
    """
    sites = [call.site for call in calls]
    if silent := unvouched(coordinator, topic, sites):
        # Since it was asked before, it has signed something else too.
        return silent
    try:
        _prove_tags(pool, coordinator, calls, topic)
        return find_wrong_tags(coordinator, topic, sites, length)
    except DeadWorkerError:
        raise
    except ConsiliumError as error:
        coordinator.mailbox.audit.add(
            "no verdict", run=topic.run, round=topic.round, said=str(error)
        )
        return {}


def _prove_tags(
    pool: Executor, coordinator: Coordinator, calls: Sequence[AnyCall], topic: Topic
) -> None:
    """Have all sites in a sum prove whose tags are those of its payload."""
    told = (topic.round, [call.site for call in calls], topic.sum)
    ask_proofs(coordinator, topic)
    # Who proves nothing is not counted among those who do.
    gathered({c.site: submit_stage(pool, prove_tags, c, *told) for c in calls}, abort=False)
