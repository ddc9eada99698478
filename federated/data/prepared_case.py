"""One case of a segmentation set as a network takes it, and the way back to its own grid.

TorchIO (Pérez-García et al. 2021) brings volumes to RAS orientation and the family's spacing, and
fits whole ones to its shape, pictures by resizing. Intensities are those of the family's CT window
in [0, 1], or have zero mean and unit variance in each modality.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchio as tio
from torch import Tensor

from federated.data.families import CaseFiles, Family
from federated.data.read_volume import Volume, read_mask, read_volume
from federated.data.scanner import ScannerProfile, show
from federated.errors import ConsiliumError

PERCENTILES = (0.5, 99.5)
MASK = "mask"


@dataclass(frozen=True)
class Grid:
    """Voxels ``(x, y, z)``, a picture's ``(height, width, 1)``, and the affine to mm."""

    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]
    flat: bool

    @property
    def spacing(self) -> tuple[float, ...]:
        """Side lengths of a voxel in mm; 1 for each axis of a picture."""
        sides = np.linalg.norm(self.affine[:3, :3], axis=0)
        return tuple(float(side) for side in sides[: 2 if self.flat else 3])


@dataclass(frozen=True)
class PreparedCase:
    """``image`` float32 ``(channels, *spatial)`` and ``mask`` uint8 ``(*spatial)`` on ``grid``.

    ``truth`` is the mask on the case's own grid, ``own``. Without a mask both are ``None``.
    """

    image: Tensor
    mask: Tensor | None
    grid: Grid
    own: Grid
    truth: npt.NDArray[np.uint8] | None

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        masks = (self.mask.nbytes if self.mask is not None else 0) + (
            self.truth.nbytes if self.truth is not None else 0
        )
        return self.image.nbytes + masks

    def to_own_grid(self, probabilities: Tensor) -> npt.NDArray[np.uint8]:
        """From class probabilities ``(classes, *spatial)`` to a mask on the case's own grid.

        They are interpolated linearly, and the likeliest class is taken; outside of what the
        network saw there is background.
        """
        flat = self.own.flat
        volume = probabilities.unsqueeze(-1) if flat else probabilities
        seen = tio.ScalarImage(tensor=volume.float().cpu(), affine=self.grid.affine)
        resample = tio.Resample((self.own.shape, self.own.affine), image_interpolation="linear")
        with torch.random.fork_rng(devices=[]):  # TorchIO draws even where nothing is random
            back = resample(seen)
        mask: npt.NDArray[np.uint8] = back.data.argmax(dim=0).to(torch.uint8).numpy()
        return mask[..., 0] if flat else mask


def prepare_case(
    family: Family, case: CaseFiles, profile: ScannerProfile | None = None, number: int = 0
) -> PreparedCase:
    """Read a case's files and prepare them.

    Args:
        profile: as which scanner shows the images; their noise depends on ``number``.

    Raises:
        ConsiliumError: a file cannot be read, does not fit the family or the others, or is flat.
    """
    volumes = [read_volume(path) for path in case.images]
    truth = _known_labels(family, case, read_mask(case.mask)) if case.mask else None
    return prepare_volumes(family, case.name, volumes, truth, profile, number)


def prepare_volumes(
    family: Family,
    name: str,
    volumes: Sequence[Volume],
    truth: npt.NDArray[np.uint8] | None = None,
    profile: ScannerProfile | None = None,
    number: int = 0,
) -> PreparedCase:
    """The same for a case that is read already: a volume for each modality, and its mask.

    Raises:
        ConsiliumError: they do not fit the family or each other, or an image is flat.
    """
    _refuse_unfit(family, name, volumes, truth)
    own = _grid(volumes[0], family)
    images: dict[str, tio.Image] = {
        str(position): tio.ScalarImage(tensor=_tensor(volume.values, family), affine=own.affine)
        for position, volume in enumerate(volumes)
    }
    if truth is not None:
        images[MASK] = tio.LabelMap(tensor=_tensor(truth[np.newaxis], family), affine=own.affine)
    with torch.random.fork_rng(devices=[]):  # TorchIO draws even where nothing is random
        subject = _geometry(tio.Subject(images), family)
        shown = subject.get_images(intensity_only=True)
        image = torch.cat([_intensities(one.data, family, profile, number) for one in shown])
    grid = Grid(shown[0].spatial_shape, np.asarray(shown[0].affine, np.float64), own.flat)
    mask = subject.get_image(MASK).data[0].to(torch.uint8) if truth is not None else None
    return PreparedCase(
        image[..., 0] if own.flat else image,
        mask[..., 0] if mask is not None and own.flat else mask,
        grid,
        own,
        truth,
    )


