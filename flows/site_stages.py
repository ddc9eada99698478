"""What a run's graph is wired with, and waiting for a stage at all of its sites."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from prefect.futures import PrefectFuture
from prefect.utilities.annotations import quote

from federated.configuration.experiment import Experiment
from federated.data.dataset import DatasetInfo, LocatedFile
from federated.errors import ConsiliumError, printable
from federated.rounds.context import RunContext
from federated.run.folder import RunFolder
from federated.run.result import Outcome, Stage, StageResult, Unreported
from federated.settings.sections import Parties
from federated.stages.coordinator import Coordinator
from federated.stages.report import reports
from federated.stages.site import SiteCall
from flows.budget_events import tell_if_spent
from flows.progress import listener, tell
from tasks.parties_pool import PartyCall
from tasks.pool import AnyCall

Chains = Mapping[str, Sequence[PrefectFuture[Stage]]]


@dataclass(frozen=True)
class Run:
    """What the graph of a run is wired with.

    ``data`` says where the sites' data come from; where they are parties of their own, it names no
    file. ``info`` is of the data set.
    ``started`` is in seconds since the epoch, and ``startup`` has the seconds before the first
    round, by what took them. ``rounds_before_resume`` were complete when this process began: none,
    unless the run is one to go on with. ``unkeyed`` are the sites that have no key in this attempt,
    where the protection has one, and why. ``links`` say where a person finds the run.
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

    @property
    def quoted(self) -> Any:
        """The coordinator as it is handed to tasks.

        Prefect looks through all that a task is given for results of other tasks. In a coordinator
        there are none, and a record of each round to look through.
        """
        return quote(self.coordinator)

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


def wait_for(run: Run, round_number: int, chains: Chains, name: str = "") -> Finished:
    """Wait for the stages of several sites.

    ``name`` is that of the sum that the stages are for; it is empty for that of the updates. In a
    consortium all may have dropped out: what becomes of that is for the caller to say.

    Raises:
        ConsiliumError: what a stage raises, only where ``sites.on_dropout`` is ``abort``; or all
            sites have dropped out, where they are no parties of their own.
    """
    results: list[Outcome] = []
    dropped: dict[str, str] = {}
    for site, chain in chains.items():
        try:
            done = [future.result() for future in chain]
            results += _told(run, round_number, done[-1], site, name)
        except ConsiliumError as error:
            tell_if_spent(site, run.context.run_id, run.experiment.name, str(error))
            if run.experiment.sites.on_dropout == "abort":
                raise
            dropped[site] = printable(str(error))
            tell(f"{site} drops out of round {round_number}: {dropped[site]}")
    if len(dropped) == len(chains) and not isinstance(run.experiment.runner, Parties):
        last = f"; the last said: {list(dropped.values())[-1]}" if dropped else ""
        raise ConsiliumError(
            f"All {len(chains)} sites have dropped out of round {round_number}{last}"
        )
    last_ones = [chain[-1] for site, chain in chains.items() if site not in dropped]
    return Finished(results, dropped, last_ones)


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
