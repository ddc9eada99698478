"""evaluate: the new global model on every site's validation and test cases."""

import time
from collections.abc import Sequence
from concurrent.futures import Executor

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.data.dataset import DatasetInfo
from federated.exchange.message import Topic
from federated.learning.evaluation import Evaluation
from federated.run.result import Stage
from federated.run.timing import Interval
from federated.stages.coordinator import Coordinator, ask_evaluation
from federated.stages.evaluate import evaluate as evaluate_shared
from federated.stages.evaluate import evaluate_site
from tasks.pool import AnyCall, run_stage


@task(
    name="ask-evaluation",
    task_run_name="ask evaluation round {round_number}",
    cache_policy=NO_CACHE,
)
def ask(coordinator: Coordinator, round_number: int, responded: Sequence[str]) -> Topic:
    """Ask all sites to evaluate the state after a round, of whose sum ``responded`` are."""
    return ask_evaluation(coordinator, round_number, responded)


@task(
    name="evaluate",
    task_run_name="evaluate[{call.site}] round {round_number}",
    cache_policy=NO_CACHE,
)
def evaluate_at_site(pool: Executor, call: AnyCall, round_number: int) -> Stage:
    """Predict one site's cases, and send the coordinator what is told of them."""
    run_stage(pool, evaluate_site, call, round_number)
    return "evaluate"


class Evaluated:
    """The metrics of a round, and when they were computed.

    It is no dataclass, so that Prefect does not look through the metrics of all sites for results
    of tasks.

    Args:
        evaluation: the metrics over the cases of all sites together, and at each of them.
        when: in which time the coordinator computed them.
    """

    def __init__(self, evaluation: Evaluation, when: Interval) -> None:
        self.evaluation, self.when = evaluation, when


@task(name="evaluate-all", task_run_name="evaluate round {topic.round}", cache_policy=NO_CACHE)
def evaluate(
    coordinator: Coordinator,
    topic: Topic,
    sites: list[str],
    info: DatasetInfo,
    opener: str | None = None,
) -> Evaluated:
    """The metrics over all sites together and at each of them, and when they were computed.

    Args:
        coordinator: the coordinator.
        topic: what the sites' messages answer to.
        sites: those that were asked; of an opened sum, those in it.
        info: of the data set.
        opener: the site that has opened the sum, where there is a key.
    """
    started = time.time()
    evaluation = evaluate_shared(coordinator, topic, sites, info, opener)
    return Evaluated(evaluation, Interval(started, time.time()))
