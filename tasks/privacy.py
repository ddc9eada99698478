"""report-privacy: what sites have released in a run, after it; and what they then forget."""

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.files import write_json
from federated.run.folder import RunFolder
from federated.stages.privacy_report import close_releases, report_site
from federated.stages.site import SiteCall
from tasks.pool import finished, submit_stage


@task(name="report-privacy", task_run_name="report privacy", cache_policy=NO_CACHE)
def report_privacy(
    pool: Executor, folder: RunFolder, calls: Sequence[SiteCall]
) -> dict[str, dict[str, Any]]:
    """Write ``ledger/`` of the run, with a file of releases for each site; return what they say."""
    reports = finished([submit_stage(pool, report_site, call) for call in calls])
    per_site = {call.site: report for call, report in zip(calls, reports, strict=True)}
    for site, report in per_site.items():
        write_json(folder.ledger_path(site), report)
    return per_site


@task(name="close-releases", task_run_name="close releases", cache_policy=NO_CACHE)
def close(pool: Executor, calls: Sequence[SiteCall]) -> None:
    """Let sites remove what they have stored of a run that is not resumed any more.

    A round that is asked for all the same is then another release, with an entry of its own.
    """
    finished([submit_stage(pool, close_releases, call) for call in calls])
