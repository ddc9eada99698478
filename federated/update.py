"""The values that travel between stages, and their form as safetensors files.

A flat float32 vector holds a model: every floating-point tensor of its ``state_dict`` in order.
Integer buffers (the batch counter of BatchNorm) stay where they are.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import nn

from federated.errors import ConsiliumError
from federated.files import atomic_path

Vector = npt.NDArray[np.float32]
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the tensors in a flat vector, in order.

    Tensors named in ``personal`` stay at the sites; the others are shared.
    """

    entries: tuple[tuple[str, tuple[int, ...]], ...]
    personal: frozenset[str] = frozenset()

    @staticmethod
    def of(model: nn.Module, personal: frozenset[str] = frozenset()) -> "Layout":
        """The layout of a model's floating-point tensors."""
        entries = tuple(
            (name, tuple(tensor.shape))
            for name, tensor in model.state_dict().items()
            if tensor.is_floating_point()
        )
        return Layout(entries, personal)

    @property
    def size(self) -> int:
        """Number of values in the vector."""
        return sum(prod(shape) for _, shape in self.entries)

    @cached_property
    def shared(self) -> npt.NDArray[np.bool_]:
        """Which of the vector's values are shared, as booleans of its :attr:`size`."""
        parts = [np.full(prod(shape), name not in self.personal) for name, shape in self.entries]
        return np.concatenate(parts) if parts else np.zeros(0, bool)

    def split(self, vector: Vector) -> dict[str, Vector]:
        """Views of the vector's tensors, by name and in their shapes."""
        result = {}
        position = 0
        for name, shape in self.entries:
            count = prod(shape)
            result[name] = vector[position : position + count].reshape(shape)
            position += count
        return result

    def flatten(self, model: nn.Module) -> Vector:
        """The model's tensors as one float32 vector of :attr:`size` values, on the CPU."""
        state = model.state_dict()
        parts = [state[name].detach().reshape(-1).float().cpu() for name, _ in self.entries]
        return torch.cat(parts).numpy()

    def load(self, model: nn.Module, vector: Vector) -> None:
        """Write ``vector`` into the model, in place.

        Raises:
            ValueError: the vector's length is not :attr:`size`.
        """
        if vector.shape != (self.size,):
            raise ValueError(f"a vector of {vector.shape} does not fit a layout of {self.size}")
        state = model.state_dict()
        with torch.no_grad():
            for name, part in self.split(vector).items():
                state[name].copy_(torch.from_numpy(part.copy()))


@dataclass(frozen=True)
class ModelUpdate:
    """What a site has to send of a round, from ``cases`` training cases.

    ``vector`` begins with Δ_k = w_k − w on the shared values; a strategy may let more follow.
    """

    site: str
    round_number: int
    cases: int
    vector: Vector


@dataclass(frozen=True)
class CompressedUpdate:
    """An update as it is sent: ``values`` at the coordinates that the compression keeps.

    ``length`` is the length of the uncompressed vector.
    """

    site: str
    round_number: int
    cases: int
    length: int
    values: Vector


@dataclass(frozen=True)
class Payload:
    """Bytes that leave a site, with what the coordinator must know to add them.

    ``weight`` is n_k / Σn over the sites asked in this round. It is already applied to the
    content, so the coordinator only adds; it divides by the weights that arrived.
    """

    site: str
    round_number: int
    weight: float
    scheme: str
    length: int
    body: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class RoundState:
    """What sites start the next round from: this is what travels down.

    ``broadcast`` holds what a strategy sends along with the weights (control variates), by name.
    """

    round_number: int
    weights: Vector
    layout: Layout
    broadcast: Arrays = field(default_factory=dict)


def _write(path: Path, kind: str, arrays: Arrays, header: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        save_file(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()},
            temporary,
            metadata={"kind": kind, "header": json.dumps(header)},
        )


def _read(path: Path, kind: str) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ConsiliumError(
            f"The file {path} cannot be read as a {kind} ({error}). It is missing or damaged; "
            "remove the round's folder and resume the run."
        ) from error
    if metadata.get("kind") != kind:
        raise ConsiliumError(f"The file {path} holds a {metadata.get('kind')!r}, not a {kind}.")
    return arrays, json.loads(metadata["header"])


def write_update(path: Path, update: ModelUpdate) -> None:
    """Write an update atomically."""
    header = {
        "site": update.site,
        "round_number": update.round_number,
        "cases": update.cases,
    }
    _write(path, "update", {"vector": update.vector}, header)


def read_update(path: Path) -> ModelUpdate:
    """Read an update written by :func:`write_update`."""
    arrays, header = _read(path, "update")
    return ModelUpdate(vector=arrays["vector"], **header)


def write_compressed(path: Path, update: CompressedUpdate) -> None:
    """Write a compressed update atomically."""
    header = {
        "site": update.site,
        "round_number": update.round_number,
        "cases": update.cases,
        "length": update.length,
    }
    _write(path, "compressed", {"values": update.values}, header)


def read_compressed(path: Path) -> CompressedUpdate:
    """Read an update written by :func:`write_compressed`."""
    arrays, header = _read(path, "compressed")
    return CompressedUpdate(values=arrays["values"], **header)


def write_payload(path: Path, payload: Payload) -> int:
    """Write a payload atomically and return the bytes that travel: the whole file's size."""
    header = {
        "site": payload.site,
        "round_number": payload.round_number,
        "weight": payload.weight,
        "scheme": payload.scheme,
        "length": payload.length,
    }
    _write(path, "payload", {"body": payload.body}, header)
    return path.stat().st_size


def read_payload(path: Path) -> Payload:
    """Read a payload written by :func:`write_payload`."""
    arrays, header = _read(path, "payload")
    return Payload(body=arrays["body"], **header)


def write_state(path: Path, state: RoundState) -> None:
    """Write a round's state atomically."""
    arrays = {"weights": state.weights} | {f"broadcast.{k}": v for k, v in state.broadcast.items()}
    header = {
        "round_number": state.round_number,
        "layout": state.layout.entries,
        "personal": sorted(state.layout.personal),
    }
    _write(path, "state", arrays, header)


def read_state(path: Path) -> RoundState:
    """Read a round's state written by :func:`write_state`."""
    arrays, header = _read(path, "state")
    entries = tuple((name, tuple(shape)) for name, shape in header["layout"])
    weights = arrays.pop("weights")
    broadcast = {name.removeprefix("broadcast."): array for name, array in arrays.items()}
    layout = Layout(entries, frozenset(header["personal"]))
    return RoundState(header["round_number"], weights, layout, broadcast)


def write_memory(path: Path, arrays: Arrays) -> None:
    """Write what the server or a site keeps to itself between rounds, atomically."""
    _write(path, "memory", arrays, {})


def read_memory(path: Path) -> Arrays:
    """Read what :func:`write_memory` wrote."""
    return _read(path, "memory")[0]
