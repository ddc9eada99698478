"""Spacing and shape of a described set from what all sites have counted, in place of `auto`.

The rules are those by which one folder's headers are read, in
``data/folders/described/automatic.py``: the median spacing, whole cases where all are small, and
otherwise patches of about 64³ voxels.
"""

from math import ceil, prod

from federated.data.folders.described.sizes import (
    LONGEST_PICTURE,
    LONGEST_VOLUME,
    MOST_VOXELS,
)
from federated.planning.fingerprint import Fingerprint
from federated.settings.description import MULTIPLE, Description

# What a description may have at most along an axis.
LONGEST = 1024
# What stands in place of `auto` until it is planned; nothing is prepared by it for a training.
PROVISIONAL_SIDE = 64


def provisional(description: Description) -> tuple[Description, tuple[str, ...]]:
    """A description that can be read, and which of its values are still to be planned."""
    update: dict[str, object] = {}
    if description.kind == "volumes" and description.spacing == "auto":
        update["spacing"] = (1.0, 1.0, 1.0)
    if description.shape == "auto":
        update["shape"] = (PROVISIONAL_SIDE,) * description.dims
    return description.model_copy(update=update), tuple(update)


def settled_by(description: Description, auto: tuple[str, ...], found: Fingerprint) -> Description:
    """A description with the numbers that follow from the cases of all sites.

    Args:
        description: with what is stated, and what :func:`provisional` put in place of the rest.
        auto: which of ``spacing`` and ``shape`` are to be planned.
        found: what was counted.
    """
    if description.kind == "pictures":
        median = found.medians("size")
        scale = min(1.0, LONGEST_PICTURE / max(median))
        shape = tuple(_multiple(side * scale) for side in median)
        return description.model_copy(
            update={"shape": shape, "whole": description.whole is not False}
        )
    reach = found.medians("reach")
    spacing = description.spacing
    if "spacing" in auto:
        spacing = tuple(float(f"{side:.4g}") for side in found.medians("spacing"))
        if not description.segments:
            # A class needs no finer voxels than a whole image of that many has.
            least = float(f"{max(reach) / LONGEST_VOLUME:.4g}")
            spacing = tuple(max(side, least) for side in spacing)
    assert spacing != "auto"
    if "shape" not in auto:
        return description.model_copy(update={"spacing": spacing})
    # The largest, to the end of its bin.
    most = [found.quantile("reach", 1, row) * 1.01 for row in range(3)]
    largest = [MULTIPLE * ceil(n / s / MULTIPLE) for n, s in zip(most, spacing, strict=True)]
    small = prod(largest) <= MOST_VOXELS or not description.segments
    whole = small if description.whole is None else description.whole
    sides = largest
    if not whole:
        sides = [_multiple(n / s) for n, s in zip(reach, spacing, strict=True)]
        while prod(sides) > MOST_VOXELS:
            sides[sides.index(max(sides))] -= MULTIPLE
    shape = tuple(min(side, LONGEST) for side in sides)
    return description.model_copy(update={"spacing": spacing, "shape": shape, "whole": whole})


def _multiple(side: float) -> int:
    """The nearest multiple that networks can halve, at least the smallest."""
    return max(MULTIPLE, MULTIPLE * round(side / MULTIPLE))
