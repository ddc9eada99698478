"""Pretrained weights from a file: read safely, renamed, made to fit, and reported.

Files that can be read are this project's safetensors, MedicalNet's ResNet-18 (Chen et al. 2019),
torchvision's r3d_18, and 2D ImageNet ResNet-18 weights in torchvision's layout. 2D kernels enter 3D
convolutions inflated: repeated along the depth and divided by it (Carreira and Zisserman 2017,
Section 2.3); ACS and 2.5D convolutions take them as they are.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from federated.errors import ConsiliumError
from federated.files import md5_of
from federated.weights.model_file import SEPARATOR
from federated.weights.pretrained_file import read_tensors
from models import is_head

# Published networks with more blocks a stage, or bottlenecks, are not ResNet-18.
BLOCKS = 2


@dataclass
class TransferReport:
    """What became of every tensor, by the model's names; ``unused`` ones have those of the file."""

    file: str
    md5: str
    format: str
    matched: list[str] = field(default_factory=list)
    reshaped: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The report in one line, for a person."""
        head = any(is_head(name) for name in (*self.skipped, *self.missing))
        return (
            f"transfer learning from {self.file} ({self.format}): {len(self.matched)} tensors "
            f"matched, {len(self.reshaped)} reshaped, {len(self.skipped)} skipped, "
            f"{len(self.missing)} not in the file, {len(self.unused)} of the file unused"
            + ("; the head starts anew, from zero" if head else "")
        )


def load_pretrained(model: nn.Module, path: Path) -> TransferReport:
    """Fill a model with what fits of a file of weights, in place.

    The head, which is one linear classifier, starts from zero unless all of it fits exactly, that
    is, unless the classes are the same in number. From zero every class is equally probable and the
    first step is along the features; random weights would first have to be unlearnt, which under
    differential privacy costs most of the budget. Integer buffers are left alone.

    Raises:
        ConsiliumError: there is no such file, it does not hold plain tensors, it is a personalised
            model, or nothing of the backbone fits.
    """
    tensors = read_tensors(path)
    if any(SEPARATOR in name for name in tensors):
        raise ConsiliumError(
            f"The weights {path} are of a personalised model, which has no single backbone. Give "
            "the model of a strategy that shares every tensor."
        )
    layout = _layout_of(tensors)
    report = TransferReport(str(path), md5_of(path), layout)
    target = {n: t for n, t in model.state_dict().items() if t.is_floating_point()}
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        ours = _our_name(name, layout)
        if ours not in target:
            report.unused.append(name)
        elif tensor.is_floating_point():
            found[ours] = tensor
    fitted = _fit_all(found, target, report)
    if not any(not is_head(name) for name in fitted):
        raise ConsiliumError(
            f"Nothing of {path} fits the network: the file has {_some(tensors)}, the network "
            f"{_some(target)}. Set model.name, model.conv and model.stem to those of the file, or "
            "give another file."
        )
    with torch.no_grad():
        for name, tensor in target.items():
            if name in fitted:
                tensor.copy_(fitted[name])
            elif is_head(name):
                tensor.zero_()
    return report


def _fit_all(
    found: Mapping[str, Tensor], target: Mapping[str, Tensor], report: TransferReport
) -> dict[str, Tensor]:
    head_fits = all(
        name in found and found[name].shape == tensor.shape
        for name, tensor in target.items()
        if is_head(name)
    )
    fitted: dict[str, Tensor] = {}
    for name, tensor in target.items():
        if name not in found:
            report.missing.append(name)
            continue
        if is_head(name) and not head_fits:
            report.skipped[name] = "it is for other classes: the head starts anew, from zero"
            continue
        result, how = fit(found[name].float(), tuple(tensor.shape))
        if result is None:
            report.skipped[name] = how
            continue
        fitted[name] = result
        if how:
            report.reshaped[name] = how
        else:
            report.matched.append(name)
    return fitted


def fit(tensor: Tensor, shape: tuple[int, ...]) -> tuple[Tensor | None, str]:
    """Make a tensor fit a shape: the result and how it was made, or ``None`` and why not.

    The steps are taken in this order: 2D kernels are inflated, or taken as one slice; three input
    channels are summed into one, which gives the same response as three equal channels; one input
    channel is spread over several; smaller kernels are padded with zeros, which changes nothing of
    what they compute.
    """
    steps = []
    if tensor.ndim == 4 and len(shape) == 5:
        depth = shape[2]
        tensor = tensor.unsqueeze(2).expand(-1, -1, depth, -1, -1) / depth
        steps.append(f"inflated to depth {depth}")
    if tensor.ndim >= 4 and tensor.ndim == len(shape) and tensor.shape[1] != shape[1]:
        if shape[1] == 1:
            tensor = tensor.sum(dim=1, keepdim=True)
            steps.append("input channels summed")
        elif tensor.shape[1] == 1:
            tensor = tensor.repeat_interleave(shape[1], dim=1) / shape[1]
            steps.append(f"input channel spread over {shape[1]}")
    if tensor.ndim >= 4 and tensor.shape[:2] == shape[:2] and tensor.ndim == len(shape):
        gaps = [want - have for want, have in zip(shape[2:], tensor.shape[2:], strict=True)]
        if any(gaps) and all(gap >= 0 and gap % 2 == 0 for gap in gaps):
            sides = [gap // 2 for gap in reversed(gaps) for _ in range(2)]
            tensor = nn.functional.pad(tensor, sides)
            steps.append("kernel padded with zeros")
    if tuple(tensor.shape) != shape:
        return None, f"has shape {tuple(tensor.shape)}, not {shape}"
    return tensor, ", ".join(steps)


def _layout_of(tensors: Mapping[str, Tensor]) -> str:
    if "layer1.0.conv1.0.weight" in tensors:
        return "torchvision r3d_18"
    if "layer1.0.conv1.weight" in tensors:
        flat = tensors["layer1.0.conv1.weight"].ndim == 4
        return "2D ResNet-18" if flat else "MedicalNet ResNet-18"
    return "consilium"


def _our_name(name: str, layout: str) -> str | None:
    """The name of a file's tensor in :class:`models.resnet3d.ResNet3D`."""
    if layout == "consilium":
        return name
    if layout.startswith("torchvision"):
        name = re.sub(r"\.conv(\d)\.0\.", r".conv\1.", name)
        name = re.sub(r"\.conv(\d)\.1\.", r".bn\1.", name)
    block = re.match(r"layer(\d)\.(\d+)\.(.+)", name)
    if block:
        stage, number, rest = int(block[1]), int(block[2]), block[3]
        if number >= BLOCKS:
            return None
        rest = rest.replace("downsample.", "shortcut.").replace("bn", "norm")
        return f"stages.{(stage - 1) * BLOCKS + number}.{rest}"
    for theirs, ours in (("conv1.", "stem.0."), ("bn1.", "stem.1."), ("fc.", "head.")):
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _some(tensors: Mapping[str, Any]) -> str:
    names = [f"{name} {tuple(tensor.shape)}" for name, tensor in list(tensors.items())[:3]]
    return ", ".join(names) + (" …" if len(tensors) > 3 else "")
