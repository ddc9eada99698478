"""Tags of a flow run, by which people find it among others in Prefect."""

from collections.abc import Sequence

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext


def tag_flow_run(tags: Sequence[str]) -> None:
    """Add tags to the flow run that this is called in; without Prefect nothing happens.

    The run alone gets them, and not its tasks: for a task with tags the server is asked for a
    concurrency slot first, which made some rounds wait two seconds.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None:
        return
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run(run.id, tags=sorted({*run.tags, *tags}))
    except Exception as error:
        # They are for people to look for: the run goes on without.
        get_run_logger().warning("the run has no tags in Prefect: %s", error)
