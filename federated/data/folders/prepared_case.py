"""One case of a segmentation set as a network takes it, and the way back to its own grid.

Volumes are brought to RAS orientation and the family's spacing, and pictures of families whose
cases are taken whole to its shape. Intensities are those of the family's CT window in [0, 1], on
the family's standard scale, or have zero mean and unit variance in each modality. What is smaller
than the network's field is padded with its own background; what is larger is predicted as a whole,
and cropped only to be learned from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from federated.data.folders.families import CaseFiles, Family
from federated.data.folders.geometry import Geometry, Grid
from federated.data.folders.intensities import normalised, unit_range
from federated.data.folders.read_case import read_case
from federated.data.folders.volume import Volume, affine_gap
from federated.data.scanner import ScannerProfile, show
from federated.errors import ConsiliumError


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A case on the network's voxels.

    ``whole`` float32 ``(channels, *spatial)`` and ``whole_mask`` uint8 ``(*spatial)`` are all of
    it, padded to the network's field at least; patches, predictions and scores are made from them.
    ``image`` and ``mask`` are views of a part of them: in families whose cases are taken whole the
    middle of the family's shape, which a network learns from, and in others the case without
    padding. ``truth`` is the mask on the case's own grid. Without a mask all three are ``None``.
    """

    whole: Tensor
    whole_mask: Tensor | None
    truth: npt.NDArray[np.uint8] | None
    geometry: Geometry

    @property
    def image(self) -> Tensor:
        """The part that a network learns from; it has padding only where it is taken whole."""
        return self.whole[(slice(None), *self._learned)]

    @property
    def mask(self) -> Tensor | None:
        """The mask of the part that a network learns from."""
        return None if self.whole_mask is None else self.whole_mask[self._learned]

    @property
    def grid(self) -> Grid:
        """The grid of ``image``."""
        return self.geometry.grid

    @property
    def own(self) -> Grid:
        """The case's own grid, that of its files."""
        return self.geometry.own

    @property
    def kept_labels(self) -> dict[int, tuple[int, int]]:
        """For each label in the mask, its voxels on the own grid and in what is learned from.

        Where cases are resampled the two are voxels of different sizes.
        """
        if self.truth is None or self.mask is None:
            return {}
        learned = self.mask.numpy()
        return {
            label: (int((self.truth == label).sum()), int((learned == label).sum()))
            for label in np.unique(self.truth[self.truth > 0]).tolist()
        }

    @property
    def lost_labels(self) -> dict[int, float]:
        """The share that is lost of each label that is not whole in what is learned from.

        That is what the crop to the network's field cuts off; or 1 for a label so small that none
        of it is left at the network's spacing.
        """
        if self.whole_mask is None or self.mask is None:
            return {}
        there, left = self.whole_mask.numpy(), self.mask.numpy()
        lost = {}
        for label, (_, learned) in self.kept_labels.items():
            before = int((there == label).sum())
            share = 1 - int((left == label).sum()) / before if before else 1.0
            if share > 0 or not learned:
                lost[label] = share
        return lost

    @property
    def nbytes(self) -> int:
        """The memory that it takes, in bytes."""
        masks = (self.whole_mask.nbytes if self.whole_mask is not None else 0) + (
            self.truth.nbytes if self.truth is not None else 0
        )
        return self.whole.nbytes + masks

    def to_own_grid(self, probabilities: Tensor) -> npt.NDArray[np.uint8]:
        """The mask on the case's own grid, from class probabilities ``(classes, *spatial)``.

        The probabilities are those of ``whole``, or of ``image`` alone, outside of which there is
        background. They are interpolated linearly, and the likeliest class is taken.
        """
        flat = self.own.flat
        scores = (probabilities.unsqueeze(-1) if flat else probabilities).float().cpu().numpy()
        mask = self.geometry.back(scores)
        return mask[..., 0] if flat else mask

    def probabilities_on_own_grid(self, probabilities: Tensor) -> npt.NDArray[np.float32]:
        """Class probabilities ``(classes, *spatial)`` of ``whole``, on the case's own grid."""
        flat = self.own.flat
        scores = (probabilities.unsqueeze(-1) if flat else probabilities).float().cpu().numpy()
        own = np.stack([self.geometry.back_channel(channel) for channel in scores])
        return own[..., 0] if flat else own

    @property
    def _learned(self) -> tuple[slice, ...]:
        return self.geometry.learned[: 2 if self.own.flat else 3]


def prepare_case(
    family: Family, case: CaseFiles, profile: ScannerProfile | None = None, number: int = 0
) -> PreparedCase:
    """Read a case's files and prepare them.

    Args:
        family: the data set's.
        case: the files.
        profile: the scanner that shows the images, if any.
        number: what the scanner's noise depends on.

    Raises:
        ConsiliumError: a file cannot be read, does not fit the family or the others, or is flat.
    """
    volumes, mask = read_case(case)
    truth = None
    if mask:
        refuse_elsewhere(case.name, [*volumes, mask])
        truth = known_labels(family, case, mask)
    return prepare_volumes(family, case.name, volumes, truth, profile, number)


