"""What is left of a case's labels in what a network learns from: cropping and resampling can lose.

A case is prepared by bringing it to the family's voxels and, where whole cases pass, to its shape.
A label outside of that shape's field of view is cut off, and one smaller than a voxel vanishes.
"""

from collections.abc import Mapping

import nibabel
import numpy as np
import numpy.typing as npt

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

    Those are left whose centres lie in what the network sees; none, where preparing leaves no voxel
    of the label. Empty for a case without a mask.
    """
    if case.truth is None or case.mask is None:
        return {}
    learnt = set(np.unique(case.mask.numpy()).tolist())
    result = {}
    for label in np.unique(case.truth).tolist():
        if label:
            voxels = np.argwhere(case.truth == label)
            seen = int(_inside(voxels, case).sum()) if label in learnt else 0
            result[int(label)] = (len(voxels), seen)
    return result


def _inside(voxels: npt.NDArray[np.int64], case: PreparedCase) -> npt.NDArray[np.bool_]:
    """Which of the own grid's voxels ``(n, axes)`` have their centre on the prepared grid."""
    own = np.zeros((len(voxels), 4))
    own[:, : voxels.shape[1]] = voxels
    own[:, 3] = 1
    there = own @ (np.linalg.inv(case.grid.affine) @ case.own.affine).T
    sides = np.array(case.grid.shape)
    inside = (there[:, :3] >= -EDGE) & (there[:, :3] <= sides - 1 + EDGE)
    return np.asarray(inside.all(axis=1), np.bool_)


def said(family: Family, left: dict[int, tuple[int, int]]) -> str:
    """What was lost, in words; ``""`` where all is left."""
    return ", ".join(
        f"{family.labels[label]} {after} of {before} voxels"
        for label, (before, after) in left.items()
        if after < before
    )
