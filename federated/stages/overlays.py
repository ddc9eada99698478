"""Pictures of a site's worst, median and best test case, with the true and the predicted mask.

They show images of patients, so they are made where ``sites.overlays`` says so, and nowhere else.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from federated.data.folders.families import Family
from federated.data.folders.prepared_case import PreparedCase
from federated.data.folders.segmented_cases import SegmentedCases
from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.exchange.message import Topic
from federated.files import PRIVATE, atomic_path, write_json
from federated.learning.segmentation import segment
from federated.learning.segmentation_metrics import CaseScore, score_case, worst_median_best
from federated.privacy.spending import PICTURES
from federated.secrets.pseudonyms import pseudonym, pseudonym_secret
from federated.stages.coordinator import Coordinator
from federated.stages.entering import enter_evaluation
from federated.stages.site import SiteCall, open_end, open_site
from federated.stages.site_model import own_weights
from federated.stages.worker import site_cases, worker_context

# Okabe and Ito 2008, "Color Universal Design": told apart by who does not see red or green. The
# background has none; classes beyond the ninth all look like it.
COLOURS = ListedColormap(
    [
        *("#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442"),
        *("#0072b2", "#d55e00", "#cc79a7", "#999999", "#ffffff"),
    ]
)
Mask = npt.NDArray[np.integer[Any]]
# By which a PNG file begins.
PNG = b"\x89PNG\r\n\x1a\n"


def draw_site(call: SiteCall, round_number: int) -> None:
    """Send the coordinator pictures of three test cases with the model whose round the run keeps.

    They are PNG files, ``SITE-worst.png`` and so on. What is written over them names a case by a
    pseudonym: a case is often called after its patient. Which case that is, the site finds in its
    own ``pictures.json``.

    Raises:
        ConsiliumError: a budget or the site's policy does not allow it, or no pictures stand in the
            plan of the run.
    """
    site = open_site(call)
    policy = site.home.policy()
    if not site.run.experiment.sites.overlays or policy.settings.pictures == "refused":
        raise RefusalError(
            f"{site.name} makes no pictures of test cases: they are not in the plan of the run, or "
            f"they do not leave the site, by {policy.by('pictures')}."
        )
    context = worker_context(site)
    cases = site_cases(site, "test")
    assert isinstance(cases, SegmentedCases)
    state, topic = open_end(site, round_number)
    enter_evaluation(site, round_number, ("test",), PICTURES)
    state.layout.load(context.model, own_weights(site, state))
    device = next(context.model.parameters()).device
    masks: dict[str, tuple[PreparedCase, Mask, Mask]] = {}
    scores: list[CaseScore] = []
    for index, shown in enumerate(cases.shown):
        case, name = cases.case(index), shown.files.name
        assert case.whole_mask is not None
        found = segment(context.model, case.whole, cases.family, device).argmax(dim=0)
        predicted, truth = found.cpu().numpy().astype(np.uint8), case.whole_mask.numpy()
        spacing = (1.0,) * truth.ndim
        classes = len(context.info.classes)
        scores.append(score_case(name, shown.files.patient, predicted, truth, classes, spacing))
        masks[name] = (case, truth, predicted)
    pictures, named, secret = {}, {}, pseudonym_secret(site.home.root)
    for which, score in worst_median_best(scores).items():
        known = pseudonym(score.case, secret)
        named[known] = score.case
        title = f"{site.name}, {which} test case: {known}, Dice {score.mean_dice:.3f}"
        content = _draw(cases.family, *masks[score.case], title)
        pictures[f"{site.name}-{which}.png"] = np.frombuffer(content, np.uint8)
    write_json(site.store.pictures_path, named, PRIVATE)
    site.to_coordinator(topic, kinds.PICTURES, save(pictures))


def receive_pictures(
    coordinator: Coordinator, topic: Topic, sites: Sequence[str]
) -> dict[str, str]:
    """Write the sites' pictures to ``overlays/`` of the run's folder.

    Returns:
        The sites whose pictures have not arrived or are none, and why; nothing of them is written.
    """
    missing: dict[str, str] = {}
    for site in sites:
        try:
            message = coordinator.mailbox.receive(topic, kinds.PICTURES, site, kinds.MOST_PICTURES)
            pictures = _pictures(message.body, site)
        except ConsiliumError as error:
            missing[site] = str(error)
            coordinator.note_left_out(topic, site, str(error))
            continue
        for name, content in pictures.items():
            with atomic_path(coordinator.folder.root / "overlays" / name) as temporary:
                temporary.write_bytes(content)
    return missing


def _pictures(content: bytes, site: str) -> dict[str, bytes]:
    """The PNG files that a site has sent, by name.

    Raises:
        ConsiliumError: they are none.
    """
    try:
        pictures = {name: array.tobytes() for name, array in load(content).items()}
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ConsiliumError(f"The pictures of {site} are none ({error!r:.100}).") from error
    asked = {f"{site}-{which}.png" for which in ("worst", "median", "best")}
    for name, picture in pictures.items():
        if name not in asked:
            raise ConsiliumError(f"{site} has sent a picture {name!r:.80} that nobody asked for.")
        if not picture.startswith(PNG):
            raise ConsiliumError(f"{site} has sent {name}, which is no PNG file.")
    return pictures


def _draw(family: Family, case: PreparedCase, truth: Mask, predicted: Mask, title: str) -> bytes:
    """A PNG: the image alone, with the true mask, with the predicted one; a slice of a volume."""
    image = case.whole.numpy()
    if truth.ndim == 3:
        # The axial slice in which there is most to be seen.
        level = int((truth > 0).sum(axis=(0, 1)).argmax())
        image, truth, predicted = image[..., level], truth[..., level], predicted[..., level]
        # The front of the head up, as radiologists look at it.
        image = np.moveaxis(image, 1, 2)[:, ::-1]
        truth, predicted = truth.T[::-1], predicted.T[::-1]
    shown = np.moveaxis(image, 0, -1) if image.shape[0] == 3 else image[-1]
    low, high = np.percentile(shown, (0.5, 99.5))
    shown = ((shown - low) / max(high - low, 1e-6)).clip(0, 1)
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, mask, name in zip(
        panels, (None, truth, predicted), ("image", "true mask", "predicted mask"), strict=True
    ):
        axes.imshow(shown, cmap="gray", interpolation="nearest")
        if mask is not None:
            covered = np.ma.masked_equal(mask, 0)
            colours = {"cmap": COLOURS, "vmin": 0, "vmax": 9, "alpha": 0.5}
            axes.imshow(covered, interpolation="nearest", **colours)
        axes.set(title=name, xticks=[], yticks=[])
    names = dict(enumerate(family.labels))
    handles = [Patch(color=COLOURS(n), label=names[n]) for n in list(names)[1:]]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.suptitle(title)
    content = BytesIO()
    figure.savefig(content, dpi=90, format="png")
    return content.getvalue()
