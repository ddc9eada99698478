"""What a run's graph is wired with, and waiting for a stage at all of its sites."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from prefect.futures import PrefectFuture
from prefect.utilities.annotations import quote

from federated.configuration.experiment import Experiment
from federated.data.dataset import DatasetInfo, LocatedFile
from federated.errors import ConsiliumError, NobodyLeftError, printable
from federated.exchange.message import Topic
from federated.rounds.context import RunContext
from federated.run.folder import RunFolder
from federated.run.result import Outcome, Stage, StageResult, Unreported
from federated.settings.sections import Parties, Processes
from federated.stages.coordinator import Coordinator
from federated.stages.report import reports
from federated.stages.site import SiteCall
from flows.budget_events import tell_if_spent
from flows.progress import listener, tell
from tasks.parties_pool import PartyCall
from tasks.pool import AnyCall, DeadWorkerError
from tasks.site_groups import SiteGroup, Stacks, at_sites

# Of more sites than this, several do their stages in one task run; and in how many runs in all.
MOST_RUNS, GROUPS = 50, 20

Chains = Mapping[str, Sequence[PrefectFuture[Stage]]]


def quoted(value: Any) -> Any:
    """A value as it is handed to tasks that get no result of another task in it.

    Prefect looks through all that a task is given for such results, and again for what it is to
    wait for: in a coordinator through a record of each round, in other values through what there is
    of each site.
    """
    return quote(value)


@dataclass(frozen=True)
class Run:
    """What the graph of a run is wired with.

    ``data`` says where the sites' data come from; where they are parties of their own, it names no
    file. ``info`` is of the data set.
    ``started`` is in seconds since the epoch, and ``startup`` has the seconds before the first
    round, by what took them. ``rounds_before_resume`` were complete when this process began: none,
    unless the run is one to go on with. ``unkeyed`` are the sites that have no key in this attempt,
    where the protection has one, and why. ``links`` say where a person finds the run. ``beside`` is
    whether a round is evaluated beside the training of the next one.
    """

    coordinator: Coordinator
    data: LocatedFile
    info: DatasetInfo
    pool: Executor
    workers: int
    mlflow_run_id: str
    started: float
    startup: dict[str, float]
    rounds_before_resume: int
    unkeyed: Mapping[str, str] = field(default_factory=dict)
    links: str = ""
    beside: bool = False

    @property
    def quoted(self) -> Any:
        """The coordinator as it is handed to tasks."""
        return quoted(self.coordinator)

    @property
    def folder(self) -> RunFolder:
        return self.coordinator.folder

    @property
    def context(self) -> RunContext:
        return self.coordinator.run

    @property
    def experiment(self) -> Experiment:
        return self.context.experiment

    @property
    def sites(self) -> list[str]:
        return list(self.context.sites)

    def call(self, site: str) -> AnyCall:
        """What a worker is handed to do a site's part."""
        return call_site(self.coordinator, site)

    def calls(self) -> list[AnyCall]:
        """What workers are handed to do the parts of all sites."""
        return [self.call(site) for site in self.sites]


def call_site(coordinator: Coordinator, site: str) -> AnyCall:
    """What the pool is handed to have a site do its part of a run."""
    if isinstance(coordinator.run.experiment.runner, Parties):
        return PartyCall(coordinator, site)
    folder = coordinator.folder
    return SiteCall(
        folder.home_path(site), folder.exchange_path, folder.run_id, coordinator.start.attempt
    )


@dataclass(frozen=True)
class Finished:
    """What stages report, and for each site that has dropped out the reason.

    ``tasks`` are the last ones of the other sites. What comes after waits for them, so that the
    graph of the run in Prefect has an edge from each: they are done already.
    """

    results: list[Outcome]
    dropped: dict[str, str]
    tasks: Sequence[Any] = ()


@dataclass(frozen=True)
class SiteStages:
    """What a site does in one go, for runs of so many sites that it is no task run of its own.

    ``what`` names it, ``stages`` are its functions in order, and ``told`` is the stage after which
    the site tells of all of them. ``together`` does the first of them at several sites in one call.
    """

    what: str
    stages: tuple[Callable[..., None], ...]
    told: Stage
    together: Callable[..., Mapping[str, ConsiliumError]] | None = None


def are_grouped(run: Run, sites: Sequence[str]) -> bool:
    """Whether so many sites do their stages in groups, each of which is one task run."""
    return len(sites) > MOST_RUNS and not isinstance(run.experiment.runner, Parties)


def stacked_sites(run: Run) -> int:
    """How many sites train in one call at most."""
    runner = run.experiment.runner
    return runner.stacked_sites if isinstance(runner, Processes) else 1


