"""statistics: sites count their cases, their sum is told to all, and each compares itself."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.data.dataset import DatasetInfo
from federated.exchange.message import Topic
from federated.planning.fingerprint import Fingerprint
from federated.planning.heterogeneity import Distances
from federated.run.result import Stage
from federated.stages.coordinator import Coordinator, ask_statistics
from federated.stages.statistics import (
    collect_distances,
    collect_statistics,
    compare_site,
    count_site,
    tell_counted,
)
from tasks.pool import AnyCall, gathered, run_stage, submit_stage
from tasks.track import client


@task(name="ask-statistics", task_run_name="ask statistics", cache_policy=NO_CACHE)
def ask(coordinator: Coordinator) -> Topic:
    """Ask all sites to count their cases."""
    return ask_statistics(coordinator)


@task(name="count", task_run_name="count[{call.site}]", cache_policy=NO_CACHE)
def count(pool: Executor, call: AnyCall, round_number: int) -> Stage:
    """Count a site's training cases, and send its part of the sum."""
    run_stage(pool, count_site, call, round_number)
    return "count"


@task(name="collect-statistics", task_run_name="collect statistics", cache_policy=NO_CACHE)
def collect(
    coordinator: Coordinator,
    topic: Topic,
    info: DatasetInfo,
    summed: list[str],
    opener: str | None = None,
) -> Fingerprint:
    """What was counted of all sites in the opened sum, which all sites are told.

    Args:
        coordinator: the coordinator.
        topic: of the sum.
        info: of the data set.
        summed: the sites in the sum.
        opener: the site that has opened it, where there is a key.
    """
    found = collect_statistics(coordinator, topic, info, summed, opener)
    tell_counted(coordinator, topic, found)
    return found


@task(name="compare-sites", task_run_name="compare sites", cache_policy=NO_CACHE)
def compare(
    pool: Executor, coordinator: Coordinator, topic: Topic, calls: Sequence[AnyCall]
) -> dict[str, Distances | None]:
    """Have each site compare its counts with those of all; what those tell that may."""
    futures = {call.site: submit_stage(pool, compare_site, call, topic.round) for call in calls}
    for site, why in gathered(futures, abort=False).failed.items():
        coordinator.note_left_out(topic, site, why)
    return collect_distances(coordinator, topic, [call.site for call in calls])


@task(name="track-statistics", task_run_name="track statistics", cache_policy=NO_CACHE)
def track_statistics(mlflow_run_id: str, numbers: Mapping[str, float]) -> None:
    """Log the single numbers of a report."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    client().log_batch(mlflow_run_id, metrics=[Metric(k, v, now, 0) for k, v in numbers.items()])
