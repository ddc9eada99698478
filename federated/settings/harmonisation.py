"""How intensities without a physical unit are brought to one scale, and that scale."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

Harmonise = Literal["none", "percentiles", "nyul"]

# Of an image's foreground. TorchIO's HistogramStandardization maps by the same, and carries the
# quartiles besides, which it does not use.
PERCENTILES = (1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0)
# The ends of the standard scale, TorchIO's too.
LOW, HIGH = 0.0, 100.0
# Landmarks are kept with so many decimals: a header of a model carries them.
DECIMALS = 6

Standard = tuple[float, ...]


def standard_fault(landmarks: Standard) -> str:
    """What is wrong with the landmarks of a standard scale; ``""`` where nothing is.

    They have to be eleven, rise from one to the next, and begin at 0 and end at 100.
    """
    told = ", ".join(f"{value:g}" for value in landmarks[: len(PERCENTILES) + 1])
    if len(landmarks) != len(PERCENTILES):
        return (
            f"has {len(landmarks)} landmarks ({told:.200}), and a scale has {len(PERCENTILES)}, at "
            f"the percentiles {', '.join(f'{p:g}' for p in PERCENTILES)}"
        )
    # NaN is not above anything, so that it is refused here too.
    if not all(first < second for first, second in pairwise(landmarks)):
        return (
            f"has landmarks that do not rise, {told:.200}: what is brighter in an image would not "
            "be brighter on the scale"
        )
    if (landmarks[0], landmarks[-1]) != (LOW, HIGH):
        return (
            f"has landmarks from {landmarks[0]:g} to {landmarks[-1]:g}, and a scale goes from "
            f"{LOW:g} to {HIGH:g}"
        )
    return ""


def _standard(landmarks: Standard) -> Standard:
    rounded = tuple(round(value, DECIMALS) for value in landmarks)
    if fault := standard_fault(rounded):
        raise ValueError(f"it {fault}")
    return rounded


# From each modality to its landmarks on the standard scale.
Landmarks = Mapping[
    Annotated[str, Field(min_length=1, max_length=200)],
    Annotated[Standard, AfterValidator(_standard)],
]
