"""What is left of a case's labels in what a network learns from: cropping and resampling can lose.

A case is prepared by bringing it to the family's voxels and, where whole cases pass, to its shape.
A label outside of that shape's field of view is cut off, and one smaller than a voxel vanishes.
"""

from collections.abc import Mapping

import nibabel
import numpy as np

from federated.data.families import Family
from federated.data.prepared_case import PreparedCase
from federated.data.read_volume import Volume

# A label of at least so many of the family's voxels is there after resampling.
SAFE_VOXELS = 64
# Voxels whose centres are on the very edge are in, whatever the rounding of affines.
EDGE = 0.5 + 1e-3


def can_lose(family: Family, image: Volume, counts: Mapping[int, int]) -> bool:
    """Whether preparing could lose labels of so many voxels of an image.

    Told from sizes alone, so that not every case has to be prepared for it.
    """
    if not counts or len(image.spatial) != family.dims:
        return False
    shape = np.array(image.spatial)
    affine = np.eye(4) if image.affine is None else image.affine
    own_sides = np.linalg.norm(affine[:3, :3], axis=0)[: family.dims]
    sides = np.array(family.spacing or own_sides)
    if family.dims == 3 and family.whole:
        # The order of the axes in RAS, in which the family's shape is.
        order = np.argsort(nibabel.orientations.io_orientation(affine)[:, 0])
        if ((shape * own_sides)[order] > np.array(family.shape) * sides + EDGE * sides).any():
            return True
    shrunk = np.prod(sides) / np.prod(own_sides)
    if family.dims == 2 and family.whole:
        shrunk = np.prod(shape) / np.prod(family.shape)
    return bool(shrunk > 1 and min(counts.values()) < SAFE_VOXELS * shrunk)


def labels_left(case: PreparedCase) -> dict[int, tuple[int, int]]:
    """For each label of the case its voxels on the case's own grid, and how many of them are left.

    Empty for a case without a mask.
    """
    lost = case.lost_labels
    return {
        label: (there, round(there * (1 - lost.get(label, 0.0))))
        for label, (there, _) in case.kept_labels.items()
    }


def said(family: Family, left: dict[int, tuple[int, int]]) -> str:
    """What was lost, in words; ``""`` where all is left."""
    return ", ".join(
        f"{family.labels[label]} {after} of {before} voxels"
        for label, (before, after) in left.items()
        if after < before
    )
