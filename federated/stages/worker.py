"""What a worker process keeps of a run between the stages of its sites.

Each stage reads its input from the run's folder and writes its output there, so that only paths
pass between processes and any stage can be run again.
"""

import ctypes
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import psutil
from cachetools import LRUCache, cached
from torch import nn

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
from federated.randomness import derive_seed
from federated.run.folder import RunFolder
from federated.training.loop import choose_device, place
from federated.weights.model_file import ModelHeader

# glibc's numbers of these settings, in malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# The one who trains on all sites' cases where the strategy pools them.
POOLED = "pooled"

Stage = Literal[
    "advertise",
    "share",
    "style",
    "local_train",
    "compress",
    "protect",
    "unmask",
    "decrypt",
    "evaluate",
]


@dataclass(frozen=True)
class StageResult:
    """What a stage reports: when it ran (seconds since the epoch), and small numbers.

    ``sent`` and ``received`` are bytes that travelled for it, the round's sum aside. ``epsilon`` is
    what the site has spent in the run so far, by RDP. Of a private site there are no times and no
    memory: they follow the batches that its steps drew, and whoever knows these knows more of a
    case than the ledger accounts for.
    """

    site: str
    stage: Stage
    started: float | None
    ended: float | None
    peak_rss_mb: float | None
    cases: int
    loss: float | None
    sent: int
    received: int
    epsilon: float | None


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


def new_model(experiment: Experiment, info: DatasetInfo) -> nn.Module:
    """The experiment's network with its initial weights."""
    seed = derive_seed(experiment.seed, purpose="initial weights")
    return model_header(experiment, info, experiment.data.source).build(seed)


def model_header(experiment: Experiment, info: DatasetInfo, data_source: str) -> ModelHeader:
    """What a file of the experiment's network says of it."""
    return ModelHeader(
        name=experiment.model.name,
        norm=experiment.model.norm,
        channels=info.channels,
        classes=len(info.classes),
        dims=info.dims,
        size=experiment.data.size if info.task == "classification" else None,
        dataset=info.name,
        data_source=data_source,
        conv=experiment.model.conv,
        stem=experiment.model.stem,
        scale_norm=experiment.model.scale_norm,
        width=experiment.model.width,
        deep_supervision=experiment.model.deep_supervision,
        spacing=experiment.data.spacing,
    )


def _as_it_is(run: Path) -> tuple[Path, str]:
    """A run and the digest of what it is made from: a run that is resumed may have other rounds."""
    folder, digest = RunFolder(run), sha256()
    for path in (folder.config_path, folder.inputs_path, folder.partition_path):
        digest.update(path.read_bytes())
    return run, digest.hexdigest()


@cached(LRUCache(maxsize=1), key=_as_it_is)
def worker_context(run: Path) -> WorkerContext:
    """What this process keeps of a run, made anew where the run has changed."""
    folder = RunFolder(run)
    experiment = folder.experiment()
    dataset = load(folder.data(), experiment.data)
    worker = int(os.environ.get("CONSILIUM_WORKER", "0"))
    model = place(
        new_model(experiment, dataset.info), choose_device(experiment.training.device, worker)
    )
    cases = SiteCases(experiment, dataset, folder.partition())
    info = dataset.info
    return WorkerContext(experiment, info, task_of(info), cases, tuple(folder.sites()), model)


def site_cases(run: Path, site: str, split: Split) -> Cases:
    """A site's cases; :data:`POOLED` is all sites together."""
    context = worker_context(run)
    if site == POOLED:
        return context.cases.pooled(context.sites, split)
    return context.cases.of(site, split)


def keep_freed_memory() -> None:
    """Let this process use freed memory again instead of giving it back to the kernel.

    Every step takes and frees the same activations and gradients, and each time the kernel would
    fill new pages with zeros: with gradients of single cases that took nearly half of the time.
    glibc alone has the setting; elsewhere this does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for setting in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
        mallopt(setting, 2**31 - 1)


def peak_rss_mb() -> float:
    """The largest resident memory of this process so far, in MiB."""
    # psutil has no peak on Linux; the kernel's high-water mark has.
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return float(psutil.Process().memory_info().rss) / 2**20


def run_and_report(stage: Callable[..., Any], *arguments: Any) -> Any:
    """Run a stage at a site; give what the site may report of it.

    The first two of the ``arguments`` are the run's folder and the site.

    Raises:
        ConsiliumError: what the stage says. Of a private run others read why the site refuses
            something; what else went wrong is kept at the site.
    """
    try:
        result = stage(*arguments)
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


def stage_result(
    site: str,
    stage: Stage,
    started: float,
    *,
    cases: int = 0,
    loss: float | None = None,
    sent: int = 0,
    received: int = 0,
    epsilon: float | None = None,
) -> StageResult:
    ended = time.time()
    return StageResult(
        site, stage, started, ended, peak_rss_mb(), cases, loss, sent, received, epsilon
    )
