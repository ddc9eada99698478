"""Intensities on the scale that a network takes.

Scaling an image and adding an offset, ``a·x + b`` with a > 0, changes nothing: it is measured in
its own percentiles, in float64, before anything is put around it. Hounsfield units are absolute,
and keep their window. Where a family has standard scales, an image is brought to these instead.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from federated.data.folders.families import Family
from federated.data.folders.histogram_standard import standardised
from federated.errors import ConsiliumError
from federated.settings.harmonisation import Standard

PERCENTILES = (0.5, 99.5)

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


def unit_range(values: Array, family: Family, name: str) -> Floats:
    """The values of a modality ``(channels, *spatial)`` brought to [0, 1], as float32.

    In CT, 0 and 1 are the ends of the family's window; in a picture its darkest and its brightest
    value, of all colours together; otherwise the image's 0.5th and 99.5th percentile. Where the
    family has standard scales nothing is clipped, since these have percentiles of their own.

    Raises:
        ConsiliumError: the image has one value everywhere, or one in the window, or is not in
            Hounsfield units where it should be.
    """
    low, high = family.window or _own_range(values, family)
    if low == high:
        raise ConsiliumError(
            f"An image of case {name} has one value everywhere. Put the right file there, or leave "
            "the case out with validate.on_failure=drop-case."
        )
    # Hounsfield units fit into float32; a CT in float64 might not fit into memory.
    narrow = family.window and values.dtype == np.float32
    wide = values if narrow else values.astype(np.float64)
    clipped = wide if family.standards else np.clip(wide, low, high)
    if family.window:
        _refuse_no_hounsfield(values, clipped, family, name)
    clipped -= low
    clipped /= high - low
    return np.asarray(clipped, np.float32)


def normalised(
    unit: Floats, family: Family, name: str, standard: Standard | None = None
) -> tuple[Floats, tuple[float, ...]]:
    """Values ``(channels, *spatial)`` of :func:`unit_range` as a network takes them, and around.

    CT stays as it is, with the lower end of its window around it. Other images are brought to the
    modality's ``standard``, or without one get zero mean and unit variance, over all channels of a
    modality together; and have their own darkest value around them.

    Returns:
        The values, and for each channel the value that lies around the image.

    Raises:
        ConsiliumError: the image has one value everywhere, or no foreground to be standardised by.
    """
    if family.window:
        return unit, (0.0,) * len(unit)
    if standard is not None:
        scaled = standardised(unit, standard, name)
        return scaled, tuple(float(channel.min()) for channel in scaled)
    wide = unit.astype(np.float64)
    deviation = wide.std()
    if not deviation > 0:
        raise ConsiliumError(
            f"An image of case {name} has one value everywhere at the spacing of {family.name}. "
            "Put the right file there, or leave the case out with validate.on_failure=drop-case."
        )
    result = ((wide - wide.mean()) / deviation).astype(np.float32)
    return result, tuple(float(channel.min()) for channel in result)


def _own_range(values: Array, family: Family) -> tuple[float, float]:
    ends = float(values.min()), float(values.max())
    if family.dims == 2:
        return ends
    low, high = np.percentile(np.asarray(values, np.float64), PERCENTILES)
    # Where nearly all is background, the percentiles are one value.
    return (float(low), float(high)) if low < high else ends


def _refuse_no_hounsfield(values: Array, clipped: Array, family: Family, name: str) -> None:
    low, high = float(values.min()), float(values.max())
    if clipped.min() < clipped.max() and not (low >= 0 and high <= 1):
        return
    assert family.window
    raise ConsiliumError(
        f"The intensities of case {name} lie in {low:g}..{high:g}; {family.name} takes Hounsfield "
        f"units, of which it sees {family.window[0]:g}..{family.window[1]:g}. Save it in these, or "
        "leave the case out with validate.on_failure=drop-case."
    )
