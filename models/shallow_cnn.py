"""One convolution block and the means of its channels: few values, for training with much noise."""

from math import sqrt
from typing import Literal

from torch import Tensor, nn

from models.centring import Centring
from models.norm import Norm
from models.small_cnn import WIDTHS, block

# Means of normalised and rectified channels lie within a few times a hundredth of their mean.
SCALE = 20.0


class ShallowCNN(nn.Module):
    """How much of an image looks like each of 16 small patterns, and a linear classifier on that.

    The block is the first one of ``small_cnn``, whose weights fit: convolution (kernel 3),
    max-pooling by 2, normalisation, ReLU. The mean of each channel over the image is centred
    (:class:`~models.centring.Centring`). Under differential privacy, features that need no training
    and a classifier of few values do better than a deep network (Tramèr and Boneh 2021, arXiv
    2011.11660). It has about 500 parameters.

    Input ``(n, channels, *spatial)`` with ``dims`` spatial dimensions of at least 2 voxels each;
    output logits ``(n, classes)``.
    """

    def __init__(self, channels: int, classes: int, dims: Literal[2, 3], norm: Norm) -> None:
        super().__init__()
        mean = nn.AdaptiveAvgPool3d if dims == 3 else nn.AdaptiveAvgPool2d
        self.features = nn.Sequential(
            *block(channels, WIDTHS[0], dims, norm), mean(1), nn.Flatten()
        )
        # Normalised channels have a mean square of 1, so the norm of their means is at most √width;
        # of rectified ones it is about half of that.
        self.centring = Centring(WIDTHS[0], SCALE, bound=sqrt(WIDTHS[0] / 2))
        self.head = nn.Linear(WIDTHS[0], classes)

    def forward(self, images: Tensor) -> Tensor:
        """The logits ``(n, classes)`` of images ``(n, channels, *spatial)``."""
        logits: Tensor = self.head(self.centring(self.features(images)))
        return logits
