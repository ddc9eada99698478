"""Small counts: which cells of a table are not told, so that no group of few cases can be read.

A cell that counts 1 to ``least`` − 1 cases is small. The cells of a row add up to a number that
everyone knows, so that those that are hidden together are its difference to the others; and who
knows the rule knows what a cell is not. Of 3, 2 and 2 cases of 7, with 3 for the least, both cells
of 2 were known if they alone were hidden: of 1 and 3 the 3 would be hidden otherwise, or be told.
So a row is told whole, if none of its cells is small, or not at all.
"""

import numpy as np
import numpy.typing as npt

from federated.planning.bins import Counts
from federated.planning.fingerprint import Fingerprint

Hidden = npt.NDArray[np.bool_]


def hidden_cells(row: Counts, least: int) -> Hidden:
    """Which cells ``(n,)`` of a row whose sum everyone knows are not told: all or none."""
    small = ((row > 0) & (row < least)).any()
    hidden: Hidden = np.full(len(row), bool(small))
    return hidden


def hidden_classes(with_class: Counts, cases: int, least: int) -> Hidden:
    """Of which classes ``(n,)`` it is not told how many of the cases have them.

    Each is hidden where few have it, or few have it not.
    """
    few = (with_class > 0) & (with_class < least)
    others = cases - with_class
    hidden: Hidden = few | ((others > 0) & (others < least))
    return hidden


def without_small(found: Fingerprint, least: int) -> Fingerprint:
    """A fingerprint with 0 in place of what is hidden, for a site whose counts others can read.

    Of intensities, whose voxels are of many cases or of few, nothing is told where there are fewer
    cases than ``least``; nor of landmarks and features.
    """
    if not least:
        return found
    counts = {name: table.copy() for name, table in found.counts.items()}
    scheme = found.scheme
    together = scheme.voxelwise or scheme.several
    classes = counts["with_class"]
    hidden = (
        hidden_classes(classes, found.cases, least) if together else hidden_cells(classes, least)
    )
    classes[hidden] = 0
    for name, table in counts.items():
        if name in ("cases", "with_class"):
            continue
        if name in ("intensity", "landmarks", "features"):
            if found.cases < least:
                table[:] = 0
            continue
        rows = table.reshape(-1, table.shape[-1])
        for row in rows:
            row[hidden_cells(row, least)] = 0
    if "share" in counts:
        counts["share"][hidden[1:]] = 0
    return Fingerprint(scheme, counts)
