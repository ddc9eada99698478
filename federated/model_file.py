"""A trained network as one safetensors file: named tensors, and how to build the network."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from federated.errors import ConsiliumError
from federated.files import atomic_path
from models import build_model
from models.norm import Norm


@dataclass(frozen=True)
class ModelHeader:
    """The arguments of :func:`models.build_model`, and what the network was trained on."""

    name: str
    norm: Norm
    channels: int
    classes: int
    dims: Literal[2, 3]
    size: int
    dataset: str
    data_source: str


def save_model(path: Path, model: nn.Module, header: ModelHeader) -> None:
    """Write a model's ``state_dict`` and header atomically."""
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
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


def load_model(path: Path | str) -> nn.Module:
    """Build the network of a file and fill in its weights; it is in evaluation mode."""
    header = read_header(path)
    model = build_model(
        header.name,
        channels=header.channels,
        classes=header.classes,
        dims=header.dims,
        norm=header.norm,
        seed=0,
    )
    with safe_open(path, framework="pt") as file:
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    return model.eval()
