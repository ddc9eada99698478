"""What a segmentation data set is: the same few facts for each, beside how its files are found."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

# Networks halve the sides of an image three times.
MULTIPLE = 8


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case.

    ``images`` holds a file for each of the family's modalities, in that order; ``mask`` is ``None``
    where it is missing. Cases of one ``patient`` stay in one split; ``site`` is where the images
    come from, where the data set tells.
    """

    name: str
    images: tuple[Path, ...]
    mask: Path | None
    patient: str
    site: str | None = None


@dataclass(frozen=True)
class CaseNames:
    """Where the files of a case lie in the family's folder."""

    images: tuple[str, ...]
    mask: str


@dataclass(frozen=True)
class Found:
    """The cases of a folder, by name, and the files and folders that belong to none of them."""

    cases: tuple[CaseFiles, ...]
    strays: tuple[Path, ...]


@dataclass(frozen=True)
class Family:
    """A data set family.

    ``labels`` are the classes by their value in a mask, background first; ``label_values`` maps
    values as they stand in the files to these where they differ. ``channels`` is that of one case,
    all modalities together. ``spacing`` in mm is what volumes are resampled to, ``None`` to leave
    them; ``shape`` in voxels is what a network sees at once: whole cases are fitted to it where
    ``whole``, else patches of it are drawn. ``window`` in Hounsfield units clips CT, ``None``
    normalises each image to zero mean and unit variance. ``mirrored`` are the axes along which a
    mirrored case could be a real one, in RAS order for volumes. ``find`` lists a folder,
    ``name_files`` says where the files of the n-th case of a generated one lie.
    """

    name: str
    dims: Literal[2, 3]
    modalities: tuple[str, ...]
    channels: int
    labels: tuple[str, ...]
    label_values: Mapping[int, int]
    spacing: tuple[float, float, float] | None
    shape: tuple[int, ...]
    whole: bool
    window: tuple[float, float] | None
    mirrored: tuple[int, ...]
    licence: str
    source: str
    layout: str
    find: Callable[[Path], Found]
    name_files: Callable[[int], CaseNames]

    def with_spacing(self, side: float | None) -> "Family":
        """The same volumes with voxels of ``side`` mm; itself with ``None``.

        Whole cases keep their field of view, rounded up to sides that a network can halve; patches
        keep their voxels.

        Raises:
            ValueError: its images have no spacing.
        """
        if side is None:
            return self
        if self.spacing is None:
            raise ValueError(f"images of {self.name} have no spacing in mm")
        shape = self.shape
        if self.whole:
            reach = [n * own / side for n, own in zip(shape, self.spacing, strict=True)]
            shape = tuple(MULTIPLE * ceil(n / MULTIPLE - 1e-9) for n in reach)
        return replace(self, spacing=(side, side, side), shape=shape)

    def values_in_files(self, mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A mask of labels with the values that the data set's own files have for them."""
        in_files = {label: value for value, label in self.label_values.items()}
        values = np.zeros_like(mask)
        for label in range(1, len(self.labels)):
            values[mask == label] = in_files.get(label, label)
        return values


def pair(
    images: Mapping[str, tuple[Path, ...]],
    masks: Mapping[str, Path],
    describe: Callable[[str], tuple[str, str | None]],
    others: Iterable[Path] = (),
) -> Found:
    """Cases from images and masks of the same names.

    Args:
        describe: from a case's name to its patient and its site.
        others: further files or folders that belong to no case.
    """
    cases = [CaseFiles(name, images[name], masks.get(name), *describe(name)) for name in images]
    strays = [masks[name] for name in masks if name not in images]
    ordered = sorted(cases, key=lambda case: case.name)
    return Found(tuple(ordered), tuple(sorted([*strays, *others])))


def by_stem(folder: Path, patterns: Iterable[str], remove: str = "") -> dict[str, Path]:
    """Files of a folder by their name without its extensions and without the ending ``remove``."""
    return {
        path.name.split(".")[0].removesuffix(remove): path
        for pattern in patterns
        for path in sorted(folder.glob(pattern))
    }
