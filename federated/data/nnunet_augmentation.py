"""The changes of training images that nnU-Net makes, by MONAI's transforms.

Isensee et al. 2021, "nnU-Net", Nature Methods 18, Supplementary Note 4: with which probability and
in which range each is made. What differs: a patch is turned and scaled as it is and not cut from a
larger one, and what comes into view is the value at its border.
"""

from collections.abc import Hashable, Mapping
from functools import cache
from math import pi
from typing import Any

import torch
from torch import Tensor

IMAGE, MASK = "image", "mask"
BOTH = (IMAGE, MASK)


def nnunet_changes(
    images: Tensor, masks: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Turn, scale, blur, and change noise, brightness, contrast, resolution and gamma at random.

    Args:
        images: ``(n, channels, *spatial)``, normalised.
        masks: ``(n, *spatial)``, integers.
        generator: what is drawn from; of each case one number.

    Returns:
        The images ``(n, channels, *spatial)``, and the masks ``(n, *spatial)`` as int64.
    """
    if not len(images):
        return images, masks.long()
    changes = _changes(images.ndim == 4)
    changed = []
    for image, mask in zip(images, masks, strict=True):
        changes.set_random_state(int(torch.randint(2**32, (1,), generator=generator)))
        found: Mapping[Hashable, Any] = changes({IMAGE: image, MASK: mask[None].float()})
        changed.append((found[IMAGE].as_tensor(), found[MASK].as_tensor()[0]))
    return (
        torch.stack([image for image, _ in changed]).float(),
        torch.stack([mask for _, mask in changed]).round().long(),
    )


@cache
def _changes(flat: bool) -> Any:
    """The changes of pictures, where ``flat``, or of volumes."""
    # Importing MONAI takes seconds; only those who segment should wait for it.
    from monai.transforms.compose import Compose
    from monai.transforms.intensity.dictionary import (
        RandAdjustContrastd,
        RandGaussianNoised,
        RandGaussianSmoothd,
        RandScaleIntensityd,
        RandScaleIntensityFixedMeand,
    )
    from monai.transforms.spatial.dictionary import RandAffined, RandSimulateLowResolutiond

    # A picture may lie in any way; of a volume all angles are small.
    turns = (pi,) if flat else (pi / 6,) * 3
    # The map goes from the new voxels to the old ones: 1/1.4 enlarges by 1.4.
    sizes = ((1 / 1.4 - 1, 1 / 0.7 - 1),) * (2 if flat else 3)
    moved: dict[str, Any] = {"mode": ("bilinear", "nearest"), "padding_mode": "border"}
    return Compose(
        [
            RandAffined(BOTH, prob=0.2, rotate_range=turns, **moved),
            RandAffined(BOTH, prob=0.2, scale_range=sizes, **moved),
            RandGaussianNoised(IMAGE, prob=0.1, std=0.1**0.5, sample_std=True),
            RandGaussianSmoothd(
                IMAGE, prob=0.2, sigma_x=(0.5, 1.0), sigma_y=(0.5, 1.0), sigma_z=(0.5, 1.0)
            ),
            RandScaleIntensityd(IMAGE, prob=0.15, factors=0.25),
            RandScaleIntensityFixedMeand(IMAGE, prob=0.15, factors=0.25, preserve_range=True),
            RandSimulateLowResolutiond(
                IMAGE,
                prob=0.25,
                zoom_range=(0.5, 1.0),
                upsample_mode="bilinear" if flat else "trilinear",
            ),
            RandAdjustContrastd(
                IMAGE, prob=0.1, gamma=(0.7, 1.5), invert_image=True, retain_stats=True
            ),
            RandAdjustContrastd(IMAGE, prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
        ]
    )
