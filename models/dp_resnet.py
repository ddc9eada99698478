"""DPResNet: a ResNet-9 that DP-SGD can train (arXiv 2412.00687), in two and three dimensions."""

from typing import Literal

from torch import Tensor, nn

from models.norm import Norm, make_norm


class Residual(nn.Module):
    """The map x + f(x), where f is two convolutions; ``scale`` normalises the sum once more.

    The sum of two normalised branches has a larger scale than either; with ``scale`` it is brought
    back, which lets more of a clipped gradient through (Klause et al. 2022, arXiv 2203.00324).
    Input and output are ``(n, width, *spatial)``.
    """

    def __init__(self, width: int, dims: Literal[2, 3], norm: Norm, scale: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolution(width, width, 1, dims, norm), *convolution(width, width, 1, dims, norm)
        )
        self.scale = make_norm(norm, width, dims) if scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, in the shape of ``x``."""
        out: Tensor = self.scale(x + self.body(x))
        return out


class DPResNet(nn.Module):
    """Eight convolutions and a linear layer, with about 6.6 million parameters in 2D.

    It has the widths 64, 128, 256 and 512, and a residual block after the second and the fourth
    convolution, as ResNet-9 has them. GroupNorm stands for BatchNorm, which mixes cases, and a
    stride of 2 for each max-pooling.

    Input ``(n, channels, *spatial)`` with ``dims`` spatial dimensions of at least 8 each; output
    logits ``(n, classes)``.
    """

    def __init__(
        self, channels: int, classes: int, dims: Literal[2, 3], norm: Norm, scale_norm: bool
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *convolution(channels, 64, 1, dims, norm),
            *convolution(64, 128, 2, dims, norm),
            Residual(128, dims, norm, scale_norm),
            *convolution(128, 256, 2, dims, norm),
            *convolution(256, 512, 2, dims, norm),
            Residual(512, dims, norm, scale_norm),
            (nn.AdaptiveAvgPool3d if dims == 3 else nn.AdaptiveAvgPool2d)(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(512, classes)

    def forward(self, images: Tensor) -> Tensor:
        """The logits ``(n, classes)`` of images ``(n, channels, *spatial)``."""
        logits: Tensor = self.head(self.features(images))
        return logits


def convolution(
    width_in: int, width: int, stride: int, dims: Literal[2, 3], norm: Norm
) -> list[nn.Module]:
    """A convolution of kernel 3, its normalisation, and ReLU.

    Args:
        width_in: the channels of its input.
        width: the channels of its output.
        stride: along every axis.
        dims: the spatial dimensions of an image.
        norm: the normalisation of its output.
    """
    conv = nn.Conv3d if dims == 3 else nn.Conv2d
    return [
        conv(width_in, width, kernel_size=3, stride=stride, padding=1, bias=False),
        make_norm(norm, width, dims),
        nn.ReLU(),
    ]