def prepare_volumes(
    family: Family,
    name: str,
    volumes: Sequence[Volume],
    truth: npt.NDArray[np.uint8] | None = None,
    profile: ScannerProfile | None = None,
    number: int = 0,
) -> PreparedCase:
    """Prepare a case that is already read: a volume for each modality, and its mask.

    Args:
        family: the data set's.
        name: the name of the case, for messages.
        volumes: one for each modality, in the family's order.
        truth: the mask ``(*spatial)`` with the family's labels, on the volumes' grid.
        profile: the scanner that shows the images, if any.
        number: what the scanner's noise depends on.

    Raises:
        ConsiliumError: the volumes do not fit the family or each other, or an image is flat.
    """
    refuse_unfit(family, name, volumes, truth)
    refuse_elsewhere(name, volumes)
    geometry = Geometry.of(volumes[0], family, name)
    flat = geometry.own.flat
    standards = family.standards or (None,) * len(volumes)
    modalities = []
    for volume, standard in zip(volumes, standards, strict=True):
        unit = geometry.image(unit_range(volume.values, family, name))
        if profile:
            # A scanner is one of intensities from 0 to 1; for a standard scale none was clipped.
            within = unit if standard is None else unit.clip(0, 1)
            unit = _shown(within, profile, number, flat)
        # Measured before anything is put around it, which is not a part of the image.
        modalities.append(geometry.padded(*normalised(unit, family, name, standard)))
    image = np.concatenate(modalities)
    mask = geometry.mask(truth, len(family.labels)) if truth is not None else None
    return PreparedCase(
        torch.from_numpy(image[..., 0] if flat else image),
        None if mask is None else torch.from_numpy(mask[..., 0] if flat else mask),
        truth,
        geometry,
    )


def _shown(
    unit: npt.NDArray[np.float32], profile: ScannerProfile, number: int, flat: bool
) -> npt.NDArray[np.float32]:
    tensor = torch.from_numpy(unit)
    with torch.random.fork_rng(devices=[]):  # TorchIO draws even where nothing is random
        shown = show(tensor[..., 0] if flat else tensor, profile, number)
    return (shown.unsqueeze(-1) if flat else shown).numpy()


def known_labels(family: Family, case: CaseFiles, mask: Volume) -> npt.NDArray[np.uint8]:
    """The mask ``(*spatial)`` with the family's own labels, as uint8.

    Raises:
        ConsiliumError: the mask has labels that the family does not know, or those of another set.
    """
    values = mask.values[0]
    present = [int(value) for value in np.unique(values)]
    if fault := family.label_fault(case.name, present):
        raise ConsiliumError(
            f"The mask {case.mask} {fault}. Mend it, or leave the case out with "
            "validate.on_failure=drop-case."
        )
    result = np.zeros(values.shape, np.uint8)
    for value in present:
        result[values == value] = family.label_of(value)
    return result


def refuse_elsewhere(name: str, volumes: Sequence[Volume]) -> None:
    """Refuse files that lie on different grids.

    Masks and modalities are laid on each other by voxels.
    """
    if gap := affine_gap(volumes):
        raise ConsiliumError(
            f"The files of case {name} lie at different places: their affines differ by up to "
            f"{gap:.3g} mm. Resample them to one grid, or leave the case out with "
            "validate.on_failure=drop-case."
        )


def refuse_unfit(
    family: Family,
    name: str,
    volumes: Sequence[Volume],
    truth: npt.NDArray[np.uint8] | None,
) -> None:
    dims = {3 if volume.affine is not None else 2 for volume in volumes} | {
        len(volume.spatial) for volume in volumes
    }
    if dims != {family.dims}:
        raise ConsiliumError(
            f"The case {name} is no {'picture' if family.dims == 2 else 'volume'}, which the data "
            f"set {family.name} consists of."
        )
    channels = sum(volume.values.shape[0] for volume in volumes)
    if channels != family.channels:
        raise ConsiliumError(
            f"The case {name} has {channels} channels; {family.name} has {family.channels}. "
            "Save it with the channels of the others."
        )
    shapes = {volume.spatial for volume in volumes} | (
        {truth.shape} if truth is not None else set()
    )
    if any(volume.values.min() == volume.values.max() for volume in volumes):
        raise ConsiliumError(
            f"An image of case {name} has one value everywhere. Put the right file there, or leave "
            "the case out with validate.on_failure=drop-case."
        )
    if len(shapes) > 1:
        raise ConsiliumError(
            f"The files of case {name} have different shapes, "
            f"{' and '.join('x'.join(map(str, shape)) for shape in sorted(shapes))}. Resample them "
            "to one grid, or leave the case out with validate.on_failure=drop-case."
        )
