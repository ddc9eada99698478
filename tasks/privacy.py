"""report-privacy: what sites have released in a run, after it; and what they then forget."""

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.files import write_json
from federated.stages.coordinator import Coordinator
from federated.stages.privacy_report import close_releases, receive_reports, tell_privacy
from tasks.pool import AnyCall, finished, gathered, submit_stage


@task(name="report-privacy", task_run_name="report privacy", cache_policy=NO_CACHE)
def report_privacy(
    pool: Executor, coordinator: Coordinator, calls: Sequence[AnyCall]
) -> dict[str, dict[str, Any] | None]:
    """Write ``ledger/`` of the run, with a file of releases for each site; return what they say.

    Of a site that has told nothing that counts there is no file, and it is ``None``.

    Raises:
        ConsiliumError: a site fails, only where ``sites.on_dropout`` is ``abort``.
    """
    abort = coordinator.run.experiment.sites.on_dropout == "abort"
    gathered({call.site: submit_stage(pool, tell_privacy, call) for call in calls}, abort)
    per_site = receive_reports(coordinator)
    for site, report in per_site.items():
        if report is not None:
            write_json(coordinator.folder.ledger_path(site), report)
    return per_site


@task(name="close-releases", task_run_name="close releases", cache_policy=NO_CACHE)
def close(pool: Executor, calls: Sequence[AnyCall]) -> None:
    """Let sites remove what they have stored of a run that is not resumed any more.

    A round that is asked for all the same is then another release, with an entry of its own.
    """
    finished([submit_stage(pool, close_releases, call) for call in calls])
