"""ResNet-18 for volumes (He et al. 2016, with three-dimensional convolutions)."""

from typing import Literal

from torch import Tensor, nn

from models.convolution import Convolution, make_conv
from models.norm import Norm, make_norm

WIDTHS = (64, 128, 256, 512)
BLOCKS_PER_STAGE = 2


class BasicBlock(nn.Module):
    """Two convolutions of kernel 3 and a shortcut (He et al. 2016, Figure 2 and Eq. 2)."""

    def __init__(
        self, width_in: int, width: int, stride: int, norm: Norm, conv: Convolution
    ) -> None:
        super().__init__()
        self.conv1 = make_conv(conv, width_in, width, 3, stride)
        self.norm1 = make_norm(norm, width, 3)
        self.conv2 = make_conv(conv, width, width, 3)
        self.norm2 = make_norm(norm, width, 3)
        # Not in place: Opacus computes per-case gradients from the activations.
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            self.shortcut = nn.Sequential(
                make_conv(conv, width_in, width, 1, stride),
                make_norm(norm, width, 3),
            )

    def forward(self, x: Tensor) -> Tensor:
        """The block's output ``(n, width, *spatial)``; a stride of 2 halves the sides."""
        out = self.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out)) + self.shortcut(x)
        activated: Tensor = self.relu(out)
        return activated


class ResNet3D(nn.Module):
    """ResNet-18 for volumes: about 33 million parameters, a third of that with ``acs`` or ``2.5d``.

    The stem is one convolution of stride 2 without the max-pooling of the original, which would
    leave volumes of 28 voxels a side with a single voxel before the last stage. Its kernel is 3, or
    7 as in the original, which published weights need.

    Input ``(n, channels, depth, height, width)``; output logits ``(n, classes)``.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        norm: Norm,
        conv: Convolution = "3d",
        stem: Literal[3, 7] = 3,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            make_conv(conv, channels, WIDTHS[0], stem, stride=2),
            make_norm(norm, WIDTHS[0], 3),
            nn.ReLU(),
        )
        stages: list[nn.Module] = []
        width_in = WIDTHS[0]
        for number, width in enumerate(WIDTHS):
            for block in range(BLOCKS_PER_STAGE):
                stride = 2 if number > 0 and block == 0 else 1
                stages.append(BasicBlock(width_in, width, stride, norm, conv))
                width_in = width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten())
        self.head = nn.Linear(WIDTHS[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """The logits ``(n, classes)`` of volumes ``(n, channels, depth, height, width)``."""
        logits: Tensor = self.head(self.pool(self.stages(self.stem(images))))
        return logits
