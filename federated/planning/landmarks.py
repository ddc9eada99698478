"""The standard scale of intensities, from sums of the landmarks of cases over all sites.

The scale is the mean over all cases of their landmarks with the ends brought to 0 and 100 (Nyúl,
Udupa and Zhang 2000). A mean is a sum and a count, so that no site has to show the landmarks of a
case, nor its own mean. What is summed are whole numbers, so that a secure sum over the sites gives
exactly, to the last bit, what one site with all cases would find.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from federated.errors import ConsiliumError
from federated.planning.bins import Counts
from federated.settings.harmonisation import (
    DECIMALS,
    HIGH,
    LOW,
    PERCENTILES,
    Standard,
    standard_fault,
)

# The scale from 0 to 100 in whole steps, so fine that rounding is below what is kept of a standard.
STEPS = 10 ** (DECIMALS + 2)


def landmark_sums(landmarks: Sequence[npt.NDArray[np.float64]], modalities: int) -> Counts:
    """The sum over cases of their landmarks, in whole steps: int64 ``(modalities, 11)``.

    Args:
        landmarks: of each case ``(modalities, 11)``, with ends of 0 and 100.
        modalities: how many images a case has.

    Raises:
        ConsiliumError: the landmarks of a case are no numbers, fall, or have other ends; which
            would change the scale of all sites.
    """
    total = np.zeros((modalities, len(PERCENTILES)), np.int64)
    for each in landmarks:
        right = each.shape == total.shape and bool(np.isfinite(each).all())
        if not right or (np.diff(each) < 0).any() or (each[:, [0, -1]] != (LOW, HIGH)).any():
            raise ConsiliumError(
                f"The landmarks of a case are {np.round(each, 3).tolist()!s:.300}; "
                f"{len(PERCENTILES)} numbers that rise from {LOW:g} to {HIGH:g} are expected for "
                f"each of {modalities} modalities. Check the site's images with `consilium data "
                "check`."
            )
        total += np.rint((each - LOW) / (HIGH - LOW) * STEPS).astype(np.int64)
    return total


def refuse_landmark_sums(sums: npt.NDArray[np.int64], cases: int, whose: str) -> None:
    """Refuse sums that are not those of the landmarks of so many cases, whoever has made them.

    Args:
        sums: ``(modalities, 11)`` in whole steps, of one site or of several together.
        cases: how many cases they are said to be of.
        whose: what the sums are, for the message, as ``of site north``.

    Raises:
        ConsiliumError: they fall, or their ends are not those of so many cases.
    """
    wrong = sums.ndim != 2 or sums.shape[1] != len(PERCENTILES)
    if not wrong:
        ends = (sums[:, 0] != 0) | (sums[:, -1] != cases * STEPS)
        wrong = bool(ends.any() or (np.diff(sums) < 0).any())
    if wrong or cases < 1:
        raise ConsiliumError(
            f"The landmarks {whose} are refused: summed over {cases} cases they are "
            f"{(sums / STEPS * HIGH).round(3).tolist()!s:.300}, and have to rise from 0 to "
            f"{cases * HIGH:g} in each modality. A site has sent numbers that no images have, and "
            "every image would be bent by them. Nothing is made of it. Ask the sites again, or "
            "find the one by asking with protection.name=plain, where each sends its own."
        )


def standard_of(sums: npt.NDArray[np.int64], cases: int) -> tuple[Standard, ...]:
    """The standard scale of each modality, from the sums over all sites.

    Args:
        sums: of landmarks in whole steps ``(modalities, 11)``.
        cases: how many cases are in them.

    Raises:
        ConsiliumError: they are not sums of landmarks, or the scale does not rise.
    """
    refuse_landmark_sums(sums, cases, "of all sites together")
    means = [
        tuple(round(LOW + (HIGH - LOW) * int(n) / (cases * STEPS), DECIMALS) for n in row)
        for row in sums.tolist()
    ]
    for place, standard in enumerate(means):
        if fault := standard_fault(standard):
            raise ConsiliumError(
                f"No standard scale can be made for modality number {place + 1} of {len(means)}: "
                f"the mean over {cases} cases {fault}. The images have too few grey levels for so "
                "many landmarks. Set data.harmonise=percentiles, which needs two alone."
            )
    return tuple(means)
