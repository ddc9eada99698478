"""share-style: what sites tell each other of how their images look, once, before the first round.

A style is the mean over a site's training cases of the low-frequency amplitudes of what the network
sees: a few numbers for each channel, without any phase. Every site gets those of all others, by way
of the coordinator.
"""

import time
from collections import Counter
from contextlib import suppress

import numpy as np
import numpy.typing as npt
import torch

from federated.data.records import identities
from federated.errors import ConsiliumError, RefusalError
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
from federated.stages.site import Site, SiteCall, open_site, refuse_statistics
from federated.stages.worker import site_cases
from federated.strategies.base import Introduction
from federated.update import Vector
from federated.weights.bounded_file import Content

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
    refuse_statistics(site)
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
    """Take the other sites' styles where the site has none yet; return how many bytes travelled.

    The site keeps them for the rounds that follow. A style that has not arrived, or is not of the
    form of the site's own, is left out. They are 0 bytes where the strategy asks for no styles.

    Raises:
        ConsiliumError: no style of any other site is left.
    """
    introduction = site.run.experiment.strategy.introduction()
    if introduction is None:
        return 0
    others = [other for other in site.run.sites if other != site.name]
    if round_number > 1 and any(site.store.style_path(other).is_file() for other in others):
        return 0
    shape, received = _own_shape(site, introduction), 0
    for other in others:
        path = site.store.style_path(other)
        try:
            message = site.mailbox.receive(
                site.topic(0), kinds.STYLE, other, kinds.MOST_STYLE, for_all=True
            )
            style = told_style(message.body, other)
            if style.shape != shape or (introduction.nonnegative and (style < 0).any()):
                raise RefusalError(f"The style of {other} is refused: it has another form.")
        except ConsiliumError as error:
            # Of an attempt before, or of another site's word then.
            path.unlink(missing_ok=True)
            said = {"run": site.run.run_id, "round": round_number, "sender": other}
            site.home.audit.add("left out", **said, said=str(error))
            continue
        write_packed(path, message.body)
        received += message.size
    if not received:
        raise _no_styles(site)
    return received


def _own_shape(site: Site, introduction: Introduction) -> tuple[int, ...]:
    """The shape that a style has here, from one case; nothing of it leaves the site."""
    experiment, cases = site.run.experiment, site_cases(site, "train")
    settings = experiment.training.model_copy(update={"augment": "none"})
    draws: Draws = torch_generator(experiment.seed, purpose="style", site=site.name)
    images, _ = cases.load_batch(torch.arange(1), settings, draws)
    return tuple(introduction.describe(images).shape[1:])


def _no_styles(site: Site) -> ConsiliumError:
    return RefusalError(
        f"{site.name} has no style of any other site, and the strategy compares its images with "
        "theirs. Resume the run when the other sites can take part in its first round."
    )


def told_style(content: bytes, whose: str) -> Vector:
    """The style ``(*shape)`` that a site has told, float32.

    Raises:
        ConsiliumError: it is damaged, or has what is no number.
    """
    arrays = read_memory(Content(content, f"of the style of {whose}"))
    style = arrays.get(STYLE)
    if len(arrays) != 1 or style is None or style.dtype != np.float32:
        raise RefusalError(f"The style of {whose} is refused: it is none.")
    if not np.isfinite(style).all():
        raise RefusalError(f"The style of {whose} is refused: it has what is no finite number.")
    return style


def other_styles(site: Site) -> list[Vector]:
    """The styles ``(*shape)`` of the other sites, as the site has kept them.

    Raises:
        ConsiliumError: there is none, or one is damaged.
    """
    others = (other for other in site.run.sites if other != site.name)
    paths = [site.store.style_path(other) for other in others]
    styles = [read_memory(path)[STYLE] for path in paths if path.is_file()]
    if not styles:
        raise _no_styles(site)
    return styles


def keep_styles(coordinator: Coordinator) -> dict[str, str]:
    """Keep at the coordinator the styles that sites have told, for those that join later.

    Returns:
        The sites whose style does not count, and why; the others go on without it.
    """
    topic, missing = coordinator.topic(0), dict[str, str]()
    told: dict[str, tuple[bytes, tuple[int, ...]]] = {}
    for site in coordinator.run.sites:
        try:
            body = coordinator.mailbox.receive(
                topic, kinds.STYLE, site, kinds.MOST_STYLE, for_all=True
            ).body
            told[site] = body, told_style(body, site).shape
        except ConsiliumError as error:
            missing[site] = str(error)
    shapes = Counter(shape for _, shape in told.values()).most_common(1)
    for site, (body, shape) in told.items():
        if shape == shapes[0][0]:
            write_packed(coordinator.folder.style_path(site), body)
        else:
            missing[site] = f"The style of {site} is refused: it has another form than most."
    for site, reason in missing.items():
        with suppress(FileNotFoundError):
            coordinator.folder.style_path(site).unlink()
        coordinator.note_left_out(topic, site, reason)
    return missing


def without_style(coordinator: Coordinator) -> list[str]:
    """The sites of which the coordinator keeps no style."""
    folder = coordinator.folder
    return [site for site in coordinator.run.sites if not folder.style_path(site).is_file()]
