"""Generated folders of a family's form, so that everything runs where its files are not at hand.

Each label is an ellipsoid of its own place and brightness in a noisy field, with another size in
each case, and an outer body around; labels beyond the first lie inside or beside it. The images
show no anatomy and no patient; every result on them is labelled ``data_source: phantom``.
"""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from PIL import Image

from federated.data.folders.families import Family
from federated.randomness import numpy_generator

Field = npt.NDArray[np.float64]
BACKGROUND, STEP, NOISE = 0.25, 0.2, 0.04


def write_phantom(
    family: Family, folder: Path, cases: int, seed: int, shape: tuple[int, ...] | None = None
) -> None:
    """Write ``cases`` generated cases into ``folder``, of ``shape`` or about that of the family.

    Without ``shape``, sizes differ by some per cent from case to case, as in real folders.

    Args:
        family: says which names and form the files have.
        folder: where they are written; it is made.
        cases: how many cases.
        seed: what they depend on.
        shape: their sides in voxels or pixels.
    """
    for number in range(cases):
        rng = numpy_generator(seed, purpose=f"folder phantom, case {number}")
        sides = shape or tuple(int(side * rng.uniform(0.9, 1.0)) for side in family.shape)
        image, mask = _case(family, sides, rng)
        names = family.name_files(number)
        for path, part in zip(names.images, _split(family, image), strict=True):
            _write(folder / path, part, family)
        _write_mask(folder / names.mask, mask, family)


def _case(
    family: Family, sides: tuple[int, ...], rng: np.random.Generator
) -> tuple[Field, npt.NDArray[np.uint8]]:
    """Intensities ``(channels, *sides)`` in about 0..1, and labels ``(*sides)``."""
    axes = [np.linspace(-1, 1, side) for side in sides]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    body = _ellipsoid(grid, np.zeros(family.dims), np.full(family.dims, 0.9))
    brightness = np.where(body, BACKGROUND, 0.0)
    mask = np.zeros(sides, np.uint8)
    for label in range(1, len(family.labels)):
        # In the same direction in every case, so that labels can be told apart.
        angle = 2 * np.pi * label / len(family.labels)
        centre = np.zeros(family.dims)
        centre[:2] = 0.35 * np.cos(angle), 0.35 * np.sin(angle)
        centre += rng.normal(0, 0.05, family.dims)
        inside = _ellipsoid(grid, centre, rng.uniform(0.2, 0.35, family.dims))
        mask[inside] = label
        brightness[inside] = BACKGROUND + STEP * label
    channels = [
        brightness * rng.uniform(0.9, 1.1) + rng.normal(0, NOISE, sides)
        for _ in range(family.channels)
    ]
    return np.stack(channels), mask


def _ellipsoid(grid: Field, centre: Field, axes: Field) -> npt.NDArray[np.bool_]:
    shaped = (slice(None), *[np.newaxis] * (grid.ndim - 1))
    inside: npt.NDArray[np.bool_] = (((grid - centre[shaped]) / axes[shaped]) ** 2).sum(axis=0) < 1
    return inside


def _split(family: Family, image: Field) -> list[Field]:
    """The channels of each file: one for a modality, all of a colour photograph."""
    return list(image[:, np.newaxis]) if len(family.modalities) > 1 else [image]


def _write(path: Path, image: Field, family: Family) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if family.dims == 2:
        pixels = (image.clip(0, 1) * 255).round().astype(np.uint8)
        Image.fromarray(np.moveaxis(pixels, 0, -1)).save(path)
        return
    low, high = family.window or (0.0, 1000.0)
    _save_nifti(path, (low + image[0] * (high - low)).astype(np.float32), family)


def _write_mask(path: Path, mask: npt.NDArray[np.uint8], family: Family) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = family.values_in_files(mask)
    if family.dims == 2:
        Image.fromarray(values).save(path)
    else:
        _save_nifti(path, values, family)


def _save_nifti(path: Path, values: npt.NDArray[Any], family: Family) -> None:
    affine = np.diag([*(family.spacing or (1.0, 1.0, 1.0)), 1.0])
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
