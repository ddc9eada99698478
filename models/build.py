"""One way to make a network by name."""

from typing import Literal

import torch
from torch import nn

from models.convolution import Convolution
from models.dp_resnet import DPResNet
from models.norm import Norm, fixed
from models.resnet3d import ResNet3D
from models.shallow_cnn import ShallowCNN
from models.small_cnn import SmallCNN

CLASSIFIERS = ("small_cnn", "shallow_cnn", "resnet3d", "dp_resnet")
MODELS = (*CLASSIFIERS, "unet")


def build_model(
    name: str,
    *,
    channels: int,
    classes: int,
    dims: Literal[2, 3],
    norm: Norm,
    seed: int,
    conv: Convolution = "3d",
    stem: Literal[3, 7] = 3,
    scale_norm: bool = False,
    width: int = 16,
    deep_supervision: bool = False,
) -> nn.Module:
    """Build a network with random weights that depend on ``seed`` alone.

    The caller's random state is left as it was. Every network has its classifier in ``head``, one
    linear layer, in unet 1x1 convolutions; the rest is its backbone.

    Args:
        name: one of :data:`MODELS`.
        channels: channels of an image.
        classes: number of classes, at least 2.
        dims: spatial dimensions of an image.
        norm: normalisation layer.
        seed: any non-negative integer below 2**63.
        conv: kind of convolution of resnet3d.
        stem: kernel of the first convolution of resnet3d.
        scale_norm: whether dp_resnet normalises its residual sums.
        width: channels of unet's finest level, a multiple of 8.
        deep_supervision: whether unet's coarser levels are read out while training.

    Raises:
        ValueError: an unknown name, or a 3D network asked for 2D images.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(MODELS)}")
    if name == "resnet3d" and dims != 3:
        raise ValueError("model resnet3d takes volumes; choose small_cnn for 2D images")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module
        if name == "resnet3d":
            network = ResNet3D(channels, classes, norm, conv, stem)
        elif name == "dp_resnet":
            network = DPResNet(channels, classes, dims, norm, scale_norm)
        elif name == "unet":
            # MONAI takes seconds to import, which only those who segment are to wait for.
            from models.unet import UNet

            network = UNet(channels, classes, dims, norm, width, deep_supervision)
        elif name == "shallow_cnn":
            network = ShallowCNN(channels, classes, dims, norm)
        else:
            network = SmallCNN(channels, classes, dims, norm)
    return fixed(network) if norm == "batch_fixed" else network


def is_head(name: str) -> bool:
    """Whether a tensor or module of this name belongs to the head of any network here."""
    return name == "head" or name.startswith("head.")


def head_tensors(model: nn.Module) -> frozenset[str]:
    """The names of the tensors of a network's head."""
    return frozenset(name for name in model.state_dict() if is_head(name))
