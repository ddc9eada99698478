"""The images and the mask of a case, lying on each other.

A photograph may say by its EXIF orientation that it has to be turned. Where its mask says nothing
of how it lies, it may have been drawn on the pixels as they are stored, or as they are shown. Where
the shapes do not tell which, nothing does, and the case is refused.
"""

import numpy as np

from federated.data.folders.families import CaseFiles
from federated.data.folders.picture_file import UPRIGHT, as_stored, upright
from federated.data.folders.read_volume import read_mask, read_volume
from federated.data.folders.volume import Volume
from federated.errors import ConsiliumError


def read_case(case: CaseFiles) -> tuple[list[Volume], Volume | None]:
    """A volume for each modality, and the mask where there is one.

    Raises:
        ConsiliumError: as :func:`.read_volume.read_volume` and ``read_mask`` do; or it cannot be
            told how a photograph and its mask lie on each other.
    """
    images = [read_volume(path, case.dicom) for path in case.images]
    if case.mask is None:
        return images, None
    mask = read_mask(case.mask, images[0], case.dicom)
    if len(images) > 1 or images[0].affine is not None or mask.affine is not None:
        return images, mask
    image = images[0]
    return [_turned_with(image, mask)], _turned_with(mask, image)


def _turned_with(silent: Volume, told: Volume) -> Volume:
    """A picture that says nothing of how it lies, turned as the other if it has to be.

    Raises:
        ConsiliumError: it cannot be told whether it has to be.
    """
    if silent.frame is not None or not isinstance(told.frame, int) or told.frame == UPRIGHT:
        return silent
    shown = told.spatial
    stored = as_stored(np.empty((1, *shown), bool), told.frame).shape[1:]
    turned = upright(silent.values, told.frame)
    if shown == stored == silent.spatial and not np.array_equal(turned, silent.values):
        raise ConsiliumError(
            f"By its orientation, {told.frame}, the picture {told.name} is not shown as it is "
            f"stored, and {silent.name}, which lies on it, does not say how it is to be shown. "
            f"Both have {shown[1]}x{shown[0]} pixels either way, so nobody can tell which parts "
            "belong together. Save both upright and without an orientation, or write the one that "
            "is true into both."
        )
    if silent.spatial != stored:
        return silent  # it lies on what is shown, or nowhere
    return Volume(turned, None, silent.name, told.frame)
