"""A trained network as one safetensors file: named tensors, and how to build the network."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from federated.data.families import FAMILIES, Family
from federated.errors import ConsiliumError
from federated.files import atomic_path
from federated.update import Vector
from models import build_model
from models.convolution import Convolution
from models.norm import Norm

PersonalTensors = Mapping[str, Mapping[str, Vector]]
SEPARATOR = "/"


@dataclass(frozen=True)
class ModelHeader:
    """The arguments of :func:`models.build_model`, and what the network was trained on.

    ``size`` is that of MedMNIST's images, ``spacing`` that of volumes in mm where it is not their
    data set's own.
    """

    name: str
    norm: Norm
    channels: int
    classes: int
    dims: Literal[2, 3]
    size: int | None
    dataset: str
    data_source: str
    conv: Convolution = "3d"
    stem: Literal[3, 7] = 3
    scale_norm: bool = False
    width: int = 16
    deep_supervision: bool = False
    spacing: float | None = None

    def family(self) -> Family | None:
        """The segmentation set it was trained on, with its spacing; ``None`` of a classifier."""
        family = FAMILIES.get(self.dataset)
        return family.with_spacing(self.spacing) if family else None

    def build(self, seed: int) -> nn.Module:
        """The network, with random weights that depend on ``seed`` alone."""
        return build_model(
            self.name,
            channels=self.channels,
            classes=self.classes,
            dims=self.dims,
            norm=self.norm,
            seed=seed,
            conv=self.conv,
            stem=self.stem,
            scale_norm=self.scale_norm,
            width=self.width,
            deep_supervision=self.deep_supervision,
        )


def save_model(
    path: Path, model: nn.Module, header: ModelHeader, personal: PersonalTensors | None = None
) -> None:
    """Write a model's ``state_dict``, its sites' own tensors, and the header atomically.

    ``personal`` holds, by site, the tensors in which that site's model differs.
    """
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    for site, own in (personal or {}).items():
        tensors |= {
            f"{site}{SEPARATOR}{name}": torch.from_numpy(np.array(value))
            for name, value in own.items()
        }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"consilium": json.dumps(asdict(header))})


def read_header(path: Path | str) -> ModelHeader:
    """The header of a file written by :func:`save_model`.

    Raises:
        ConsiliumError: the file is missing, damaged or another safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return ModelHeader(**json.loads(file.metadata()["consilium"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ConsiliumError(
            f"The file {path} is not a model of this project ({error}). Give the "
            "model.safetensors of a finished run."
        ) from error


def personal_sites(path: Path | str) -> list[str]:
    """The sites that have tensors of their own in a model file; none for a global model."""
    with safe_open(path, framework="pt") as file:
        return sorted({k.split(SEPARATOR)[0] for k in file.keys() if SEPARATOR in k})  # noqa: SIM118


def load_model(path: Path | str, site: str | None = None) -> nn.Module:
    """Build the network of a file and fill in its weights; it is in evaluation mode.

    Args:
        path: a file written by :func:`save_model`.
        site: whose model, where sites have tensors of their own.

    Raises:
        ConsiliumError: sites have models of their own, and ``site`` is none of them.
    """
    header = read_header(path)
    sites = personal_sites(path)
    if sites and site not in sites:
        raise ConsiliumError(
            f"The model {path} is personalised: every site has its own, and {site!r} is not one "
            f"of them. Name one of {', '.join(sites)}."
        )
    model = header.build(seed=0)
    own = f"{site}{SEPARATOR}"
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        tensors = {name: file.get_tensor(name) for name in names if SEPARATOR not in name}
        tensors |= {n.removeprefix(own): file.get_tensor(n) for n in names if n.startswith(own)}
    model.load_state_dict(tensors)
    return model.eval()
