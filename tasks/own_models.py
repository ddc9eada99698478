"""own-models: what sites hand over of their own models, after a run's last round."""

from collections.abc import Sequence
from concurrent.futures import Executor

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.exchange.message import Topic
from federated.stages.coordinator import Coordinator
from federated.stages.own_models import HandedOver, receive_models
from federated.stages.site_model import hand_over
from federated.update import RoundState
from tasks.pool import AnyCall, gathered, submit_stage


@task(name="own-models", task_run_name="own models", cache_policy=NO_CACHE)
def own_models(
    pool: Executor,
    coordinator: Coordinator,
    calls: Sequence[AnyCall],
    topic: Topic,
    state: RoundState,
) -> HandedOver:
    """For each site, the tensors in which its model differs from the global one of ``state``.

    Args:
        pool: what runs the sites' stages.
        coordinator: the coordinator.
        calls: the sites.
        topic: what the messages of the run's end have in common.
        state: the state whose model the run keeps.

    Raises:
        ConsiliumError: a site fails, only where ``sites.on_dropout`` is ``abort``.
    """
    abort = coordinator.run.experiment.sites.on_dropout == "abort"
    gathered({c.site: submit_stage(pool, hand_over, c, topic.round) for c in calls}, abort)
    return receive_models(coordinator, topic, state)
