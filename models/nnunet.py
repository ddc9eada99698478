"""nnU-Net's plain U-Net, of the blocks of dynamic-network-architectures."""

from collections.abc import Sequence
from typing import Literal

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
from torch import Tensor, nn

from models.norm import Norm, make_norm
from models.unet import read_out

# The channels of a level, the sides of its kernels, and by how much each axis is divided before it.
Level = tuple[int, tuple[int, ...], tuple[int, ...]]


class NNUNet(nn.Module):
    """The U-Net of a plan (Isensee et al. 2021): its levels are given, the finest first.

    With ``deep_supervision`` all levels but the two coarsest are read out while training, and at
    least the finest.

    Input ``(n, channels, *spatial)``, where each side is a multiple of the product of the strides
    along it. Output logits ``(n, classes, *spatial)``; while training with deep supervision ``(n,
    read, classes, *spatial)``, with the finest level first and the others brought to its size.

    Args:
        channels: of an image.
        classes: at least 2.
        dims: the spatial dimensions of an image.
        norm: the normalisation after each convolution.
        levels: at least two, the finest first.
        convolutions: how many each level has, on the way down and on the way up.
        deep_supervision: whether coarser levels are read out while training.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        dims: Literal[2, 3],
        norm: Norm,
        levels: Sequence[Level],
        convolutions: int,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        made = PlainConvUNet(
            channels,
            len(levels),
            [features for features, _, _ in levels],
            nn.Conv3d if dims == 3 else nn.Conv2d,
            [kernel for _, kernel, _ in levels],
            [stride for _, _, stride in levels],
            convolutions,
            classes,
            convolutions,
            conv_bias=True,
            norm_op=lambda width: make_norm(norm, width, dims),
            nonlin=nn.LeakyReLU,
            # Not in place: gradients of single cases need what went in.
            nonlin_kwargs={"negative_slope": 0.01, "inplace": False},
        )
        self.down = made.encoder.stages
        self.grow, self.up = made.decoder.transpconvs, made.decoder.stages
        read = max(1, len(levels) - 2) if deep_supervision else 1
        self.head = nn.ModuleList(list(reversed(made.decoder.seg_layers))[:read])
        _name_once(self)

    def forward(self, images: Tensor) -> Tensor:
        """The logits of images ``(n, channels, *spatial)``, in the shapes that the class states."""
        x, skipped = images, []
        for level in self.down:
            x = level(x)
            skipped.append(x)
        decoded = []
        for grow, level, skip in zip(self.grow, self.up, reversed(skipped[:-1]), strict=True):
            x = level(torch.cat([grow(x), skip], dim=1))
            decoded.append(x)
        return read_out(self.head, decoded[::-1], self.training)


def _name_once(model: nn.Module) -> None:
    """Put in place of each block the sequence of its layers.

    The library's block names every layer twice, and so each of its tensors would be in the model's
    state twice.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ConvDropoutNormReLU):
                setattr(parent, name, child.all_modules)
