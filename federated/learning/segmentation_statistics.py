"""The additive statistics of segmentation, and the metrics that follow from them.

A site scores its own cases and sums the scores; what single cases score, and which of them are of
one patient, stays there.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from federated.data.dataset import DatasetInfo
from federated.learning.classification_metrics import Metrics
from federated.learning.segmentation_metrics import NAMES
from federated.learning.statistics import CASES, EvaluationStatistics, Form, Part
from federated.learning.suppression import Table, smallest_group
from federated.learning.task_statistics import Measured, TaskStatistics, only_site, weighted_mean
from federated.update import Arrays

PATIENTS = "patients"
LOSS = "loss"


def form(info: DatasetInfo) -> Form:
    """The arrays, of K classes beside the background and the three scores dice, hd95 and assd.

    - ``cases`` ``(1,)`` and ``patients`` ``(1,)``: how many there are.
    - ``with_class`` ``(K,)``: of how many cases the true mask has the class.
    - ``sums`` ``(3, K)``: of each score the sum over patients, whose score is their cases' mean.
    - ``products`` ``(3, K, K)``: the sum over patients of the products of two classes' scores,
      which the standard deviation over patients of a mean over classes follows from.
    - ``loss`` ``(1,)``: the sum of the cases' losses.
    """
    classes = len(info.classes) - 1
    return {
        CASES: Part((1,)),
        PATIENTS: Part((1,), occurs=True),
        "with_class": Part((classes,)),
        "sums": Part((len(NAMES), classes), real=True),
        "products": Part((len(NAMES), classes, classes), real=True),
        LOSS: Part((1,), real=True),
    }


def statistics(predictions: Arrays, info: DatasetInfo) -> EvaluationStatistics:
    """The statistics of what :func:`federated.learning.segmentation.predict` gives."""
    _, numbers, counts = np.unique(predictions["patients"], return_inverse=True, return_counts=True)
    scores = np.zeros((len(NAMES), len(counts), len(info.classes) - 1))
    for number, name in enumerate(NAMES):
        np.add.at(scores[number], numbers, predictions[name])
    scores /= counts[:, None]
    return EvaluationStatistics(
        {
            CASES: np.array([len(predictions["patients"])]),
            PATIENTS: np.array([len(counts)]),
            "with_class": (~predictions["absent"]).sum(axis=0),
            "sums": scores.sum(axis=1),
            "products": np.einsum("spc,spd->scd", scores, scores),
            LOSS: np.array([predictions["loss"].sum()]),
        }
    )


def tables(predictions: Arrays, info: DatasetInfo, minimum: int) -> list[Table]:
    """Which cases the arrays tell apart, so that no count below ``minimum`` can be read.

    A score of 0 or 1 is an event, not a measurement: nothing was found, or there was nothing to
    find. Where all are, their sum is a count; and the distance of a class that was missed, which is
    the image's diagonal, shows in any sum. So cases with the same events have to be ``minimum`` at
    least, and as many patients with the same number of cases.
    """
    dice = predictions["dice"]
    _, cases_of_each = np.unique(predictions["patients"], return_counts=True)
    if smallest_group([cases_of_each]) < minimum:
        # Told apart from all others, a case is in no group of several, and nothing is told.
        apart = np.arange(len(dice))
        return [Table(tuple(name for name in form(info) if name != CASES), apart)]
    events = np.concatenate([predictions["absent"], dice == 0, dice == 1], axis=1)
    together = np.zeros(len(dice), np.int64)
    return [
        Table((PATIENTS,), together),
        Table(("with_class", "sums", "products", LOSS), events),
    ]


# What sums of float64 may be off by rounding, of their size.
ROUNDING = 1e-6


def contradictions(told: EvaluationStatistics, info: DatasetInfo) -> Iterator[str]:  # noqa: ARG001
    """Why statistics can be those of no cases.

    Dice is from 0 to 1 and distances are not below 0; and for the sums over n patients of scores x
    and y, (Σ x)² ≤ n·Σ x² and (Σ xy)² ≤ Σ x²·Σ y², by the Cauchy-Schwarz inequality.
    """
    cases, arrays = told.cases, told.arrays
    patients = int(arrays[PATIENTS][0]) if PATIENTS in arrays else None
    if patients is not None and not (cases > 0) <= patients <= cases:
        yield f"it has {patients} patients, and {cases} cases"
        return
    if "with_class" in arrays and (arrays["with_class"] > cases).any():
        yield f"a class is in {int(arrays['with_class'].max())} of {cases} cases"
    if LOSS in arrays and arrays[LOSS][0] < -ROUNDING * max(cases, 1):
        yield f"'loss' is {arrays[LOSS][0]:.6g}"
    if patients is None or "sums" not in arrays or "products" not in arrays:
        return
    sums, products = arrays["sums"], arrays["products"]
    if (sums < 0).any() or (products < 0).any():
        yield "a sum of scores is below 0"
    room = 1 + ROUNDING
    dice = NAMES.index("dice")
    if (sums[dice] > patients * room).any() or (products[dice] > patients * room).any():
        yield f"a sum of Dice is above {patients}, the number of patients"
    squares = np.sqrt(np.maximum(np.einsum("scc->sc", products), 0))
    bound = np.einsum("sc,sd->scd", squares, squares)
    if (sums > np.sqrt(patients) * squares * room + ROUNDING).any() or (
        products > bound * room + ROUNDING
    ).any():
        yield "sums of scores and of their products are of no patients"


def measure(told: EvaluationStatistics, info: DatasetInfo) -> Measured:
    """The metrics of statistics, of a site or of the sum over several, as ``summarise`` has them.

    A metric is ``None`` where there is no case, where no case has the class, or where what it
    follows from is withheld.
    """
    labels, arrays = info.classes[1:], told.arrays
    metrics: Metrics = {
        f"{name}{end}": None for name in NAMES for end in ("", "_sd", *(f"_{c}" for c in labels))
    }
    metrics[LOSS] = None
    if not told.cases:
        return Measured(metrics, absent=())
    if LOSS in arrays:
        metrics[LOSS] = float(arrays[LOSS][0] / told.cases)
    if "with_class" not in arrays or "sums" not in arrays or PATIENTS not in arrays:
        return Measured(metrics)
    there = np.flatnonzero(arrays["with_class"])
    absent = tuple(name for label, name in enumerate(labels) if label not in there)
    if len(there):
        for number, name in enumerate(NAMES):
            metrics |= _of_score(name, number, arrays, there, labels)
    return Measured(metrics, absent=absent)


def _of_score(
    name: str,
    number: int,
    arrays: Arrays,
    there: npt.NDArray[np.intp],
    labels: Sequence[str],
) -> Metrics:
    """Mean and standard deviation of one score over patients, and the mean of each class."""
    patients = int(arrays[PATIENTS][0])
    by_class = arrays["sums"][number] / patients
    mean = float(by_class[there].mean())
    squares = arrays["products"][number][np.ix_(there, there)].sum() / len(there) ** 2
    deviation = None
    if patients > 1:
        # What is left of equal scores is rounding, of either sign.
        deviation = float(np.sqrt(max(squares - patients * mean**2, 0.0) / (patients - 1)))
    return {
        name: mean,
        f"{name}_sd": deviation,
        **{f"{name}_{labels[label]}": float(by_class[label]) for label in there},
    }


def mean_of_sites(own: Sequence[Metrics], weights: Sequence[Mapping[str, int]]) -> Metrics:
    """The overall metrics that follow from the sites' own: means over patients, and over cases.

    A site in whose cases a class is absent tells nothing of that class, so its mean over classes is
    another one than over all sites: then the class and the mean over classes are ``None``, and so
    are standard deviations, unless one site has all cases.
    """
    alone = only_site(own, weights)
    if alone is not None:
        return dict(alone)
    by_patients = [weight.get(PATIENTS, weight[CASES]) for weight in weights]
    result: Metrics = {}
    for name in own[0] if own else ():
        by = [weight[CASES] for weight in weights] if name == LOSS else by_patients
        values = [metrics[name] for metrics in own]
        result[name] = None if name.endswith("_sd") else weighted_mean(values, by)
    there = [metrics for metrics, weight in zip(own, by_patients, strict=True) if weight]
    for name in NAMES:
        if any(len({metrics[key] is None for metrics in there}) > 1 for key in _of(name, result)):
            result[name] = None
    return result


def _of(name: str, metrics: Metrics) -> list[str]:
    """The keys of one score's classes."""
    return [key for key in metrics if key.startswith(f"{name}_") and key != f"{name}_sd"]


SEGMENTATION_STATISTICS = TaskStatistics(
    form=form,
    of=statistics,
    tables=tables,
    measure=measure,
    mean_of_sites=mean_of_sites,
    contradictions=contradictions,
    weights=(CASES, PATIENTS),
)
