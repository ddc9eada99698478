"""Calibration of a classifier, from what sites tell of their validation and test cases.

The temperature and the thresholds of prediction sets follow from validation cases alone, and what
is said of how good they are from test cases alone. Sets are made of probabilities without a
temperature, which does not change which class of a case is likelier than which.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from federated.calibration.conformal import Counts, Sets, SiteSets, threshold_bin
from federated.calibration.result import Calibration
from federated.calibration.temperature import TEMPERATURES, UNCHANGED, Tempered, least_loss
from federated.data.dataset import DatasetInfo, Split
from federated.learning.score_histogram import step_edges
from federated.learning.set_statistics import OF_EVERY, OF_TRUE
from federated.learning.statistics import EvaluationStatistics
from federated.learning.tempered_statistics import CONFIDENCE, LOSS, RELIABILITY
from federated.settings.sections import EvaluationSettings
from federated.update import Arrays

BySplit = Mapping[Split, EvaluationStatistics]
NEEDED = {"temperature": (LOSS, RELIABILITY, CONFIDENCE), "conformal": (OF_TRUE, OF_EVERY)}


def calibration_of(
    together: BySplit, own: Mapping[str, BySplit], info: DatasetInfo, settings: EvaluationSettings
) -> Calibration | None:
    """The calibration that follows from statistics; ``None`` where nothing was asked for.

    Args:
        together: of all sites together, of each split.
        own: of each site, where that is known.
        info: of the data set.
        settings: what was asked for.
    """
    fitted = None
    if settings.calibration == "temperature" and _known(together, "temperature"):
        fitted = _tempered(together["val"], together["test"])
    if settings.conformal is None or not _known(together, "conformal"):
        return None if fitted is None else Calibration(fitted)
    alpha = settings.conformal.alpha
    pooled = _sets(together["val"], together["test"], info, alpha)
    sites = {
        site: SiteSets(
            _sets(by_split["val"], by_split["test"], info, alpha),
            _sets(together["val"], by_split["test"], info, alpha),
        )
        for site, by_split in own.items()
    }
    return Calibration(fitted, pooled, sites)


def _known(together: BySplit, what: str) -> bool:
    """Whether no site withholds what follows from all of them."""
    return all(name in together[split].arrays for split in ("val", "test") for name in NEEDED[what])


def _tempered(val: EvaluationStatistics, test: EvaluationStatistics) -> Tempered | None:
    """The temperature of validation cases, and what it does to test cases; ``None`` without one."""
    if not val.cases:
        return None
    step = least_loss(val.arrays[LOSS])
    losses, ece = None, None
    if test.cases:
        before, after = (float(test.arrays[LOSS][at]) / test.cases for at in (UNCHANGED, step))
        losses = before, after
        ece = _ece(test.arrays, UNCHANGED, test.cases), _ece(test.arrays, step, test.cases)
    return Tempered(TEMPERATURES[step], val.cases, losses, ece)


def _ece(arrays: Arrays, step: int, cases: int) -> float:
    gaps = arrays[CONFIDENCE][step] - arrays[RELIABILITY][step][:, 1]
    return float(np.abs(gaps).sum() / cases)


def tempered_bins(
    statistics: EvaluationStatistics, temperature: float
) -> tuple[Counts, npt.NDArray[np.float64]] | None:
    """Reliability counts ``(15, 2)`` and sums of confidences ``(15,)`` at a temperature.

    ``None`` where they are not told.
    """
    if RELIABILITY not in statistics.arrays or CONFIDENCE not in statistics.arrays:
        return None
    step = TEMPERATURES.index(temperature)
    return statistics.arrays[RELIABILITY][step], statistics.arrays[CONFIDENCE][step]


def _sets(
    val: EvaluationStatistics, test: EvaluationStatistics, info: DatasetInfo, alpha: float
) -> Sets:
    """The sets of test cases by the threshold of validation cases."""
    at = threshold_bin(val.arrays[OF_TRUE], alpha)
    return Sets(
        threshold=threshold(at, len(info.classes)),
        fitted_on=val.cases,
        alpha=alpha,
        cases=test.cases,
        covered=int(test.arrays[OF_TRUE][at:].sum()),
        classes=int(test.arrays[OF_EVERY][at:].sum()),
    )


def threshold(at: int, classes: int) -> float:
    """The least probability in a step of :mod:`~federated.learning.score_histogram`, or in all."""
    if at == 0:
        return 0.0
    # A step holds its upper edge and not its lower one.
    return float(np.nextafter(step_edges(classes)[at - 1], 1.0))
