"""An image that is classified, on the voxels and the scale that a network takes.

Volumes are brought to RAS orientation and the set's spacing, and pictures resized; what is smaller
than the set's shape is padded with its own darkest value, what is larger is cropped to its middle.
Intensities are measured as those of segmented images are, so that a scale and an offset change
nothing, and kept with eight bits.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from federated.data.folders.families import Family
from federated.data.folders.geometry import Geometry
from federated.data.folders.intensities import unit_range
from federated.data.folders.prepared_case import refuse_elsewhere, refuse_unfit
from federated.data.folders.volume import Volume

WHITE = 255


def class_image(family: Family, name: str, volumes: Sequence[Volume]) -> npt.NDArray[np.uint8]:
    """The image ``(channels, *shape)`` of a case, in 0..255, as training and prediction take it.

    Args:
        family: says spacing, shape, window and modalities.
        name: the name of the case, for messages.
        volumes: one for each modality, in the family's order.

    Raises:
        ConsiliumError: the volumes do not fit the family or each other, or an image has one value
            everywhere.
    """
    refuse_unfit(family, name, volumes, None)
    refuse_elsewhere(name, volumes)
    geometry = Geometry.of(volumes[0], family, name)
    parts = []
    for volume in volumes:
        unit = geometry.image(unit_range(volume.values, family, name))
        parts.append(geometry.padded(unit, [float(channel.min()) for channel in unit]))
    whole = np.concatenate(parts)[(slice(None), *geometry.learned)]
    image = np.rint(whole.clip(0, 1) * WHITE).astype(np.uint8)
    return np.ascontiguousarray(image[..., 0] if geometry.own.flat else image)
