"""What is left of a case's labels in what a network learns from.

A case is prepared by bringing it to the family's voxels and, where whole cases pass, to its shape.
A label outside of that shape's field of view is cut off, and one smaller than a voxel vanishes.
"""

from federated.data.folders.families import Family
from federated.data.folders.prepared_case import PreparedCase


def labels_left(case: PreparedCase) -> dict[int, tuple[int, int]]:
    """For each label of the case its voxels on the case's own grid, and how many of them are left.

    The result is empty for a case without a mask.
    """
    lost = case.lost_labels
    return {
        label: (there, round(there * (1 - lost.get(label, 0.0))))
        for label, (there, _) in case.kept_labels.items()
    }


def said(family: Family, left: dict[int, tuple[int, int]]) -> str:
    """What was lost, in words; ``""`` where nothing was lost."""
    return ", ".join(
        f"{family.labels[label]} {after} of {before} voxels"
        for label, (before, after) in left.items()
        if after < before
    )
