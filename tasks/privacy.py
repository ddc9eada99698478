"""plan-privacy and report-privacy: what sites release in a run, before it and after it."""

from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.files import write_json
from federated.run.folder import RunFolder
from federated.site.releases import close_releases
from federated.stages.privacy import plan_site
from federated.stages.privacy_report import report_site
from tasks.pool import finished


@task(name="plan-privacy", task_run_name="plan privacy", cache_policy=NO_CACHE)
def plan_privacy(pool: Executor, run: Path, sites: list[str]) -> dict[str, dict[str, Any]]:
    """Write ``privacy.json``, the release of every site in a round, and return it.

    Raises:
        ConsiliumError: the privacy that is asked for cannot be reached at a site, or a budget does
            not allow that a site's cases are evaluated.
    """
    plans = finished([pool.submit(plan_site, run, site) for site in sites])
    plan = dict(zip(sites, plans, strict=True))
    write_json(RunFolder(run).privacy_path, plan)
    return plan


@task(name="report-privacy", task_run_name="report privacy", cache_policy=NO_CACHE)
def report_privacy(pool: Executor, run: Path, sites: list[str]) -> dict[str, dict[str, Any]]:
    """Write ``ledger/`` of the run, with a file of releases for each site; return what they say."""
    reports = finished([pool.submit(report_site, run, site) for site in sites])
    per_site = dict(zip(sites, reports, strict=True))
    for site, report in per_site.items():
        write_json(RunFolder(run).ledger_path(site), report)
    return per_site


@task(name="close-releases", task_run_name="close releases", cache_policy=NO_CACHE)
def close(pool: Executor, run: Path, sites: list[str]) -> None:
    """Let sites remove what they have stored of a run that is not resumed any more.

    A round that is asked for all the same is then another release, with an entry of its own.
    """
    finished([pool.submit(close_releases, run, site) for site in sites])
