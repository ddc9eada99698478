"""share-style: what sites tell each other of how their images look, once, before the first round.

A style is the mean over a site's training cases of the low-frequency amplitudes of what the network
sees: a few numbers for each channel, without any phase. Every site gets those of all others, by way
of the coordinator.
"""

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from federated.data.records import identities
from federated.privacy.case_draws import CaseDraws
from federated.privacy.clipping import clipped
from federated.randomness import Draws, torch_generator
from federated.rounds.context import RunContext
from federated.run.folder import RunFolder
from federated.run.result import StageResult, stage_result
from federated.run.update_files import pack_memory, read_memory, write_packed
from federated.site.releases import Parts, site_releases
from federated.stages.context import read_run
from federated.stages.entering import enter, training_records
from federated.stages.private_release import begin_style_release, style_sources
from federated.stages.worker import site_cases, worker_context
from federated.strategies.base import Introduction
from federated.update import Vector

STYLE = "style"
CASES_AT_ONCE = 16


def share_style(run: Path, site: str) -> StageResult:
    """Write the style of a site, which every other site is told.

    With noise on it, it is a release, which is made once: if it is asked again, the site sends what
    it stored.

    Raises:
        ConsiliumError: a budget does not allow it.
    """
    started = time.time()
    folder = RunFolder(run)
    path = folder.style_path(site)
    known = read_run(folder)
    introduction = known.experiment.strategy.introduction()
    assert introduction is not None

    def make() -> Parts:
        return {STYLE: pack_memory({STYLE: site_style(folder, site, introduction)})}

    noise = introduction.noise
    if noise is None:
        parts = make()
    else:
        records = training_records(run, site)
        parts = site_releases(run, site).once(style_sources(known, site, records, noise), make)
    write_packed(path, parts[STYLE])
    cases = len(site_cases(run, site, "train"))
    return stage_result(site, "style", started, cases=cases, sent=path.stat().st_size)


def site_style(folder: RunFolder, site: str, introduction: Introduction) -> Vector:
    """The mean ``(*shape)`` over a site's training cases of what describes an image, as float32.

    It has noise if ``introduction`` says so.

    Raises:
        ConsiliumError: it would pass a budget; without noise any budget refuses it.
    """
    experiment = worker_context(folder.root).experiment
    cases, noise = site_cases(folder.root, site, "train"), introduction.noise
    random = begin_style_release(folder, site, noise) if noise else None
    if not noise:
        enter(folder.root, site, 0, cases.records)
    # Images are taken as they are, not augmented; only where patches are drawn is random.
    settings = experiment.training.model_copy(update={"augment": "none"})
    draws: Draws = torch_generator(experiment.seed, purpose="style", site=site)
    of_cases = CaseDraws(random, identities(cases.records), rate=1.0, steps=1) if random else None
    total: npt.NDArray[np.float64] | float = 0.0
    everyone = torch.arange(len(cases)) if of_cases is None else next(of_cases.batches())
    for batch in torch.split(everyone, CASES_AT_ONCE):
        if of_cases is not None:
            draws = of_cases.generators(batch)
        images, _ = cases.load_batch(batch, settings, draws)
        styles = introduction.describe(images).double()
        if noise:
            styles = clipped(styles.flatten(1), noise.clip).reshape(styles.shape)
        total = total + styles.sum(dim=0).numpy()
    total = np.asarray(total)
    if noise and random:
        total = total + noise.noise_multiplier * noise.clip * random.normal(total.shape)
    mean = total / len(cases)
    return (np.maximum(mean, 0) if introduction.nonnegative else mean).astype(np.float32)


def other_styles(folder: RunFolder, site: str) -> list[Vector]:
    """The styles ``(*shape)`` of all sites but one."""
    return [
        read_memory(folder.style_path(other))[STYLE] for other in folder.sites() if other != site
    ]


def received_styles(folder: RunFolder, run: RunContext, site: str, round_number: int) -> int:
    """The bytes of the other sites' styles, which come with the first round; 0 in other rounds."""
    if round_number != 1 or run.experiment.strategy.introduction() is None:
        return 0
    others = (folder.style_path(other) for other in run.sites if other != site)
    return sum(path.stat().st_size for path in others)
