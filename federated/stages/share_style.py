"""share-style: what sites tell each other of how their images look, once, before the first round.

A style is the mean over a site's training cases of the low-frequency amplitudes of what the network
sees: a few numbers for each channel, without any phase. Every site gets those of all others, by way
of the coordinator.
"""

import time

import numpy as np
import numpy.typing as npt
import torch

from federated.data.records import identities
from federated.exchange import kinds
from federated.privacy.case_draws import CaseDraws
from federated.privacy.clipping import clipped
from federated.randomness import Draws, torch_generator
from federated.run.result import stage_result
from federated.run.update_files import pack_memory, read_memory, write_packed
from federated.site.releases import Parts, ReleaseStore
from federated.stages.coordinator import Coordinator
from federated.stages.entering import enter, training_records
from federated.stages.private_release import begin_style_release, style_sources
from federated.stages.report import tell
from federated.stages.site import Site, SiteCall, open_site
from federated.stages.worker import site_cases
from federated.strategies.base import Introduction
from federated.update import Vector

STYLE = "style"
CASES_AT_ONCE = 16


def share_style(call: SiteCall) -> None:
    """Send all other sites the style of a site.

    With noise on it, it is a release, which is made once: if it is asked again, the site sends what
    it stored.

    Raises:
        ConsiliumError: a budget does not allow it.
    """
    started = time.time()
    site = open_site(call)
    introduction = site.run.experiment.strategy.introduction()
    assert introduction is not None

    def make() -> Parts:
        return {STYLE: pack_memory({STYLE: site_style(site, introduction)})}

    noise = introduction.noise
    if noise is None:
        parts = make()
    else:
        sources = style_sources(site, training_records(site), noise)
        parts = ReleaseStore(site.store.releases, site.home.root).once(sources, make)
    sent = site.to_all(site.topic(0), kinds.STYLE, parts[STYLE])
    cases = len(site_cases(site, "train"))
    tell(site, 1, stage_result(site.name, "style", started, cases=cases, sent=sent))


def site_style(site: Site, introduction: Introduction) -> Vector:
    """The mean ``(*shape)`` over a site's training cases of what describes an image, as float32.

    It has noise if ``introduction`` says so.

    Raises:
        ConsiliumError: it would pass a budget; without noise any budget refuses it.
    """
    experiment = site.run.experiment
    cases, noise = site_cases(site, "train"), introduction.noise
    random = begin_style_release(site, noise) if noise else None
    if not noise:
        enter(site, 0, cases.records)
    # Images are taken as they are, not augmented; only where patches are drawn is random.
    settings = experiment.training.model_copy(update={"augment": "none"})
    draws: Draws = torch_generator(experiment.seed, purpose="style", site=site.name)
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


def receive_styles(site: Site, round_number: int) -> int:
    """Take the other sites' styles before the first round; return how many bytes travelled.

    The site keeps them for the rounds that follow. They are 0 bytes in other rounds, and where the
    strategy asks for no styles.

    Raises:
        ConsiliumError: a site's style has not arrived.
    """
    if round_number != 1 or site.run.experiment.strategy.introduction() is None:
        return 0
    received = 0
    for other in site.run.sites:
        if other == site.name:
            continue
        message = site.mailbox.receive(site.topic(0), kinds.STYLE, other, kinds.MOST_STYLE)
        write_packed(site.store.style_path(other), message.body)
        received += message.size
    return received


def other_styles(site: Site) -> list[Vector]:
    """The styles ``(*shape)`` of all sites but one, as it has kept them.

    Raises:
        ConsiliumError: one is missing or damaged.
    """
    others = (other for other in site.run.sites if other != site.name)
    return [read_memory(site.store.style_path(other))[STYLE] for other in others]


def keep_styles(coordinator: Coordinator) -> None:
    """Keep at the coordinator the styles that all sites know, for those that join later.

    Raises:
        ConsiliumError: a site's style has not arrived.
    """
    topic = coordinator.topic(0)
    for site in coordinator.run.sites:
        message = coordinator.mailbox.receive(topic, kinds.STYLE, site, kinds.MOST_STYLE)
        write_packed(coordinator.folder.style_path(site), message.body)
