"""Kinds of convolution for volumes: 3D, and two that take 2D weights as they are."""

from typing import Literal

import torch
from torch import Tensor, nn

Convolution = Literal["3d", "acs", "2.5d"]


class ACSConv3d(nn.Module):
    """Axial-coronal-sagittal convolution: 2D kernels, each third along another plane.

    Yang et al. 2021, "Reinventing 2D Convolutions for 3D Images", Section III-B: the output
    channels are cut into three parts, whose kernels ``k × k`` act as ``1 × k × k``, ``k × 1 × k``
    and ``k × k × 1``. ``weight`` is ``(out, in, k, k)``, as in a 2D network.

    Input ``(n, in, depth, height, width)``; output ``(n, out, *spatial)``.

    Raises:
        ValueError: there are fewer than three output channels.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        if channels_out < 3:
            raise ValueError("an ACS convolution needs at least 3 output channels, one a plane")
        template = nn.Conv2d(channels_in, channels_out, kernel, bias=False)
        self.weight = nn.Parameter(template.weight.detach().clone())
        self.stride, self.kernel = stride, kernel
        sizes = [channels_out // 3 + (part < channels_out % 3) for part in range(3)]
        self.parts = sizes

    def forward(self, x: Tensor) -> Tensor:
        """The output channels ``(n, out, *spatial)`` of volumes ``(n, in, *spatial)``."""
        outputs = []
        for axis, weight in enumerate(torch.split(self.weight, self.parts), start=2):
            padding = [self.kernel // 2] * 3
            padding[axis - 2] = 0
            kernel = weight.unsqueeze(axis)
            outputs.append(nn.functional.conv3d(x, kernel, stride=self.stride, padding=padding))
        return torch.cat(outputs, dim=1)


def make_conv(
    kind: Convolution, channels_in: int, channels_out: int, kernel: int, stride: int = 1
) -> nn.Module:
    """A convolution without bias that keeps the size at stride 1; ``kernel`` is odd.

    ``3d`` has ``kernel³`` weights for each pair of channels; ``acs`` and ``2.5d`` have ``kernel²``.
    ``2.5d`` looks at each slice across the first axis alone (the 2.5D of Yang et al. 2021); only
    strides and pooling join slices.

    Args:
        kind: the kind of the convolution.
        channels_in: the channels of its input.
        channels_out: the channels of its output.
        kernel: its side in voxels, odd.
        stride: along every axis.
    """
    if kind == "acs" and kernel > 1:
        return ACSConv3d(channels_in, channels_out, kernel, stride)
    size = (1 if kind == "2.5d" else kernel, kernel, kernel)
    padding = (size[0] // 2, size[1] // 2, size[2] // 2)
    return nn.Conv3d(channels_in, channels_out, size, stride=stride, padding=padding, bias=False)
