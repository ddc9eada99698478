"""final-evaluation: what sites tell once, after the last round, of their test cases."""

from collections.abc import Sequence
from concurrent.futures import Executor

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.data.dataset import DatasetInfo
from federated.exchange.message import Topic
from federated.learning.subgroup_statistics import FinalSums
from federated.run.result import Stage
from federated.stages.coordinator import Coordinator, ask_final_sum
from federated.stages.final_evaluation import (
    FinalOutcome,
    collect_final,
    evaluate_at_end,
    receive_final,
    sum_at_end,
)
from tasks.pool import AnyCall, gathered, run_stage, submit_stage


@task(name="final-evaluation", task_run_name="final evaluation", cache_policy=NO_CACHE)
def each_site(
    pool: Executor,
    coordinator: Coordinator,
    calls: Sequence[AnyCall],
    topic: Topic,
    info: DatasetInfo,
) -> FinalOutcome:
    """Have every site tell what the run asks for at its end, by the model that it keeps.

    Args:
        pool: what runs the sites' stages.
        coordinator: the coordinator.
        calls: the sites.
        topic: what the messages of the run's end have in common.
        info: of the data set.

    Raises:
        ConsiliumError: a site fails, only where ``sites.on_dropout`` is ``abort``.
    """
    abort = coordinator.run.experiment.sites.on_dropout == "abort"
    gathered({c.site: submit_stage(pool, evaluate_at_end, c, topic.round) for c in calls}, abort)
    return receive_final(coordinator, topic, [call.site for call in calls], info)


@task(name="ask-final-sum", task_run_name="ask final sum", cache_policy=NO_CACHE)
def ask(coordinator: Coordinator) -> Topic:
    """Ask all sites for a sum of their test cases by the model that the run keeps."""
    return ask_final_sum(coordinator)


@task(name="sum-at-end", task_run_name="final evaluation[{call.site}]", cache_policy=NO_CACHE)
def sum_at_site(pool: Executor, call: AnyCall, round_number: int) -> Stage:
    """Have a site send its part of the sum."""
    run_stage(pool, sum_at_end, call, round_number)
    return "evaluate"


@task(name="collect-final", task_run_name="collect final sum", cache_policy=NO_CACHE)
def collect(
    coordinator: Coordinator,
    topic: Topic,
    info: DatasetInfo,
    summed: Sequence[str],
    opener: str | None = None,
) -> FinalSums:
    """What follows of the test cases of all sites in the opened sum.

    Args:
        coordinator: the coordinator.
        topic: of the sum.
        info: of the data set.
        summed: the sites in the sum.
        opener: the site that has opened it, where there is a key.
    """
    return collect_final(coordinator, topic, info, summed, opener)
