"""Segmentation: a class for each voxel of an image.

A site scores its own cases and sends numbers alone; no mask leaves it. Which numbers, single cases'
or sums over them, ``evaluation.share`` says.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from federated.data.cases import Cases
from federated.data.dataset import SPLITS, DatasetInfo, Split
from federated.data.folders.families import Family
from federated.learning.base import Arrays, LearningTask, PredictionForm
from federated.learning.classification_metrics import Metrics
from federated.learning.evaluation import Evaluation, site_spread
from federated.learning.images import probabilities
from federated.learning.segmentation_loss import dice_ce
from federated.learning.segmentation_metrics import (
    METRICS,
    NAMES,
    CaseScore,
    absent_classes,
    score_case,
    summarise,
)
from federated.learning.segmentation_statistics import SEGMENTATION_STATISTICS
from federated.settings.sections import TrainingSettings
from federated.training.objective import Loss

# Neighbouring windows share this part of their sides.
OVERLAP = 0.25
WINDOWS_AT_ONCE = 4


def make_loss(
    cases: Cases,  # noqa: ARG001 - as every task's
    settings: TrainingSettings,  # noqa: ARG001
    info: DatasetInfo,  # noqa: ARG001
    device: torch.device,  # noqa: ARG001
) -> Loss:
    """The soft Dice loss plus cross-entropy of each case; see :func:`dice_ce` for the shapes."""

    def loss(logits: Tensor, masks: Tensor, reduction: str) -> Tensor:
        losses = dice_ce(logits, masks)
        return losses.mean() if reduction == "mean" else losses

    return loss


def segment(model: nn.Module, image: Tensor, family: Family, device: torch.device) -> Tensor:
    """The logits ``(classes, *spatial)`` of one prepared image ``(channels, *spatial)``.

    The image has to be at least as large as the family's shape, as prepared cases are. An image of
    exactly that shape passes the network at once if its family is taken whole. Any other is
    predicted window by window, and where windows of that shape overlap, their logits are averaged
    with Gaussian weights (MONAI's sliding window).
    """
    # Importing MONAI takes seconds; only those who segment should wait for it.
    from monai.inferers.utils import sliding_window_inference

    model.eval()
    with torch.inference_mode():
        batch = image.unsqueeze(0).to(device)
        if family.whole and image.shape[1:] == family.shape:
            return _logits(model, batch)[0]
        found = sliding_window_inference(
            batch,
            family.shape,
            WINDOWS_AT_ONCE,
            partial(_logits, model),
            overlap=OVERLAP,
            mode="gaussian",
        )
        assert isinstance(found, Tensor)
        return found[0]


def _logits(model: nn.Module, batch: Tensor) -> Tensor:
    """The logits of a batch; a single volume passes the network twice on a CPU.

    torch leaves oneDNN aside for the convolution of one volume, which then takes four times as long
    as that of two.
    """
    twice = len(batch) == 1 and batch.ndim == 5 and batch.device.type == "cpu"
    logits: Tensor = model(batch.expand(2, -1, -1, -1, -1) if twice else batch)
    return logits[: len(batch)]


def predict(model: nn.Module, cases: Cases, device: torch.device, info: DatasetInfo) -> Arrays:
    """The scores of each case, on the case's own grid.

    ``dice``, ``hd95`` (mm) and ``assd`` (mm) are ``(n, classes − 1)``. So is ``absent``, which is
    true where the class has no voxel in the true mask. ``loss`` ``(n,)`` is computed on the
    prepared grid. ``patients`` ``(n,)`` are numbers that tell the site's patients apart.
    """
    from federated.data.folders.segmented_cases import SegmentedCases

    assert isinstance(cases, SegmentedCases)
    classes = len(info.classes)
    numbers: dict[str, int] = {}
    scores: list[CaseScore] = []
    losses: list[float] = []
    for index, shown in enumerate(cases.shown):
        case, files = cases.case(index), shown.files
        assert case.truth is not None
        assert case.whole_mask is not None
        logits = segment(model, case.whole, cases.family, device).cpu()
        losses.append(float(dice_ce(logits.unsqueeze(0), case.whole_mask.unsqueeze(0))[0]))
        predicted = case.to_own_grid(logits.softmax(dim=0))
        numbers.setdefault(files.patient, len(numbers))
        scores.append(
            score_case(files.name, files.patient, predicted, case.truth, classes, case.own.spacing)
        )
    arrays = {
        name: np.array([getattr(score, name) for score in scores], np.float64).reshape(
            -1, classes - 1
        )
        for name in NAMES
    }
    patients = np.array([numbers[score.patient] for score in scores], np.int64)
    absent = [[label in score.absent for label in range(1, classes)] for score in scores]
    return {
        **arrays,
        "absent": np.array(absent, np.bool_).reshape(-1, classes - 1),
        "loss": np.array(losses, np.float64),
        "patients": patients,
    }


def forms(info: DatasetInfo) -> dict[str, PredictionForm]:
    """The form of what :func:`predict` gives."""
    each, largest = (len(info.classes) - 1,), float(np.finfo(np.float64).max)
    return {
        **{
            name: PredictionForm(each, "f", 0, 1 if name == NAMES[0] else largest) for name in NAMES
        },
        "absent": PredictionForm(each, "b", 0, 1),
        # Below 0 by rounding alone.
        "loss": PredictionForm((), "f", -1e-6, largest),
        "patients": PredictionForm((), "i", 0, None),
    }


def score(predictions: Mapping[str, Mapping[Split, Arrays]], info: DatasetInfo) -> Evaluation:
    """Means over patients, for all sites together and for each site.

    A class without a true voxel in a split is left out of the means there: of those of all sites if
    it is absent at all of them, and of those of a site if it is absent at that site.
    """
    overall: dict[Split, Metrics] = {}
    absent: dict[Split, tuple[str, ...]] = {}
    per_site: dict[str, dict[Split, Metrics]] = {site: {} for site in predictions}
    absent_at: dict[str, dict[Split, tuple[str, ...]]] = {site: {} for site in predictions}
    for split in SPLITS[1:]:
        everyone: list[CaseScore] = []
        losses: list[float] = []
        for site, by_split in predictions.items():
            scores = _scores(site, by_split[split])
            own = by_split[split]["loss"].tolist()
            per_site[site][split] = _metrics(scores, own, info)
            absent_at[site][split] = absent_classes(scores, info.classes)
            everyone += scores
            losses += own
        overall[split] = _metrics(everyone, losses, info)
        absent[split] = absent_classes(everyone, info.classes)
    compared = SEGMENTATION.metrics_in("site_spread")
    spread = {split: site_spread(per_site, split, compared) for split in SPLITS[1:]}
    return Evaluation(overall, per_site, spread, {}, absent, absent_at)


def _scores(site: str, arrays: Arrays) -> list[CaseScore]:
    return [
        CaseScore(
            case=str(index),
            patient=f"{site}/{patient}",
            dice=tuple(arrays["dice"][index]),
            hd95=tuple(arrays["hd95"][index]),
            assd=tuple(arrays["assd"][index]),
            # What older runs have written does not say.
            absent=frozenset(np.flatnonzero(arrays["absent"][index]) + 1)
            if "absent" in arrays
            else frozenset(),
        )
        for index, patient in enumerate(arrays["patients"])
    ]


def _metrics(scores: Sequence[CaseScore], losses: Sequence[float], info: DatasetInfo) -> Metrics:
    return {
        **summarise(scores, info.classes),
        "loss": float(np.mean(losses)) if losses else None,
    }


def exact_metrics(part: Arrays, info: DatasetInfo) -> Metrics:
    """The metrics of one site and split, from its cases' scores."""
    return _metrics(_scores("", part), part["loss"].tolist(), info)


SEGMENTATION = LearningTask(
    goal="segmentation",
    title="Dice",
    metrics=METRICS,
    make_loss=make_loss,
    predict=predict,
    score=score,
    exact=exact_metrics,
    statistics=SEGMENTATION_STATISTICS,
    forms=forms,
    readout=probabilities,
    results=None,
    groups=False,
    compares_sites=True,
)
