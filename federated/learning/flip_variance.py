"""How uncertain a segmentation is: the variance of probabilities over flips of the image.

Test-time augmentation (Wang et al. 2019, "Aleatoric uncertainty estimation with test-time
augmentation for medical image segmentation with convolutional neural networks"): the network sees
the image along each combination of its axes flipped, and what it predicts is flipped back. Where it
answers otherwise, its answer hangs on what does not matter. What the network was never shown, such
as a liver on the left, can make it so too, and where it is wrong each time alike nothing is seen.
"""

from collections.abc import Callable, Iterator
from itertools import combinations

import torch
from torch import Tensor


def flips(dims: int) -> Iterator[tuple[int, ...]]:
    """The axes of each combination of flips of an image with an axis of channels, none first."""
    axes = range(1, dims + 1)
    for count in range(dims + 1):
        yield from combinations(axes, count)


def flip_variance(predict: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """The variance over 2^dims flips, the largest of any class, ``(*spatial)`` in [0, 1/4].

    Args:
        predict: gives class probabilities ``(classes, *spatial)`` of an image.
        image: ``(channels, *spatial)``.
    """
    total, squares, count = torch.zeros(()), torch.zeros(()), 0
    for axes in flips(image.ndim - 1):
        found = predict(image.flip(axes)).flip(axes).double()
        total, squares, count = total + found, squares + found.square(), count + 1
    mean = total / count
    return (squares / count - mean.square()).clamp(0, 0.25).amax(dim=0)
