"""The intensities of an image on a scale that all images of a modality share.

MRI has no unit: the same tissue is bright in one scanner's images and grey in another's. Landmarks,
percentiles of an image's foreground, are mapped onto those of a standard scale, and what lies
between them linearly (Nyúl and Udupa 1999, "On standardizing the MR image intensity scale", Magn.
Reson. Med. 42; Nyúl, Udupa and Zhang 2000, "New variants of a method of MRI scale standardization",
IEEE TMI 19, with deciles). The mapping is that of TorchIO's ``HistogramStandardization``.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from federated.errors import ConsiliumError
from federated.settings.harmonisation import HIGH, LOW, PERCENTILES, Standard

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

# The scale of the two percentiles alone, which nobody has to learn.
TWO_PERCENTILES: Standard = (LOW, HIGH)
# Of an image's range between these percentiles, what is darker than such a part is air.
AIR_RANGE, AIR = (0.5, 99.5), 0.05
# On the standard scale. What lies outside was extrapolated from the outermost landmarks so far that
# it says nothing any more: a vessel, a clip, the air around.
FARTHEST = (-100.0, 200.0)
# The standard scale as a network takes it: about zero mean, about unit variance, and the same for
# all images, since what each image would be scaled by is what is to be got rid of.
CENTRE, WIDTH = 50.0, 25.0


class NoScaleError(ConsiliumError):
    """An image has no foreground of two different values, so that no scale can be laid on it."""


def foreground(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which values of an image, of any shape, are of its foreground: not of the air around.

    That is what lies above a twentieth of the way from the 0.5th to the 99.5th percentile of all.
    Nyúl and Udupa, and TorchIO's ``ZNormalization.mean``, take what is brighter than the mean: in
    T1 that is fat alone where an image is full of body, and a tumour, darker than that, would be
    extrapolated. It needs nothing but the image, so that it is the same in prediction.
    """
    low, high = np.percentile(values, AIR_RANGE) if values.size else (0.0, 0.0)
    if not low < high and values.size:
        low, high = values.min(), values.max()
    return np.asarray(values > low + AIR * (high - low))


def landmarks_of(values: npt.NDArray[Any], name: str) -> Doubles:
    """The landmarks ``(11,)`` of an image: percentiles of its foreground, in rising order.

    Args:
        values: of one modality, of any shape.
        name: the name of the case, for messages.

    Raises:
        ConsiliumError: a value is no number.
        NoScaleError: the foreground has fewer than two different values.
    """
    wide = np.asarray(values, np.float64).reshape(-1)
    if not wide.size or not np.isfinite(wide).all():
        raise ConsiliumError(
            f"An image of case {name} has values that are no numbers, or none at all, so that it "
            "has no landmarks. Mend the file, or leave the case out with "
            "validate.on_failure=drop-case."
        )
    inside = wide[foreground(wide)]
    found: Doubles = np.percentile(inside, PERCENTILES) if inside.size else np.zeros(1)
    # Between two neighbouring numbers no scale can be laid.
    if not found[-1] - found[0] > np.finfo(np.float32).eps * max(np.abs(wide).max(), 1.0):
        raise NoScaleError(
            f"An image of case {name} has fewer than two different values in its foreground, which "
            "is what is brighter than a twentieth of its range, so that it has no scale to be "
            "standardised (data.harmonise). It may be a mask or an empty image. Put the right file "
            "there, or leave the case out with validate.on_failure=drop-case."
        )
    return found


def on_standard_range(landmarks: Doubles) -> Doubles:
    """Landmarks ``(11,)`` of one image with their ends brought to 0 and 100.

    The mean of these over images is the standard scale (Nyúl, Udupa and Zhang 2000, step 5 of
    training; TorchIO's ``train``).
    """
    low, high = landmarks[0], landmarks[-1]
    found: Doubles = LOW + (HIGH - LOW) * ((landmarks - low) / (high - low))
    return found


def standardised(values: npt.NDArray[Any], standard: Standard, name: str) -> Floats:
    """An image on the standard scale, centred and scaled as a network takes it, float32.

    Beyond the outermost landmarks the lines of their neighbours go on, as far as ``FARTHEST``.

    Args:
        values: of one modality, of any shape, in any unit.
        standard: the scale: eleven landmarks, or two for the outermost percentiles alone.
        name: the name of the case, for messages.

    Raises:
        ConsiliumError: as :func:`landmarks_of`.
    """
    found = landmarks_of(values, name)
    own = found[[0, -1]] if len(standard) == len(TWO_PERCENTILES) else found
    mapped = _piecewise(np.asarray(values, np.float64), own, np.asarray(standard, np.float64))
    return np.asarray((mapped.clip(*FARTHEST) - CENTRE) / WIDTH, np.float32)


def _piecewise(values: Doubles, own: Doubles, standard: Doubles) -> Doubles:
    """The line through the points ``(own, standard)``, going on beyond both ends.

    Where several landmarks of an image are one value, as in images of few grey levels, that value
    goes to the brightest of them.
    """
    mapped: Doubles = np.interp(values, own, standard)
    widths = np.diff(own)
    slopes = np.diff(standard)[widths > 0] / widths[widths > 0]
    below, above = values < own[0], values > own[-1]
    mapped[below] = standard[0] + slopes[0] * (values[below] - own[0])
    mapped[above] = standard[-1] + slopes[-1] * (values[above] - own[-1])
    return mapped
