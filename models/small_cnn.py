"""A small convolutional net: the default where two CPU cores must do."""

from typing import Literal

from torch import Tensor, nn

from models.norm import Norm, make_norm

WIDTHS = (16, 32, 64)
HIDDEN = 64


class SmallCNN(nn.Module):
    """Three convolution blocks of 16, 32 and 64 channels, a hidden layer of 64, and the classifier.

    A block is convolution (kernel 3), max-pooling by 2, normalisation and ReLU; pooling first
    leaves an eighth of a volume to normalise, a third of the time of a step on a CPU. For one
    input channel, two classes and volumes of 28 voxels a side it has about 181 000 parameters.

    Input ``(n, channels, *spatial)`` with ``dims`` spatial dimensions of at least 8 voxels each;
    output logits ``(n, classes)``.
    """

    def __init__(self, channels: int, classes: int, dims: Literal[2, 3], norm: Norm) -> None:
        super().__init__()
        adaptive_pool = nn.AdaptiveAvgPool3d if dims == 3 else nn.AdaptiveAvgPool2d
        layers: list[nn.Module] = []
        width_in = channels
        for width in WIDTHS:
            layers += block(width_in, width, dims, norm)
            width_in = width
        # 28 voxels a side arrive here as 3, so this is the identity there and fixes larger inputs.
        layers += [
            adaptive_pool(3),
            nn.Flatten(),
            nn.Linear(WIDTHS[-1] * 3**dims, HIDDEN),
            nn.ReLU(),
        ]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(HIDDEN, classes)

    def forward(self, images: Tensor) -> Tensor:
        """The logits ``(n, classes)`` of images ``(n, channels, *spatial)``."""
        logits: Tensor = self.head(self.features(images))
        return logits


def block(width_in: int, width: int, dims: Literal[2, 3], norm: Norm) -> list[nn.Module]:
    """A convolution of kernel 3, max-pooling by 2, normalisation and ReLU."""
    conv = nn.Conv3d if dims == 3 else nn.Conv2d
    pool = nn.MaxPool3d if dims == 3 else nn.MaxPool2d
    return [
        conv(width_in, width, kernel_size=3, padding=1),
        pool(2),
        make_norm(norm, width, dims),
        nn.ReLU(),
    ]
