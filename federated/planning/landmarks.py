"""The standard scale of intensities, from sums of the landmarks of cases over all sites.

The scale is the mean over all cases of their landmarks with the ends brought to 0 and 100 (Nyúl,
Udupa and Zhang 2000). A mean is a sum and a count, so that no site has to show the landmarks of a
case, nor its own mean. What is summed are whole numbers, so that a secure sum over the sites gives
exactly, to the last bit, what one site with all cases would find.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from federated.data.folders.histogram_standard import (
    NoScaleError,
    landmarks_of,
    on_standard_range,
)
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
STEPS: int = 10 ** (DECIMALS + 2)


def case_landmarks(images: Sequence[npt.NDArray[Any]], name: str) -> Counts:
    """What a case adds to the sums: its landmarks in whole steps, int64 ``(modalities, 11)``.

    They are those of the images as their files hold them, so that they do not depend on a spacing
    that is planned. An image without a scale, as one that is the same everywhere, adds nothing.

    Args:
        images: the values of each modality, of any shape.
        name: the name of the case, for messages.

    Raises:
        ConsiliumError: a value is no number.
    """
    total = np.zeros((len(images), len(PERCENTILES)), np.int64)
    for row, values in enumerate(images):
        try:
            total[row] = in_steps(on_standard_range(landmarks_of(values, name)))
        except NoScaleError:
            continue
    return total


def in_steps(landmarks: npt.NDArray[np.float64]) -> Counts:
    """Landmarks ``(11,)`` from 0 to 100 in whole steps.

    Raises:
        ConsiliumError: they are no numbers, fall, or have other ends; which would change the scale
            of all sites.
    """
    right = landmarks.shape == (len(PERCENTILES),) and bool(np.isfinite(landmarks).all())
    if not right or (np.diff(landmarks) < 0).any() or (landmarks[[0, -1]] != (LOW, HIGH)).any():
        raise ConsiliumError(
            f"The landmarks of an image are {np.round(landmarks, 3).tolist()!s:.300}; "
            f"{len(PERCENTILES)} numbers that rise from {LOW:g} to {HIGH:g} are expected. Check "
            "the site's images with `consilium data check`."
        )
    steps: Counts = np.rint((landmarks - LOW) / (HIGH - LOW) * STEPS).astype(np.int64)
    return steps


def landmark_faults(sums: Counts, cases: int) -> str:
    """Why sums ``(modalities, 11)`` are none of the landmarks of at most so many cases, or ``""``.

    In each modality the last landmark is that of the highest percentile, which is one whole scale
    for each case that was summed: it says how many these are.
    """
    if sums.ndim != 2 or sums.shape[1] != len(PERCENTILES):
        return f"they have the shape {sums.shape}"
    for row in sums:
        whole, rest = divmod(int(row[-1]), STEPS)
        if rest or not 0 <= whole <= cases or row[0] != 0 or (np.diff(row) < 0).any():
            told = (row / STEPS * HIGH).round(3).tolist()
            return (
                f"over at most {cases} cases they are {told!s:.200}, and have to rise from 0 to "
                f"{HIGH:g} for each case"
            )
    return ""


def standard_of(sums: Counts, cases: int) -> tuple[Standard, ...]:
    """The standard scale of each modality, from the sums over all sites.

    Args:
        sums: of landmarks in whole steps ``(modalities, 11)``.
        cases: how many cases the sites have; those without a scale are not in the sums.

    Raises:
        ConsiliumError: they are not sums of landmarks, or the scale does not rise.
    """
    if fault := landmark_faults(sums, cases):
        raise ConsiliumError(
            f"The landmarks of all sites together are refused: {fault}. A site has sent numbers "
            "that no images have, and every image would be bent by them. Nothing is made of it. "
            "Find the site by asking with protection.name=plain, where each sends its own."
        )
    found = []
    for place, row in enumerate(sums.tolist()):
        counted = row[-1] // STEPS
        if not counted:
            raise ConsiliumError(
                f"No standard scale can be made for modality number {place + 1} of {len(sums)}: no "
                f"image of the {cases} cases has a foreground of two different values. Check the "
                "images with `consilium data check`."
            )
        means = (LOW + (HIGH - LOW) * n / (counted * STEPS) for n in row)
        standard = tuple(round(mean, DECIMALS) for mean in means)
        if fault := standard_fault(standard):
            raise ConsiliumError(
                f"No standard scale can be made for modality number {place + 1} of {len(sums)}: "
                f"the mean over {counted} cases {fault}. The images have too few grey levels for "
                "so many landmarks. Set data.harmonise=percentiles, which needs two alone."
            )
        found.append(standard)
    return tuple(found)
