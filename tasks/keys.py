"""key: a site makes or finds the key of a run, and the coordinator keeps its public half.

forget-key: the run has ended, and no site needs the key any more.
"""

from concurrent.futures import Executor

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.exchange import kinds
from federated.files import write_json
from federated.protection.keys import PublicContext
from federated.stages.coordinator import Coordinator, publish_state
from federated.stages.keys import erase_key, prepare_key, told_context
from federated.stages.site import SiteCall
from tasks.pool import finished, submit_stage


@task(name="key", task_run_name="key", cache_policy=NO_CACHE)
def key(pool: Executor, coordinator: Coordinator, call: SiteCall) -> PublicContext:
    """Write ``context.json`` of the run, from a key that stays at the sites."""
    done = coordinator.folder.done_rounds()
    publish_state(coordinator, done)
    finished([submit_stage(pool, prepare_key, call, done)])
    message = coordinator.mailbox.receive(
        coordinator.topic(0), kinds.KEY, call.site, kinds.MOST_SMALL
    )
    public = told_context(message.body, call.site)
    write_json(coordinator.folder.context_path, public.to_json())
    return public


@task(name="forget-key", task_run_name="forget key", cache_policy=NO_CACHE)
def forget_key(pool: Executor, call: SiteCall) -> None:
    """Erase the key of a run that has ended; its ``context.json`` stays."""
    finished([submit_stage(pool, erase_key, call)])
