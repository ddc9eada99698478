"""Normalisation layers by name, in two and three dimensions."""

from typing import Any, Literal

import torch
from torch import nn

# batch_fixed is batch as Opacus' fixer replaces it, once the network is built.
Norm = Literal["group", "batch", "instance", "batch_fixed"]


def make_norm(norm: Norm, channels: int, dims: Literal[2, 3]) -> nn.Module:
    """A normalisation layer for ``channels`` feature maps of ``dims`` spatial dimensions.

    ``group`` uses up to 8 groups (Wu and He 2018); it mixes no cases, so that sites with skewed
    batches and DP-SGD, which needs per-case gradients, can use it. ``batch`` does mix them.
    ``instance`` (Ulyanov et al. 2016), with weights, mixes nothing at all.
    """
    if norm == "group":
        groups = next(g for g in (8, 4, 2, 1) if channels % g == 0)
        return nn.GroupNorm(groups, channels)
    if norm == "instance":
        return instance_norm(channels)
    return (nn.BatchNorm3d if dims == 3 else nn.BatchNorm2d)(channels)


def instance_norm(num_channels: int) -> nn.GroupNorm:
    """Instance normalisation with weights, as a GroupNorm with one channel in each group.

    The sums are the same. torch's InstanceNorm takes features out of channels last, and every layer
    after it pays for that: a step of a U-Net is 1.3 times as fast without it.
    """
    return nn.GroupNorm(num_channels, num_channels)


def fixed(network: nn.Module) -> nn.Module:
    """A copy in which Opacus' fixer has replaced what mixes the cases of a batch.

    BatchNorm becomes GroupNorm of up to 32 groups, with the same names and weights of its own.
    """
    from opacus.validators import ModuleValidator  # importing it takes a second

    replaced: nn.Module = ModuleValidator.fix(network)
    return replaced


def normalise_in_rows(model: nn.Module) -> None:
    """Have a GroupNorm that learns read features that need no gradient channel by channel.

    Where what comes before it is frozen, torch 2.13 gives the backward pass of features in channels
    last no memory for the gradient that nobody needs, and writes there all the same: the process
    dies. A model is changed once, however often this is called.
    """
    for module in model.modules():
        if isinstance(module, nn.GroupNorm) and _in_rows not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_in_rows)


def _in_rows(norm: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
    (features,) = given
    learns = torch.is_grad_enabled() and any(each.requires_grad for each in norm.parameters())
    if not learns or features.requires_grad:
        return None
    return (features.contiguous(),)


def norm_tensors(model: nn.Module) -> frozenset[str]:
    """The names in ``state_dict`` of the tensors that belong to normalisation layers."""
    kinds = (nn.GroupNorm, nn.modules.batchnorm._NormBase)
    return frozenset(
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, kinds)
        for name in module.state_dict()
    )
