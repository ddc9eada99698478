"""aggregate: the coordinator adds the payloads and makes the next state from their sum."""

import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.exchange.message import Topic
from federated.run.timing import Interval
from federated.stages.aggregate import (
    Added,
    add_payloads,
    apply_sum,
    decrypt_site,
    hand_sum,
    vouch_site,
)
from federated.stages.coordinator import Coordinator, begin_round
from federated.stages.secagg_messages import Roster, masked_round
from federated.stages.site import SiteCall
from federated.stages.worker import run_and_report
from tasks.pool import finished, run_stage


@task(name="plan-round", task_run_name="plan round {round_number}", cache_policy=NO_CACHE)
def plan_round(coordinator: Coordinator, round_number: int) -> Topic:
    """Sign the plan of a round, and send it to all sites with what the round starts from."""
    return begin_round(coordinator, round_number)


@dataclass(frozen=True)
class Aggregated:
    """Whose payloads are in the sum, and when they were added."""

    added: Added
    when: Interval


@task(name="aggregate", task_run_name="aggregate round {topic.round}", cache_policy=NO_CACHE)
def aggregate(
    coordinator: Coordinator, topic: Topic, sites: list[str], roster: Roster | None
) -> Aggregated:
    """Add the payloads of ``sites``; where the sum is in the clear, write the round's state too.

    ``roster`` says who takes part in a round in which sites mask.
    """
    started = time.time()
    protection, run = coordinator.run.experiment.protection, coordinator.run
    masks = masked_round(run, list(roster.advertised), topic) if roster else None
    added = add_payloads(coordinator, topic, sites, masks)
    if not (protection.keyed or protection.masked):
        apply_sum(coordinator, topic, added.responded)
    return Aggregated(added, Interval(started, time.time()))


@task(
    name="decrypt", task_run_name="decrypt[{call.site}] round {topic.round}", cache_policy=NO_CACHE
)
def decrypt(
    pool: Executor,
    coordinator: Coordinator,
    call: SiteCall,
    topic: Topic,
    sites: list[str],
    others: Sequence[SiteCall],
) -> None:
    """Have the sum of ``sites`` opened at a site, which has the key, and write the round's state.

    Before, each of them says that it helps to open this sum and no other.

    Args:
        pool: what runs the sites' stages.
        coordinator: the coordinator.
        call: the site that opens the sum.
        topic: what the messages of the round have in common.
        sites: the sites whose payloads are in the sum.
        others: all of these sites, the one that opens it among them.
    """
    vouched = [pool.submit(run_and_report, vouch_site, each, topic.round, sites) for each in others]
    finished(vouched)
    hand_sum(coordinator, topic, call.site)
    run_stage(pool, decrypt_site, call, topic.round, sites)
    apply_sum(coordinator, topic, sites, call.site)
