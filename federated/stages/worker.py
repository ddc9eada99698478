"""What a worker process keeps between the stages of its sites: the data set, and a network.

Each stage reads its input from its site's home and from messages, and writes its output there, so
that only paths pass between processes and any stage can be run again.
"""

import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from cachetools import LRUCache, cached
from torch import nn

from federated.configuration.cases import experiment_cases
from federated.configuration.experiment import Experiment
from federated.data.cases import Cases
from federated.data.dataset import DatasetInfo, LocatedFile, Split
from federated.data.load import load
from federated.data.partition import Partition
from federated.data.partitioning import AnyDataset
from federated.data.site_cases import SiteCases, new_kept
from federated.errors import ConsiliumError, RefusalError, kept_at_site
from federated.files import write_text
from federated.learning import LearningTask, task_of
from federated.site.home import Parts, SiteHome
from federated.stages.site import Site, SiteCall, known_runs
from federated.training.loop import choose_device, place
from federated.weights.build import new_model

if TYPE_CHECKING:
    from federated.data.folders.segmented_cases import Kept


@dataclass(frozen=True)
class WorkerContext:
    """What a worker keeps of a run between stages, the same for all sites that use the same data.

    ``known`` has the cases of each home that a stage has run for, and ``further`` the networks
    beside the first, of sites that train in one call.
    """

    experiment: Experiment
    dataset: AnyDataset
    task: LearningTask
    located: LocatedFile
    kept: "Kept" = field(default_factory=new_kept)
    known: dict[str, tuple[Parts, SiteCases]] = field(default_factory=dict)
    further: list[nn.Module] = field(default_factory=list)

    @cached_property
    def model(self) -> nn.Module:
        """The network, made when it is first asked for; in a run for statistics never."""
        worker = int(os.environ.get("CONSILIUM_WORKER", "0"))
        device = choose_device(self.experiment.training.device, worker)
        return place(new_model(self.experiment, self.info), device)

    def network(self, place: int) -> nn.Module:
        """The network that a site trains in, by its place among sites that train in one call."""
        while len(self.further) < place:
            self.further.append(deepcopy(self.model))
        return self.further[place - 1] if place else self.model

    @property
    def info(self) -> DatasetInfo:
        """What is known of the data set."""
        return self.dataset.info


def worker_context(site: Site) -> WorkerContext:
    """What this process keeps of the run of a site; it is made anew where the plan has changed."""
    data, _ = site.store.data()
    return _context(site.start.plan, site.run.experiment, data)


def _key(plan: str, _experiment: Experiment, data: LocatedFile) -> tuple[str, LocatedFile]:
    return plan, data


_contexts: LRUCache[tuple[str, LocatedFile], WorkerContext] = LRUCache(maxsize=1)


@cached(_contexts, key=_key)
def _context(_plan: str, experiment: Experiment, data: LocatedFile) -> WorkerContext:
    dataset = load(data, experiment.data)
    return WorkerContext(experiment, dataset, task_of(dataset.info, experiment.evaluation), data)


def forget() -> None:
    """Let this process be one that has not seen any run before."""
    _contexts.clear()


def held_cases(site: Site) -> SiteCases:
    """The cases of what a site holds, each made once in a process."""
    context, home = worker_context(site), str(site.home.root)
    _, parts = site.store.data()
    held = context.known.get(home)
    if held is None or held[0] != parts:
        partition = Partition(parts, draws=1, moved=0)
        cases = experiment_cases(context.experiment, context.dataset, partition, context.kept)
        context.known[home] = held = (parts, cases)
    return held[1]


def site_cases(site: Site, split: Split) -> Cases:
    """The cases of a site in a split; of all its parts together, where it holds several."""
    cases = held_cases(site)
    return cases.pooled(cases.partition.sites, split)


@contextmanager
def _within_memory(who: str, stage: Callable[..., Any], less: str = "") -> Iterator[None]:
    """Say what to do where a GPU has too little memory for what is done here.

    Args:
        who: who does it.
        stage: what is done.
        less: a further setting that takes less if it is lowered.

    Raises:
        ConsiliumError: it has.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConsiliumError(
            f"The memory of the GPU ran out at {who}, in {stage.__name__}. Nothing is "
            "lost: end what else uses the GPU and go on with `consilium resume`; or begin a run "
            f"with less of {less}runner.workers, training.batch_size or privacy.physical_batch."
        ) from error


def run_alone(stage: Callable[..., Any], call: SiteCall, *arguments: Any) -> None:
    """Run a stage at a site; what it gives stays there, and what it sends is in messages.

    Raises:
        ConsiliumError: what the stage raises.
    """
    with _within_memory(call.site, stage):
        stage(call, *arguments)


def run_and_report(stage: Callable[..., Any], call: SiteCall, *arguments: Any) -> None:
    """Run a stage at a site; its end, or why it has none, is all that passes beside messages.

    Raises:
        ConsiliumError: what the stage raises. Of a private run, others read why the site refuses
            something; any other error, a fault of the program too, is kept at the site.
    """
    try:
        run_alone(stage, call, *arguments)
    except Exception as error:
        if isinstance(error, RefusalError) or not is_private(call):
            raise
        raise _kept(error, stage, call) from None


def _kept(error: Exception, stage: Callable[..., Any], call: SiteCall) -> RefusalError:
    """Keep an error at a site; what others read of it."""
    path = SiteHome(call.home).run(call.run).error_path
    # Where it is nothing that a person can mend, whoever mends the program has to see where.
    known = isinstance(error, ConsiliumError)
    said = f"{error}\n" if known else "".join(traceback.format_exception(error))
    write_text(path, said, 0o600)
    return RefusalError(kept_at_site(call.site, stage.__name__, path))


def run_in_order(stages: Sequence[Callable[..., Any]], call: SiteCall, *arguments: Any) -> None:
    """Run several stages at a site, each as :func:`run_and_report` does, until one fails.

    Raises:
        ConsiliumError: what a stage raises.
    """
    for stage in stages:
        run_and_report(stage, call, *arguments)


def run_together(
    stage: Callable[..., Mapping[str, ConsiliumError]],
    calls: Sequence[SiteCall],
    *arguments: Any,
) -> dict[str, str]:
    """Run a stage at several simulated sites in one call.

    Returns:
        The sites at which it failed, and why; of a private run as :func:`run_and_report` tells it.
    """
    failed: Mapping[str, ConsiliumError]
    try:
        with _within_memory(f"{len(calls)} sites", stage, "runner.stacked_sites, "):
            failed = stage(calls, *arguments)
    except ConsiliumError as error:
        failed = {call.site: error for call in calls}

    def told(call: SiteCall) -> str:
        error = failed[call.site]
        kept = not isinstance(error, RefusalError) and is_private(call)
        return str(_kept(error, stage, call) if kept else error)

    return {call.site: told(call) for call in calls if call.site in failed}


def is_private(call: SiteCall) -> bool:
    """Whether a run is private by any plan that the site knows of; it is, where it knows none."""
    found = known_runs(call)
    return not found or any(each.is_private for each in found)
