"""A U-Net of MONAI's blocks, in two and three dimensions."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from monai.networks.layers.factories import Norm as MonaiNorm
from monai.networks.nets.basic_unet import Down, TwoConv, UpCat
from torch import Tensor, nn

from models.norm import Norm, instance_norm

LEVELS = 4
# MONAI's blocks know a normalisation by its name.
INSTANCE = "consilium_instance"
MonaiNorm.add_factory_callable(INSTANCE, lambda _dims: instance_norm)


class UNet(nn.Module):
    """Four levels of two convolutions each, halved by max-pooling (Ronneberger et al. 2015).

    The finest level has ``width`` channels, and each further level twice as many. Normalisation is
    GroupNorm or InstanceNorm with weights, which mix no cases, so that DP-SGD can train it. With
    ``deep_supervision`` the two levels below the finest are read out too while training (Lee et al.
    2015).

    Input ``(n, channels, *spatial)``, where each side is a multiple of 8. Output logits ``(n,
    classes, *spatial)``; while training with deep supervision ``(n, 3, classes, *spatial)``, with
    the finest level first and the others brought to its size.

    Raises:
        ValueError: ``width`` is not a multiple of 8, which GroupNorm needs.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        dims: Literal[2, 3],
        norm: Norm,
        width: int,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        if width % 8 or width < 8:
            raise ValueError(f"width must be a multiple of 8, not {width}")
        # Not in place: gradients of single cases need what went in.
        act = ("LeakyReLU", {"negative_slope": 0.01, "inplace": False})
        settings: dict[str, Any] = {"act": act, "norm": _norm(norm), "bias": True}
        widths = [width * 2**level for level in range(LEVELS)]
        self.down = nn.ModuleList([TwoConv(dims, channels, widths[0], **settings)])
        self.down.extend(Down(dims, above, below, **settings) for above, below in pairwise(widths))
        self.up = nn.ModuleList(
            UpCat(dims, below, above, above, **settings, halves=True)
            for above, below in reversed(list(pairwise(widths)))
        )
        conv = nn.Conv3d if dims == 3 else nn.Conv2d
        self.head = nn.ModuleList(
            conv(widths[level], classes, kernel_size=1)
            for level in range(LEVELS - 1 if deep_supervision else 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        """The logits of images ``(n, channels, *spatial)``, in the shapes that the class states."""
        x, skipped = images, []
        for level in self.down:
            x = level(x)
            skipped.append(x)
        decoded = []
        for level, skip in zip(self.up, reversed(skipped[:-1]), strict=True):
            x = level(x, skip)
            decoded.append(x)
        return read_out(self.head, decoded[::-1], self.training)


def read_out(heads: nn.ModuleList, decoded: Sequence[Tensor], training: bool) -> Tensor:
    """The logits of the levels of a decoder, by one head for each of the finest levels.

    Args:
        heads: at least one, of the finest level first.
        decoded: the features ``(n, width, *spatial)`` of each level, the finest first.
        training: whether the coarser levels that have a head are read out too.

    Returns:
        ``(n, classes, *spatial)``; while training with several heads ``(n, heads, classes,
        *spatial)``, all brought to the finest level's size.
    """
    finest: Tensor = heads[0](decoded[0])
    if not training or len(heads) == 1:
        return finest
    pairs = list(zip(heads, decoded, strict=False))[1:]
    coarser = [enlarged(head(features), finest.shape[2:]) for head, features in pairs]
    return torch.stack([finest, *coarser], dim=1)


def enlarged(images: Tensor, size: Sequence[int]) -> Tensor:
    """Images ``(n, channels, *spatial)`` brought to the sides ``size`` by linear interpolation.

    As torch's ``interpolate``, axis by axis and with products of matrices: on a GPU the gradient of
    torch's own is added up in any order, so that no training would come out twice the same.
    """
    for axis, side in enumerate(size, start=2):
        ones = torch.eye(images.shape[axis], dtype=images.dtype, device=images.device)
        weights = nn.functional.interpolate(ones.unsqueeze(0), size=side, mode="linear")[0]
        images = (images.movedim(axis, -1) @ weights).movedim(-1, axis)
    return images


def _norm(norm: Norm) -> tuple[str, dict[str, Any]]:
    """The name that MONAI has for a normalisation, with its settings."""
    if norm == "group":
        return "group", {"num_groups": 8}
    if norm == "instance":
        return INSTANCE, {}
    return "batch", {}
