"""What a segmentation data set is: the same few facts for each, and how its files are found."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from federated.data.dataset import Split
from federated.data.folders.dicom.rules import STRICT, DicomRules
from federated.data.folders.families.file_names import Named, left_over, refuse_twins
from federated.settings.harmonisation import Standard

# Networks halve the sides of an image three times.
MULTIPLE = 8


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case.

    ``images`` holds a file for each of the family's modalities, in that order; ``mask`` is ``None``
    where it is missing. Cases of one ``patient`` stay in one split; ``site`` is where the images
    come from, where the data set tells. ``patient_known`` is false where the data set has a table
    of patients that does not say whose the case is: ``patient`` is then the case's own name, so
    that such cases are not taken for one patient's. ``split`` is where the data set has splits of
    its own, and ``target`` what is to be learned of the whole image: its class, or a value for each
    finding. ``dicom`` says how those files are read that are DICOM; an image is then a folder or a
    file of a series, and the mask DICOM-SEG or RTSTRUCT. ``attributes`` are the names and cells of
    the columns that are attributes, as age, sex and scanner, and ``features`` the numbers that were
    derived from the image and then their covariates, in the order of the description.
    """

    name: str
    images: tuple[Path, ...]
    mask: Path | None
    patient: str
    site: str | None = None
    patient_known: bool = True
    split: Split | None = None
    target: tuple[int | float, ...] | None = None
    dicom: DicomRules = STRICT
    features: tuple[float, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where its images are, and its mask if it has one."""
        return self.images if self.mask is None else (*self.images, self.mask)


@dataclass(frozen=True)
class Source:
    """Whose a case is, as far as the data set tells: a patient, ``None`` if unknown, and a site."""

    patient: str | None
    site: str | None = None


@dataclass(frozen=True)
class CaseNames:
    """The places of the files of a case in the family's folder."""

    images: tuple[str, ...]
    mask: str


@dataclass(frozen=True)
class Listing:
    """The cases of a folder, by name, and the files and folders that belong to none of them.

    Every file is in a case or is unmatched, but for those that are expected beside the cases
    (tables, licences, README) and those that hold no data (hidden ones, a file browser's).
    """

    cases: tuple[CaseFiles, ...]
    unmatched: tuple[Path, ...]


@dataclass(frozen=True)
class Family:
    """A data set family.

    ``labels`` are the classes by their value in a mask, background first; ``label_values`` maps
    values as they stand in the files to these where they differ. ``channels`` is that of one case,
    all modalities together. ``spacing`` in mm is what volumes are resampled to, and ``None`` leaves
    them as they are; ``shape`` in voxels is what a network sees at once: whole cases are fitted to
    it where ``whole``, and otherwise patches of it are drawn. ``window`` in Hounsfield units clips
    CT; ``None`` normalises each image to zero mean and unit variance. ``mirrored`` are the axes
    along which a mirrored case could be a real one, in RAS order for volumes. ``find`` lists a
    folder; ``name_files`` says where the files of the n-th case of a generated folder lie.
    ``other_labels`` tells of another set of labels that masks of such data come in: from a case's
    name and the values in its mask to what speaks for the other set, or ``""``. ``standards`` are
    the scales that intensities are brought to in place of zero mean and unit variance, one for each
    modality (:mod:`federated.data.folders.histogram_standard`); empty without any. ``labels_by``
    says where a person can change which labels there are; empty where that is the program.
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
    find: Callable[[Path], Listing]
    name_files: Callable[[int], CaseNames]
    other_labels: Callable[[str, frozenset[int]], str] = lambda _name, _values: ""
    standards: tuple[Standard, ...] = ()
    labels_by: str = ""

    def with_patch(self, patch: tuple[int, ...] | None) -> "Family":
        """The same family seen in patches of that shape; the family itself with ``None``.

        Raises:
            ValueError: its images have other axes.
        """
        if patch is None:
            return self
        if len(patch) != self.dims:
            raise ValueError(f"images of {self.name} have {self.dims} axes, not {len(patch)}")
        return replace(self, shape=patch, whole=False)

    def with_spacing(self, side: float | tuple[float, ...] | None) -> "Family":
        """The same family with voxels of ``side`` mm; the family itself with ``None``.

        ``side`` is that of all axes, or one each, to the right, anterior and superior.

        Whole cases keep their field of view, rounded up to sides that a network can halve; patches
        keep their number of voxels.

        Raises:
            ValueError: its images have no spacing.
        """
        if side is None:
            return self
        if self.spacing is None:
            raise ValueError(f"images of {self.name} have no spacing in mm")
        right, anterior, superior = side if isinstance(side, tuple) else (side,) * 3
        sides = (right, anterior, superior)
        shape = self.shape
        if self.whole:
            sizes = zip(shape, self.spacing, sides, strict=True)
            reach = [n * own / new for n, own, new in sizes]
            shape = tuple(MULTIPLE * ceil(n / MULTIPLE - 1e-9) for n in reach)
        return replace(self, spacing=sides, shape=shape)

    def label_of(self, value: int) -> int:
        """The label that a value in a mask's file stands for; see :meth:`unknown_labels`."""
        return self.label_values.get(value, value)

    def unknown_labels(self, values: Iterable[int]) -> tuple[int, ...]:
        """The values of a mask that stand for none of the family's labels."""
        labels = range(len(self.labels))
        return tuple(value for value in values if self.label_of(value) not in labels)

    def values_known(self) -> str:
        """Which values a mask may have, as "known are 0 (background), 255 (lesion), by …"."""
        known: list[tuple[int, str]] = []
        for label, name in enumerate(self.labels):
            values = {value for value, of in self.label_values.items() if of == label}
            values |= {label} - self.label_values.keys()
            known += [(value, name) for value in values]
        listed = ", ".join(f"{value} ({name})" for value, name in sorted(known))
        return f"known are {listed}" + (f", by {self.labels_by}" if self.labels_by else "")

    def label_fault(self, name: str, values: Iterable[int]) -> str:
        """What is wrong with the values in the mask of case ``name``; ``""`` if they are right.

        The text goes on from the mask's path, as "has the label 7, which kidney does not know".
        """
        present = frozenset(values)
        if unknown := self.unknown_labels(sorted(present)):
            many = "labels" if len(unknown) > 1 else "label"
            return (
                f"has the {many} {', '.join(map(str, unknown))}, which {self.name} does not know: "
                f"it has {', '.join(self.labels)}"
            )
        return self.other_labels(name, present)

    def values_in_files(self, mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A mask of labels with the values that the data set's own files have for them."""
        in_files = {label: value for value, label in self.label_values.items()}
        values = np.zeros_like(mask)
        for label in range(1, len(self.labels)):
            values[mask == label] = in_files.get(label, label)
        return values


def pair(
    family_folder: Path,
    images: Sequence[Named],
    masks: Named,
    describe: Callable[[str], Source],
    beside: Sequence[str] = (),
) -> Listing:
    """Cases from images and masks of the same names, and everything else that lies in the folder.

    A case has a file of each modality; where one is missing, the others are unmatched.

    Args:
        family_folder: the folder.
        images: for each modality, the files of each case.
        masks: the mask of each case.
        describe: maps a case's name to its patient and its site.
        beside: patterns of further files that are expected there, such as tables, relative to the
            folder and in lower case.

    Raises:
        ConsiliumError: two files have one name but for their endings, or a folder cannot be read.
    """
    refuse_twins([*images, masks])
    cases = []
    for name in sorted(set[str]().union(*images).intersection(*images)):
        source = describe(name)
        files = tuple(modality[name][0] for modality in images)
        mask = masks[name][0] if name in masks else None
        cases.append(
            CaseFiles(name, files, mask, source.patient or name, source.site, bool(source.patient))
        )
    known = [path for files in (*images, masks) for paths in files.values() for path in paths]
    used = {path for case in cases for path in case.paths}
    unmatched = [path for path in known if path not in used]
    return Listing(
        tuple(cases), tuple(sorted([*unmatched, *left_over(family_folder, known, beside)]))
    )
