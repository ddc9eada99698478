"""What a worker process keeps of a run between the stages of its sites.

Each stage reads its input from the run's folder and writes its output there, so that only paths
pass between processes and any stage can be run again.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from cachetools import LRUCache, cached
from torch import nn

from federated.configuration.cases import experiment_cases
from federated.configuration.experiment import Experiment
from federated.data.cases import Cases
from federated.data.dataset import DatasetInfo, Split
from federated.data.load import load
from federated.data.partition import Partition
from federated.data.site_cases import SiteCases
from federated.errors import ConsiliumError, RefusalError
from federated.files import write_text
from federated.learning import LearningTask, task_of
from federated.privacy import NoPrivacy
from federated.rounds.participation import POOLED
from federated.run.folder import RunFolder
from federated.run.result import StageResult
from federated.training.loop import choose_device, place
from federated.weights.build import new_model


@dataclass(frozen=True)
class WorkerContext:
    """What a worker keeps of a run between stages."""

    experiment: Experiment
    info: DatasetInfo
    task: LearningTask
    cases: SiteCases
    sites: tuple[str, ...]
    model: nn.Module

    @property
    def partition(self) -> Partition:
        """The cases of each site, by number."""
        return self.cases.partition


def _as_it_is(run: Path) -> tuple[Path, str]:
    """A run and the digest of what it is made from: a run that is resumed may have other rounds."""
    folder, digest = RunFolder(run), sha256()
    for path in (folder.config_path, folder.inputs_path, folder.partition_path):
        digest.update(path.read_bytes())
    return run, digest.hexdigest()


@cached(LRUCache(maxsize=1), key=_as_it_is)
def worker_context(run: Path) -> WorkerContext:
    """What this process keeps of a run; it is made anew where the run has changed."""
    folder = RunFolder(run)
    experiment = folder.experiment()
    dataset = load(folder.data(), experiment.data)
    worker = int(os.environ.get("CONSILIUM_WORKER", "0"))
    model = place(
        new_model(experiment, dataset.info), choose_device(experiment.training.device, worker)
    )
    cases = experiment_cases(experiment, dataset, folder.partition())
    info = dataset.info
    return WorkerContext(experiment, info, task_of(info), cases, tuple(folder.sites()), model)


def site_cases(run: Path, site: str, split: Split) -> Cases:
    """A site's cases; :data:`POOLED` is all sites together."""
    context = worker_context(run)
    if site == POOLED:
        return context.cases.pooled(context.sites, split)
    return context.cases.of(site, split)


def _within_memory(stage: Callable[..., Any], *arguments: Any) -> Any:
    """Run a stage at a site, and say what to do where a GPU has too little memory for it.

    Raises:
        ConsiliumError: it has.
    """
    try:
        return stage(*arguments)
    except torch.OutOfMemoryError as error:
        raise ConsiliumError(
            f"The memory of the GPU ran out at {arguments[1]}, in {stage.__name__}. Nothing is "
            "lost: end what else uses the GPU and go on with `consilium resume`; or begin a run "
            "with less of runner.workers, training.batch_size or privacy.physical_batch."
        ) from error


def run_and_report(stage: Callable[..., Any], *arguments: Any) -> Any:
    """Run a stage at a site, and return what the site may report of it.

    The first two of the ``arguments`` are the run's folder and the site.

    Raises:
        ConsiliumError: what the stage raises. Of a private run, others read why the site refuses
            something; any other error is kept at the site.
    """
    try:
        result = _within_memory(stage, *arguments)
    except RefusalError:
        raise
    except ConsiliumError as error:
        folder, site = RunFolder(arguments[0]), arguments[1]
        if isinstance(folder.experiment().privacy, NoPrivacy):
            raise
        path = folder.own_error_path(site)
        write_text(path, f"{error}\n", 0o600)
        raise RefusalError(
            f"{site} could not finish its part, {stage.__name__}. The run is private, so the "
            f"reason stays with the site, in {path}."
        ) from None
    if not isinstance(result, StageResult):
        return result
    private = not isinstance(worker_context(arguments[0]).experiment.privacy, NoPrivacy)
    return replace(result, started=None, ended=None, peak_rss_mb=None) if private else result
