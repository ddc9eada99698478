"""The networks, one class for each, with its settings in params.yaml and how it is made.

A network is added by its module in ``models/`` and a class here.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field, ValidationError
from torch import nn

from federated.settings.base import Settings
from models.convolution import Convolution
from models.norm import Norm, fixed

Dims = Literal[2, 3]
EITHER: frozenset[int] = frozenset({2, 3})


class Network(Settings):
    """What every network has: its normalisation, and what its weights start from.

    ``init`` is ``random`` or a file of pretrained weights.
    """

    name: str
    norm: Norm = "group"
    init: str = Field(default="random", min_length=1)

    # Whether it gives a class for each voxel instead of one for an image.
    segments: ClassVar[bool] = False
    # The numbers of spatial dimensions that it can be made for: 2 for pictures, 3 for volumes.
    dims: ClassVar[frozenset[int]] = EITHER
    # Whether networks of several sites can be computed in one call: no layer draws at random, and
    # torch's vmap knows them all. A class has to say it for itself.
    stacks: ClassVar[bool] = False

    @abstractmethod
    def make(self, channels: int, classes: int, dims: Dims) -> nn.Module:
        """The network with random weights from torch's global generator.

        Args:
            channels: of an image.
            classes: how many numbers it gives: of classes, labels, or one that is predicted.
            dims: spatial dimensions of an image.
        """

    def build(self, channels: int, classes: int, dims: Dims, seed: int) -> nn.Module:
        """The network with random weights that depend on ``seed`` alone.

        The caller's random state is left as it was. Every network has its classifier in ``head``,
        which is one linear layer, or 1x1 convolutions in unet; the rest is its backbone.

        Args:
            channels: of an image.
            classes: how many numbers it gives: of classes, labels, or one that is predicted.
            dims: spatial dimensions of an image.
            seed: any non-negative integer below 2**63.

        Raises:
            ValueError: the network is not for images of so many dimensions.
        """
        if dims not in self.dims:
            kind = "volumes" if self.dims == {3} else "pictures"
            raise ValueError(f"model {self.name} takes {kind}, and images have {dims} dimensions")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            network = self.make(channels, classes, dims)
        return fixed(network) if self.norm == "batch_fixed" else network


class SmallCNN(Network):
    """A network of three blocks of convolutions."""

    name: Literal["small_cnn"] = "small_cnn"

    stacks: ClassVar[bool] = True

    def make(self, channels: int, classes: int, dims: Dims) -> nn.Module:
        """See :class:`models.small_cnn.SmallCNN`."""
        from models.small_cnn import SmallCNN as Made

        return Made(channels, classes, dims, self.norm)


class ShallowCNN(Network):
    """A network of one block, whose features are averaged and classified linearly."""

    name: Literal["shallow_cnn"] = "shallow_cnn"

    stacks: ClassVar[bool] = True

    def make(self, channels: int, classes: int, dims: Dims) -> nn.Module:
        """See :class:`models.shallow_cnn.ShallowCNN`."""
        from models.shallow_cnn import ShallowCNN as Made

        return Made(channels, classes, dims, self.norm)


class ResNet3D(Network):
    """ResNet-18 for volumes.

    ``conv`` is the kind of its convolutions, ``stem`` the width of its first kernel in voxels.
    """

    name: Literal["resnet3d"] = "resnet3d"
    conv: Convolution = "3d"
    stem: Literal[3, 7] = 3

    dims: ClassVar[frozenset[int]] = frozenset({3})
    stacks: ClassVar[bool] = True

    def make(self, channels: int, classes: int, dims: Dims) -> nn.Module:  # noqa: ARG002
        """See :class:`models.resnet3d.ResNet3D`."""
        from models.resnet3d import ResNet3D as Made

        return Made(channels, classes, self.norm, self.conv, self.stem)


class DPResNet(Network):
    """DPResNet; with ``scale_norm`` its residual sums are normalised once more."""

    name: Literal["dp_resnet"] = "dp_resnet"
    scale_norm: bool = False

    stacks: ClassVar[bool] = True

    def make(self, channels: int, classes: int, dims: Dims) -> nn.Module:
        """See :class:`models.dp_resnet.DPResNet`."""
        from models.dp_resnet import DPResNet as Made

        return Made(channels, classes, dims, self.norm, self.scale_norm)


class UNet(Network):
    """A U-Net.

    ``width`` are the channels of the finest level; with ``deep_supervision`` its coarser levels
    are read out while training.
    """

    name: Literal["unet"] = "unet"
    width: Annotated[int, Field(ge=8, multiple_of=8)] = 16
    deep_supervision: bool = False

    segments: ClassVar[bool] = True
    stacks: ClassVar[bool] = True

    def make(self, channels: int, classes: int, dims: Dims) -> nn.Module:
        """See :class:`models.unet.UNet`."""
        # Importing MONAI takes seconds; only those who segment should wait for it.
        from models.unet import UNet as Made

        return Made(channels, classes, dims, self.norm, self.width, self.deep_supervision)


class Level(Settings):
    """A level of nnU-Net's network.

    ``features`` are its channels, ``kernel`` the sides of its convolutions, and ``stride`` by how
    much each axis is divided before it.
    """

    features: int = Field(ge=1, le=1024)
    kernel: tuple[Literal[1, 3], ...]
    stride: tuple[Literal[1, 2], ...]


def as_levels(value: Any) -> Any:
    """Levels as a file has them, a list of lists, as what they are, where they can be that.

    A strict reader of a model's header takes no list for a tuple.
    """
    if not isinstance(value, list | tuple):
        return value
    try:
        return tuple(
            Level.model_validate(each) if isinstance(each, Mapping) else each for each in value
        )
    except ValidationError:
        return value  # which is refused by its own key


# The levels of a network, the finest first; more halve no image.
Levels = Annotated[
    tuple[Level, ...], Field(min_length=2, max_length=12), BeforeValidator(as_levels)
]


class NNUNet(Network):
    """nnU-Net's U-Net, whose levels follow from what was counted of all sites' images.

    ``levels`` are the finest first, or ``auto`` until they are planned: by ``width``, the channels
    of the finest level, and ``memory_gb``, 10^9 bytes for the features of a training step; by our
    ``planner``, or by nnU-Net's own, which needs the extra ``nnunet``.
    ``convolutions`` is how many a level has. With ``deep_supervision`` coarser levels are read out
    while training.
    """

    name: Literal["nnunet"] = "nnunet"
    norm: Norm = "instance"
    levels: Levels | Literal["auto"] = "auto"
    width: Annotated[int, Field(ge=8, multiple_of=8)] = 32
    memory_gb: float = Field(default=4.0, gt=0)
    planner: Literal["consilium", "nnunet"] = "consilium"
    convolutions: int = Field(default=2, ge=1)
    deep_supervision: bool = True

    segments: ClassVar[bool] = True
    stacks: ClassVar[bool] = True

    def make(self, channels: int, classes: int, dims: Dims) -> nn.Module:
        """See :class:`models.nnunet.NNUNet`.

        Raises:
            ValueError: its levels are not planned yet, or are of other dimensions.
        """
        # Importing it takes seconds; only those who segment should wait for it.
        from models.nnunet import NNUNet as Made

        if self.levels == "auto":
            raise ValueError("the levels of nnunet have to be planned before it is made")
        if any(len(sides) != dims for lv in self.levels for sides in (lv.kernel, lv.stride)):
            raise ValueError(f"model.levels are not those of images with {dims} dimensions")
        levels = [(level.features, level.kernel, level.stride) for level in self.levels]
        return Made(
            channels, classes, dims, self.norm, levels, self.convolutions, self.deep_supervision
        )


NETWORKS: tuple[type[Network], ...] = (SmallCNN, ShallowCNN, ResNet3D, DPResNet, UNet, NNUNet)
# Settings that configurations and files of older versions have for every network, whichever it is.
OF_ALL_ONCE: Mapping[str, Any] = {
    "conv": "3d",
    "stem": 3,
    "scale_norm": False,
    "width": 16,
    "deep_supervision": False,
}


def as_one(value: Any) -> Any:
    """A section for one network, without settings of others that have their default.

    Without a name it is small_cnn's.
    """
    if not isinstance(value, Mapping):
        return value
    named = {"name": "small_cnn", **value}
    network = next((n for n in NETWORKS if n.model_fields["name"].default == named["name"]), None)
    if network is None:
        return named
    return {
        key: told
        for key, told in named.items()
        if key in network.model_fields or key not in OF_ALL_ONCE or told != OF_ALL_ONCE[key]
    }


AnyNetwork = Annotated[
    SmallCNN | ShallowCNN | ResNet3D | DPResNet | UNet | NNUNet,
    Field(discriminator="name"),
    BeforeValidator(as_one),
]
