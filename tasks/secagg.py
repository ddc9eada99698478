"""The stages of SecAgg+ beside encrypt, which masks: keys before a round's updates, shares after.

The coordinator's parts are in the relays and in unmask; what a site does runs in the pool. A stage
with a ``name`` is for the sum of that name, and otherwise for that of the round's updates.
"""

import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.exchange.message import Topic
from federated.protection.secagg.recovery import SumLostError
from federated.rounds.sum_limits import ImpossibleSumError
from federated.run.result import Stage
from federated.run.timing import Interval
from federated.stages import secagg, secagg_relay
from federated.stages.aggregate import received_sum, refuse_impossible
from federated.stages.coordinator import Coordinator
from federated.stages.opening import apply_or_lose, lose_sum
from federated.stages.secagg_messages import Roster
from tasks.pool import AnyCall, finished, run_stage, submit_stage


@task(
    name="advertise",
    task_run_name="advertise[{call.site}] round {round_number}",
    cache_policy=NO_CACHE,
)
def advertise(pool: Executor, call: AnyCall, round_number: int, name: str = "") -> Stage:
    """Make a site's keys for the round."""
    run_stage(pool, secagg.advertise_site, call, round_number, name)
    return "advertise"


@task(name="relay-keys", task_run_name="relay keys round {topic.round}", cache_policy=NO_CACHE)
def relay_keys(coordinator: Coordinator, topic: Topic, sites: list[str]) -> Roster:
    """Tell all sites the public keys of those of ``sites`` that have advertised theirs."""
    return secagg_relay.relay_keys(coordinator, topic, sites)


@task(name="share", task_run_name="share[{call.site}] round {round_number}", cache_policy=NO_CACHE)
def share(pool: Executor, call: AnyCall, round_number: int, name: str = "") -> Stage:
    """Split a site's secrets among its neighbours."""
    run_stage(pool, secagg.share_site, call, round_number, name)
    return "share"


@task(name="relay-shares", task_run_name="relay shares round {topic.round}", cache_policy=NO_CACHE)
def relay_shares(
    coordinator: Coordinator, topic: Topic, roster: Roster, sites: list[str]
) -> Roster:
    """Give every site the shares that are sealed for it."""
    return secagg_relay.relay_shares(coordinator, topic, roster, sites)


@task(
    name="relay-responded",
    task_run_name="relay responded round {topic.round}",
    cache_policy=NO_CACHE,
)
def relay_responded(
    coordinator: Coordinator, topic: Topic, roster: Roster, responded: list[str]
) -> None:
    """Tell all sites whose updates are in the sum."""
    secagg_relay.relay_responded(coordinator, topic, roster, responded)


@task(name="agree", task_run_name="agree[{call.site}] round {round_number}", cache_policy=NO_CACHE)
def agree(pool: Executor, call: AnyCall, round_number: int, name: str = "") -> Stage:
    """Have a site sign what it was told of the round."""
    run_stage(pool, secagg.agree_site, call, round_number, name)
    return "agree"


@task(name="relay-views", task_run_name="relay views round {topic.round}", cache_policy=NO_CACHE)
def relay_views(coordinator: Coordinator, topic: Topic, sites: list[str]) -> None:
    """Tell all sites what each of ``sites`` has signed."""
    secagg_relay.relay_views(coordinator, topic, sites)


@task(
    name="answer", task_run_name="answer[{call.site}] round {round_number}", cache_policy=NO_CACHE
)
def answer(pool: Executor, call: AnyCall, round_number: int, name: str = "") -> Stage:
    """Give a site's shares of the sites in the sum, once."""
    run_stage(pool, secagg.answer_site, call, round_number, name)
    return "answer"


@dataclass(frozen=True)
class Unmasked:
    """What came of unmasking a sum, and when it was.

    Attributes:
        faulty: the sites that sent wrong shares; without them the sum is right, if it is not lost.
        when: when the coordinator worked.
        lost: why the sum is lost, if it is: what sites have sent keeps it from being opened.
    """

    faulty: tuple[str, ...]
    when: Interval
    lost: str | None = None


@task(name="unmask", task_run_name="unmask round {topic.round}", cache_policy=NO_CACHE)
def unmask(
    coordinator: Coordinator,
    topic: Topic,
    roster: Roster,
    responded: list[str],
    answering: list[str],
) -> Unmasked:
    """Take the masks off the sum of those who ``responded``; of updates, write the round's state.

    Where what sites have sent keeps the sum from being opened it is lost, and the run goes on
    without those at fault.

    Args:
        coordinator: the coordinator.
        topic: what the messages of the round have in common.
        roster: who takes part in the round.
        responded: the sites whose updates are in the sum.
        answering: the sites that were there to answer.

    Raises:
        ConsiliumError: too few sites have answered, or too few are left to go on.
    """
    started = time.time()
    try:
        faulty = secagg_relay.unmask_sum(coordinator, topic, roster, responded, answering)
        total = received_sum(coordinator, topic, None)
        refuse_impossible(coordinator, topic, total.numbers, responded)
    except ImpossibleSumError as error:
        # Some site has masked what it must not, and which one is hidden with the rest.
        lose_sum(coordinator, topic, {})
        return Unmasked((), Interval(started, time.time()), str(error))
    except SumLostError as error:
        lose_sum(coordinator, topic, dict.fromkeys(sorted(error.faulty), str(error)))
        return Unmasked(tuple(sorted(error.faulty)), Interval(started, time.time()), str(error))
    lost = None if topic.sum else apply_or_lose(coordinator, topic, responded)
    return Unmasked(() if lost else faulty, Interval(started, time.time()), lost)


@task(name="forget", task_run_name="forget secrets", cache_policy=NO_CACHE)
def forget(pool: Executor, calls: Sequence[AnyCall]) -> None:
    """Erase what sites keep secret of a round that is over or was broken off."""
    finished([submit_stage(pool, secagg.forget_secrets, call) for call in calls])