def _tensor(values: npt.NDArray[Any], family: Family) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    return tensor.unsqueeze(-1) if family.dims == 2 else tensor


def _grid(volume: Volume, family: Family) -> Grid:
    flat = family.dims == 2
    shape = (*volume.spatial, 1) if flat else volume.spatial
    affine = np.eye(4) if volume.affine is None else volume.affine
    return Grid((shape[0], shape[1], shape[2]), affine, flat)


def _known_labels(family: Family, case: CaseFiles, mask: Volume) -> npt.NDArray[np.uint8]:
    """The mask with the family's own labels, ``(*spatial)``."""
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


def _refuse_unfit(
    family: Family,
    name: str,
    volumes: Sequence[Volume],
    truth: npt.NDArray[np.uint8] | None,
) -> None:
    dims = {len(volume.spatial) for volume in volumes}
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
    if any(volume.values.min() == volume.values.max() for volume in volumes):
        raise ConsiliumError(
            f"An image of case {name} has one value everywhere. Put the right file there, or leave "
            "the case out with validate.on_failure=drop-case."
        )
    shapes = {volume.spatial for volume in volumes} | (
        {truth.shape} if truth is not None else set()
    )
    if len(shapes) > 1:
        raise ConsiliumError(
            f"The files of case {name} have different shapes, "
            f"{' and '.join('x'.join(map(str, shape)) for shape in sorted(shapes))}. Resample them "
            "to one grid, or leave the case out with validate.on_failure=drop-case."
        )


def _geometry(subject: tio.Subject, family: Family) -> tio.Subject:
    if family.dims == 2:
        if family.whole:
            height, width = family.shape
            return _resampled(subject, tio.Resize((height, width, 1)), len(family.labels))
        return subject
    subject = tio.ToCanonical()(subject)
    if family.spacing:
        subject = _resampled(subject, tio.Resample(family.spacing), len(family.labels))
    return tio.CropOrPad(family.shape)(subject) if family.whole else subject


def _resampled(subject: tio.Subject, resample: tio.SpatialTransform, labels: int) -> tio.Subject:
    """Images linearly, and a mask as the label with the largest share of each new voxel.

    The nearest voxel would be the one on the same side everywhere where voxels become twice as
    large, and move the mask by half a voxel.
    """
    resampled = resample(tio.Subject(subject.get_images_dict(intensity_only=True)))
    if MASK in subject:
        mask, grid = subject.get_image(MASK), resampled.get_first_image()
        largest = torch.full((1, *grid.spatial_shape), -1.0)
        result = torch.zeros_like(largest)
        for label in range(labels):  # one at a time: a CT is large
            is_label = (mask.data == label).float()
            share = resample(tio.ScalarImage(tensor=is_label, affine=mask.affine)).data
            result[share > largest] = label
            largest = torch.maximum(largest, share)
        resampled.add_image(tio.LabelMap(tensor=result, affine=grid.affine), MASK)
    return resampled


def _intensities(
    values: Tensor, family: Family, profile: ScannerProfile | None, number: int
) -> Tensor:
    """A modality ``(channels, x, y, z)``: into [0, 1], through the scanner, normalised."""
    if family.dims == 2:
        unit = values / 255.0
    elif family.window:
        low, high = family.window
        unit = ((values - low) / (high - low)).clamp(0.0, 1.0)
    else:
        low, high = np.percentile(values.numpy(), PERCENTILES)
        unit = ((values - low) / max(high - low, 1e-6)).clamp(0.0, 1.0)
    if profile:
        flat = family.dims == 2
        shown = show(unit[..., 0] if flat else unit, profile, number)
        unit = shown.unsqueeze(-1) if flat else shown
    if family.window:
        return unit
    return (unit - unit.mean()) / unit.std().clamp(min=1e-6)
