"""Normalisation layers by name, in two and three dimensions."""

from typing import Literal

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


def norm_tensors(model: nn.Module) -> frozenset[str]:
    """The names in ``state_dict`` of the tensors that belong to normalisation layers."""
    kinds = (nn.GroupNorm, nn.modules.batchnorm._NormBase)
    return frozenset(
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, kinds)
        for name in module.state_dict()
    )
