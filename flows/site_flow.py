"""fl-site: what a site of a consortium does in a run, in a Prefect of its own.

Each stage that the site is asked for is a task, named as at the coordinator. What a stage does it
takes from the signed plans; no code of another party runs here.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

import flows.run_log  # noqa: F401 - what Prefect keeps of it is for people
from federated.data.partition import Partition, leave_out
from federated.errors import ConsiliumError, RefusalError
from federated.exchange.folder import Exchange
from federated.exchange.policy_checks import refuse_outright
from federated.files import PRIVATE, make_folders, write_text
from federated.provenance import code_digest
from federated.settings.sections import Parties
from federated.site.approvals import is_undecided, refuse_unapproved
from federated.site.home import SiteHome
from federated.site.releases import ReleaseStore
from federated.stages.asked import has_answered, said_of, too_late
from federated.stages.asking import LEAVE, Ask, stage_named
from federated.stages.entering import EnteredBeforeError
from federated.stages.site import SiteCall, candidate
from federated.stages.worker import is_private, run_and_report
from flows.budget_events import tell_if_spent
from flows.site_cases import as_described_here, judged_by_the_site, located_here
from flows.site_data import cases_of
from flows.site_metrics import count_stage
from tasks.prepare import read
from tasks.validate import validate

# As a stage is named in the graph of a round, where it has another name than its function.
NAMES = {
    "train_site": "local-train",
    "compress_site": "compress",
    "protect_site": "encrypt",
    "advertise_site": "advertise",
    "share_site": "share",
    "agree_site": "agree",
    "answer_site": "answer",
    "vouch_site": "vouch",
    "decrypt_site": "decrypt",
    "evaluate_site": "evaluate",
    "count_site": "count",
    "compare_site": "compare",
    "hand_over": "own-model",
    "draw_site": "overlays",
    "evaluate_at_end": "final-evaluation",
    "sum_at_end": "final-evaluation",
}


@dataclass(frozen=True)
class Desk:
    """What the site's flow of a run works with.

    Attributes:
        home: the site's home.
        data: the folder that the site's data sets lie in.
        exchange: the site's own copy of what is for it in the exchange.
        pool: where stages run.
        asks: gives what the site is asked in an attempt at a run, in order, until the run ends.
        newest: gives all that the site is known to be asked now.
        missing: gives the stage before one that was asked along with it, where that is not done.
        tell: says to the coordinator that something is done, or why it is not.
        say: says something to whoever runs the site.
    """

    home: SiteHome
    data: Path
    exchange: Exchange
    mirror: Path
    pool: Callable[[], Executor]
    asks: Callable[[str, int], Iterator[Ask]]
    newest: Callable[[], list[Ask]]
    missing: Callable[[Ask], str | None]
    tell: Callable[[Ask, str | None], None]
    say: Callable[[str], None]


# In seconds, between two looks at whether a person has decided.
LOOK = 0.5
# The share of the time that the coordinator waits, so that it still hears why nobody has.
WAITED = 0.8
desk: ContextVar[Desk] = ContextVar("desk")


@flow(name="fl-site", flow_run_name="{run} attempt {attempt}")
def fl_site(run: str, attempt: int) -> int:
    """Do what a site is asked in an attempt at a run, until it ends.

    Args:
        run: the run's id.
        attempt: how often the coordinator has begun or resumed it.

    Returns:
        How many stages were done.
    """
    mine, done = desk.get(), 0
    log = get_run_logger()
    for asked in mine.asks(run, attempt):
        if asked.stage == LEAVE:
            log.info("the run has ended")
            break
        if has_answered(mine.home, mine.exchange, asked):
            continue
        if late := too_late(asked, mine.newest()):
            mine.tell(asked, f"{mine.home.name} has left it out: {late}.")
            log.info("left out %s of round %s: %s", asked.stage, asked.round, late)
            continue
        error = _paused(mine.home) or _without_what_it_needs(mine, asked) or _done(mine, asked)
        if error and asked.stage == "take_part" and _decided(mine, asked):
            error = _done(mine, asked)
        mine.tell(asked, error)
        if error:
            log.warning(error)
            mine.say(f"run {run}: {error}")
        done += error is None
    return done


def _decided(mine: Desk, asked: Ask) -> bool:
    """Wait for a person's decision on a proposal, as long as the coordinator waits for the site.

    Returns:
        Whether there is one, made meanwhile or just before.
    """
    store = mine.home.run(asked.run)
    if not store.proposal_path.is_file():
        return False
    _, plan = candidate(SiteCall(mine.home.root, mine.mirror, asked.run, asked.attempt))
    runner = plan.experiment.runner
    until = time.monotonic() + (WAITED * runner.joining if isinstance(runner, Parties) else 0)
    waits = (
        f"run {asked.run} waits for a decision: read it with `consilium site show`, and then "
        f"`consilium site approve {asked.run}` or `consilium site refuse {asked.run}`"
    )
    get_run_logger().warning(waits)
    mine.say(waits)
    while is_undecided(store):
        if time.monotonic() > until or too_late(asked, mine.newest()):
            return False
        time.sleep(LOOK)
    return True


def _paused(home: SiteHome) -> str | None:
    if not home.paused_path.is_file():
        return None
    return f"{home.name} does nothing at the moment: a person there has paused it."


def _without_what_it_needs(mine: Desk, asked: Ask) -> str | None:
    """Why a stage is left out that was asked along with one that is not done.

    That holds for a process too that was started anew since: without what comes before it the
    stage might still find something to send, and enter that in the ledger, of a round that goes on
    without the site.
    """
    before = mine.missing(asked)
    if before is None:
        return None
    return f"{mine.home.name} has left it out: {NAMES[before]} comes before it, and is not done."


def _done(mine: Desk, asked: Ask) -> str | None:
    """Do a stage; return what is told of it where it fails."""
    name = NAMES.get(asked.stage, asked.stage.replace("_", "-"))
    of_round = f" round {asked.round}" if asked.round else ""
    named = f"{name}[{mine.home.name}]{of_round}"
    where = mine.home.run(asked.run).error_path
    error: Exception | None = None
    began = time.monotonic()
    try:
        if asked.stage == "take_part":
            _take_cases_or_refuse(mine, asked)
        do_stage.with_options(name=name, task_run_name=named)(mine, asked)
    except Exception as failed:
        # Whatever it is, the coordinator is told that this part is not done, and the site goes on.
        if not isinstance(failed, RefusalError):
            get_run_logger().exception("%s failed", named)
            with suppress(OSError, ConsiliumError):
                write_text(where, f"{failed}\n", PRIVATE)
        error = failed
    count_stage(mine.home, name, time.monotonic() - began, error is None)
    if error is None:
        return None
    private = is_private(_call(mine, asked))
    said = said_of(error, mine.home.name, asked.stage if private else name, where, private)
    tell_if_spent(mine.home.name, asked.run, "", said)
    return said


@task(name="stage", cache_policy=NO_CACHE)
def do_stage(mine: Desk, asked: Ask) -> None:
    """Run a stage in the site's worker, and wait for it.

    Where the worker dies and a release of the round is stored, another worker does the stage, and
    may enter nothing in the ledger: what was entered and made is sent. Where the stage would enter
    something, since what is stored is of another stage or of other sources, it is not done again.

    Raises:
        ConsiliumError: what the stage raises, or that the worker died; of a private run that is no
            refusal, so that others are not told of it.
    """
    call = _call(mine, asked)
    stage = stage_named(asked.stage)
    releases = ReleaseStore(mine.home.run(asked.run).releases, mine.home.root)
    for is_first in (True, False):
        again = replace(call, may_enter=is_first)
        try:
            mine.pool().submit(run_and_report, stage, again, *asked.arguments).result()
            return
        except (BrokenProcessPool, EnteredBeforeError) as error:
            if is_first and asked.round and releases.has(asked.round):
                get_run_logger().warning("a worker died in %s, and another goes on", asked.stage)
                continue
            kind = ConsiliumError if is_private(call) else RefusalError
            raise kind(
                f"The worker of {mine.home.name} died in {asked.stage}, most often because memory "
                "ran out. It has another one now."
            ) from error


def _call(mine: Desk, asked: Ask) -> SiteCall:
    return SiteCall(mine.home.root, mine.mirror, asked.run, asked.attempt)


def _take_cases_or_refuse(mine: Desk, asked: Ask) -> None:
    """Settle which cases the site has for what is proposed; a refusal stands in the audit log.

    Raises:
        ConsiliumError: the policy refuses the run, or the data cannot be used.
    """
    try:
        _take_cases(mine, asked)
    except ConsiliumError as error:
        mine.home.audit.add("does not take part", run=asked.run, said=str(error))
        raise


def _take_cases(mine: Desk, asked: Ask) -> None:
    """Settle which cases the site has for what is proposed, once its policy may allow that at all.

    Raises:
        ConsiliumError: the policy refuses the run, or the data cannot be used.
    """
    call = SiteCall(mine.home.root, mine.mirror, asked.run, asked.attempt)
    site, plan = candidate(call)
    policy = mine.home.policy()
    refuse_outright(policy, site.name, plan, code_digest())
    if policy.settings.approval == "required":
        # Before anything is read for it.
        refuse_unapproved(mine.home, site.store, plan, policy.by("approval"))
    settings = as_described_here(site.name, plan.experiment.data, mine.data)
    experiment = judged_by_the_site(
        mine.home, plan.experiment.model_copy(update={"data": settings})
    )
    data = located_here(mine.home, settings)
    if site.store.data_path.is_file() and site.store.data()[0] == data:
        return
    dataset = read(experiment, data)
    whole = Partition({site.name: cases_of(dataset, site.name)}, draws=0, moved=0)
    place = site.store.root / "validation"
    make_folders(place, private=True)
    try:
        found = validate(experiment, dataset, whole, place, data=data)
    except ConsiliumError as error:
        mine.home.audit.add("data fail validation", run=asked.run, said=str(error))
        found = None
    if found is None or found.excluded:
        raise RefusalError(
            f"{site.name} does not take part in run {asked.run}: its data fail the site's own "
            "validation."
        )
    left = leave_out(whole, found.dropped)
    site.store.write_data(data, {site.name: dict(left.sites[site.name])})
