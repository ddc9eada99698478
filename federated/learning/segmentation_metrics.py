"""Overlap and surface distance of masks, for each case and class, by MONAI.

Where a class is in neither mask, there was nothing to find and nothing was found: Dice is 1 and the
distances are 0. Where it is in one of them alone, Dice is 0 and each distance is the diagonal of
the image, which is the farthest that two surfaces could be apart (as BraTS scores it), so that a
model gains nothing by leaving a class out. This holds for single cases. A class without a true
voxel in any case of a split says nothing of a model, so it is left out of the means over classes,
and named.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from federated.learning.metric import distance, error_over_cases, metric

Mask = npt.NDArray[np.integer]

# All that a split has, beside those of each label; models are judged by the first of them.
METRICS = (
    metric(
        *("dice", "round", "end", "csv", "site", "compared", "site_spread", "selects"),
        needs="means",
    ),
    distance("hd95", "round", "end", "csv", "site", "compared"),
    distance("assd", "end", "csv", "site", "compared"),
    error_over_cases("loss", "round", "csv", "site", "selects"),
)
# The metrics that each case has.
NAMES = ("dice", "hd95", "assd")
PERCENTILE = 95.0


@dataclass(frozen=True)
class CaseScore:
    """The values of a case for each class but the background, ``(classes − 1,)``, by label.

    ``dice`` is in [0, 1]. ``hd95`` is the 95th percentile of the Hausdorff distance, the larger of
    both directions, and ``assd`` the average symmetric surface distance; both are in mm, or in
    pixels of a picture. ``absent`` are the labels that have no voxel in the true mask.
    """

    case: str
    patient: str
    dice: tuple[float, ...]
    hd95: tuple[float, ...]
    assd: tuple[float, ...]
    absent: frozenset[int] = frozenset()

    @property
    def mean_dice(self) -> float:
        """The mean over the classes in the true or the predicted mask; 1 where there is none."""
        there = [
            value
            for label, value in enumerate(self.dice, start=1)
            if label not in self.absent or value < 1
        ]
        return float(np.mean(there)) if there else 1.0


def score_case(
    case: str,
    patient: str,
    predicted: Mask,
    truth: Mask,
    classes: int,
    spacing: Sequence[float],
) -> CaseScore:
    """Score a predicted mask against the true one.

    Args:
        case: the name of the case.
        patient: whose case it is.
        predicted: the predicted mask ``(*spatial)``, with values in [0, ``classes``).
        truth: the true mask, of the same form.
        classes: how many classes there are, with the background.
        spacing: the sides of a voxel along each axis, in mm.

    Raises:
        ValueError: the shapes differ, or the spacing is for another number of axes.
    """
    if predicted.shape != truth.shape or len(spacing) != truth.ndim:
        raise ValueError(f"{case}: {predicted.shape} and {truth.shape}, spacing {spacing}")
    values = [
        _class_values(predicted == label, truth == label, spacing) for label in range(1, classes)
    ]
    dice, hd95, assd = zip(*values, strict=True)
    absent = frozenset(range(1, classes)) - {int(label) for label in np.unique(truth)}
    return CaseScore(case, patient, dice, hd95, assd, absent)


def _class_values(
    predicted: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_], spacing: Sequence[float]
) -> tuple[float, float, float]:
    """Dice, HD95 and ASSD of one class."""
    # Importing MONAI takes seconds; only those who segment should wait for it.
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_distance import compute_average_surface_distance

    found, there = int(predicted.sum()), int(truth.sum())
    if not found and not there:
        return 1.0, 0.0, 0.0
    if not found or not there:
        farthest = float(np.linalg.norm(np.multiply(truth.shape, spacing)))
        return 0.0, farthest, farthest
    dice = 2 * int((predicted & truth).sum()) / (found + there)
    one, other = (torch.from_numpy(mask)[None, None] for mask in (predicted, truth))
    sides = list(spacing)
    with warnings.catch_warnings():
        # MONAI 1.6 calls itself in a way that it has deprecated.
        warnings.filterwarnings(
            "ignore", message=".*always_return_as_numpy", category=FutureWarning
        )
        hd95 = compute_hausdorff_distance(
            one, other, include_background=True, percentile=PERCENTILE, spacing=sides
        )
        assd = compute_average_surface_distance(
            one, other, include_background=True, symmetric=True, spacing=sides
        )
    return dice, float(hd95), float(assd)


def absent_classes(scores: Sequence[CaseScore], labels: Sequence[str]) -> tuple[str, ...]:
    """The classes without a true voxel in any of the cases, in the order of ``labels``."""
    if not scores:
        return ()
    missing = frozenset.intersection(*(score.absent for score in scores))
    return tuple(name for label, name in enumerate(labels) if label in missing)


def summarise(scores: Sequence[CaseScore], labels: Sequence[str]) -> dict[str, float | None]:
    """Means and standard deviations over patients; every value is ``None`` where there is no case.

    A patient's value is the mean of their cases. The keys are each of :data:`NAMES`, averaged over
    classes; ``NAME_sd``, its sample standard deviation over patients; and ``NAME_CLASS`` for each
    class. Those of :func:`absent_classes` are ``None`` and enter no mean, because nothing is known
    of how well they are found.

    Args:
        scores: of any number of cases.
        labels: the names of the classes, the background first.
    """
    keys = ("", "_sd", *(f"_{label}" for label in labels[1:]))
    result: dict[str, float | None] = {f"{name}{end}": None for name in NAMES for end in keys}
    missing = absent_classes(scores, labels)
    there = [number for number, label in enumerate(labels[1:]) if label not in missing]
    if not scores or not there:
        return result
    for name in NAMES:
        patients = _by_patient(scores, name)
        means = patients[:, there].mean(axis=1)
        result[name] = float(means.mean())
        result[f"{name}_sd"] = float(means.std(ddof=1)) if len(means) > 1 else None
        for number in there:
            result[f"{name}_{labels[1 + number]}"] = float(patients[:, number].mean())
    return result


def _by_patient(scores: Sequence[CaseScore], name: str) -> npt.NDArray[np.float64]:
    """``(patients, classes)``."""
    found: dict[str, list[tuple[float, ...]]] = {}
    for score in scores:
        found.setdefault(score.patient, []).append(getattr(score, name))
    return np.array([np.mean(values, axis=0) for values in found.values()])


def worst_median_best(scores: Sequence[CaseScore]) -> Mapping[str, CaseScore]:
    """The cases with the lowest, the middle and the highest mean Dice, by those names.

    The mean of a case is over the classes that are in its true or its predicted mask.
    """
    ordered = sorted(scores, key=lambda score: score.mean_dice)
    if not ordered:
        return {}
    return {"worst": ordered[0], "median": ordered[len(ordered) // 2], "best": ordered[-1]}