def in_groups(
    run: Run,
    round_number: int,
    does: SiteStages,
    sites: Sequence[str],
    name: str = "",
    after: Sequence[Any] = (),
) -> Finished:
    """Run stages at sites in groups, and wait for them; as :func:`wait_for` otherwise.

    The sites are dealt to the groups in turn, so that those that come first begin first; those that
    do something in one call together. Of few sites each such call is a group.

    Raises:
        ConsiliumError: as :func:`wait_for` does.
    """
    many = 1 if does.together is None else stacked_sites(run)
    stacks = [sites[start : start + many] for start in range(0, len(sites), many)]
    count = min(GROUPS, len(stacks)) if are_grouped(run, sites) else len(stacks)
    parts = [[site for stack in stacks[n::count] for site in stack] for n in range(count)]
    arguments = (name,) if name else ()
    together = Stacks(many, does.together) if does.together and many > 1 else None
    begun = [
        at_sites.submit(
            run.pool,
            SiteGroup(
                does.what,
                does.stages,
                list(map(run.call, part)),
                round_number,
                arguments,
                together,
            ),
            return_state=False,
            wait_for=after,
        )
        for part in parts
    ]
    failed: dict[str, str] = {}
    for group in begun:
        failed |= group.result()

    def outcome(site: str) -> Stage:
        if site in failed:
            raise ConsiliumError(failed[site])
        return does.told

    outcomes = {site: partial(outcome, site) for site in sites}
    return replace(_finished(run, round_number, outcomes, name), tasks=begun)


def wait_for(run: Run, round_number: int, chains: Chains, name: str = "") -> Finished:
    """Wait for the stages of several sites.

    ``name`` is that of the sum that the stages are for; it is empty for that of the updates. In a
    consortium all may have dropped out: what becomes of that is for the caller to say.

    Raises:
        ConsiliumError: what a stage raises, only where ``sites.on_dropout`` is ``abort``.
        NobodyLeftError: all sites have dropped out, where they are no parties of their own.
    """

    def last(chain: Sequence[PrefectFuture[Stage]]) -> Stage:
        return [future.result() for future in chain][-1]

    outcomes = {site: partial(last, chain) for site, chain in chains.items()}
    finished = _finished(run, round_number, outcomes, name)
    last_ones = [chain[-1] for site, chain in chains.items() if site not in finished.dropped]
    return replace(finished, tasks=last_ones)


def at_every(run: Run, asked: Topic, stage: Any, sites: Sequence[str]) -> Finished:
    """Run one task at each of some sites, after all were asked, and wait for them.

    Args:
        run: what the graph is wired with.
        asked: the topic that they were asked by; of a sum, with its name.
        stage: the task, which takes the pool, the site's call and the round.
        sites: at which.

    Raises:
        ConsiliumError: as :func:`wait_for` does.
    """
    return wait_for(run, asked.round, begun_at(run, asked, stage, sites), asked.sum)


def begun_at(run: Run, asked: Topic, stage: Any, sites: Sequence[str]) -> Chains:
    """Begin one task at each of some sites, as :func:`at_every` does, which waits for them too."""
    options: Any = {"return_state": False, "wait_for": [asked]}
    return {
        site: [stage.submit(run.pool, run.call(site), asked.round, **options)] for site in sites
    }


def _finished(
    run: Run, round_number: int, outcomes: Mapping[str, Callable[[], Stage]], name: str
) -> Finished:
    """What sites report, of which each function waits for one and gives the last stage it did.

    Raises:
        ConsiliumError: as :func:`wait_for` does.
    """
    results: list[Outcome] = []
    dropped: dict[str, str] = {}
    for site, outcome in outcomes.items():
        try:
            results += _told(run, round_number, outcome(), site, name)
        except DeadWorkerError:
            # No site's doing: those that are done already are not to be a round of their own.
            raise
        except ConsiliumError as error:
            tell_if_spent(site, run.context.run_id, run.experiment.name, str(error))
            if run.experiment.sites.on_dropout == "abort":
                raise
            dropped[site] = printable(str(error))
            tell(f"{site} drops out of round {round_number}: {dropped[site]}")
    if len(dropped) == len(outcomes) and not isinstance(run.experiment.runner, Parties):
        last = f"; the last said: {list(dropped.values())[-1]}" if dropped else ""
        raise NobodyLeftError(
            f"All {len(outcomes)} sites have dropped out of round {round_number}{last}"
        )
    return Finished(results, dropped)


def _told(run: Run, round_number: int, stage: Stage, site: str, name: str) -> list[Outcome]:
    """What a site tells of the stages that it has done, which is shown and returned."""
    found = reports(run.coordinator, round_number, stage, [site], name)
    shown = listener()
    if not shown:
        return found
    for each in found:
        if isinstance(each, StageResult) and each.stage == "local_train":
            loss = "" if each.loss is None else f"loss {each.loss:.3f}"
            shown.site_done(site, "local-train", loss)
        elif isinstance(each, Unreported) and "local_train" in each.stages:
            shown.site_done(site, "local-train", "")
    return found
