"""The stages of SecAgg+ beside encrypt, which masks: keys before a round's updates, shares after.

The coordinator's parts are in the relays and in unmask; what a site does runs in the pool.
"""

import time
from concurrent.futures import Executor
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.rounds.context import RunContext
from federated.run.folder import RunFolder
from federated.run.result import StageResult
from federated.run.timing import Interval
from federated.stages import secagg
from federated.stages.aggregate import apply_sum
from tasks.pool import finished, run_stage


@task(
    name="advertise", task_run_name="advertise[{site}] round {round_number}", cache_policy=NO_CACHE
)
def advertise(pool: Executor, run: Path, site: str, round_number: int) -> StageResult:
    """Make a site's keys for the round."""
    return run_stage(pool, secagg.advertise_site, run, site, round_number)


@task(name="relay-keys", task_run_name="relay keys round {round_number}", cache_policy=NO_CACHE)
def relay_keys(
    folder: RunFolder, run: RunContext, round_number: int, advertised: list[str]
) -> None:
    """Tell all sites the public keys of those that have ``advertised`` theirs."""
    secagg.relay_keys(folder, run, round_number, advertised)


@task(name="share", task_run_name="share[{site}] round {round_number}", cache_policy=NO_CACHE)
def share(pool: Executor, run: Path, site: str, round_number: int) -> StageResult:
    """Split a site's secrets among its neighbours."""
    return run_stage(pool, secagg.share_site, run, site, round_number)


@task(name="relay-shares", task_run_name="relay shares round {round_number}", cache_policy=NO_CACHE)
def relay_shares(folder: RunFolder, run: RunContext, round_number: int, sharing: list[str]) -> None:
    """Give every site the shares that are sealed for it."""
    secagg.relay_shares(folder, run, round_number, sharing)


@task(
    name="relay-responded",
    task_run_name="relay responded round {round_number}",
    cache_policy=NO_CACHE,
)
def relay_responded(
    folder: RunFolder, run: RunContext, round_number: int, responded: list[str]
) -> None:
    """Tell all sites whose updates are in the sum."""
    secagg.relay_responded(folder, run, round_number, responded)


@task(name="answer", task_run_name="answer[{site}] round {round_number}", cache_policy=NO_CACHE)
def answer(pool: Executor, run: Path, site: str, round_number: int) -> StageResult:
    """Give a site's shares of the sites in the sum, once."""
    return run_stage(pool, secagg.answer_site, run, site, round_number)


@task(name="unmask", task_run_name="unmask round {round_number}", cache_policy=NO_CACHE)
def unmask(
    folder: RunFolder, run: RunContext, round_number: int, sites: list[str], answering: list[str]
) -> Interval:
    """Take the masks off the sum of ``sites``, and write the round's state."""
    started = time.time()
    secagg.unmask_sum(folder, run, round_number, answering)
    apply_sum(folder, run, round_number, sites)
    return Interval(started, time.time())


@task(name="forget", task_run_name="forget secrets", cache_policy=NO_CACHE)
def forget(pool: Executor, run: Path, sites: list[str]) -> None:
    """Erase what ``sites`` keep secret of a round that is over or was broken off."""
    finished([pool.submit(secagg.forget_secrets, run, sites)])
