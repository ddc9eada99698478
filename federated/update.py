"""The values that travel between stages; ``run/update_files.py`` has their form as files.

A model is held as a flat float32 vector ``(size,)``: every floating-point tensor of its
``state_dict``, in order. Its integer buffers (the batch counter of BatchNorm) are not in the vector
and stay where they are.

In docstrings, ``size`` is the number of all values of a layout, ``shared`` that of the shared ones,
and ``parts`` the number of vectors ``(shared,)`` that a strategy sends one after the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

Vector = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Quantised = npt.NDArray[np.int32]
# What a compression sends: values as float32, or quantised as int32.
Numbers = Vector | Quantised
Positions = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]
Arrays = Mapping[str, npt.NDArray[Any]]
# Numbers by name that are summed beside an update.
Scalars = Mapping[str, float]


@dataclass(frozen=True)
class Layout:
    """The names and shapes of the tensors in a flat vector, in order.

    The tensors named in ``personal`` stay at the sites; the others are shared.
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
        """The number of values in the vector."""
        return sum(prod(shape) for _, shape in self.entries)

    @cached_property
    def shared(self) -> Flags:
        """Which of the vector's values are shared, ``(size,)`` booleans."""
        parts = [np.full(prod(shape), name not in self.personal) for name, shape in self.entries]
        return np.concatenate(parts) if parts else np.zeros(0, bool)

    @property
    def shared_groups(self) -> tuple[int, ...]:
        """The number of values of each shared tensor, in order."""
        return tuple(prod(shape) for name, shape in self.entries if name not in self.personal)

    def split(self, vector: Vector) -> dict[str, Vector]:
        """Views of the tensors in a vector ``(size,)``, by name and each in its own shape."""
        result = {}
        position = 0
        for name, shape in self.entries:
            count = prod(shape)
            result[name] = vector[position : position + count].reshape(shape)
            position += count
        return result

    def flatten(self, model: nn.Module) -> Vector:
        """The model's tensors as one float32 vector ``(size,)`` on the CPU."""
        state = model.state_dict()
        parts = [state[name].detach().reshape(-1).float().cpu() for name, _ in self.entries]
        return torch.cat(parts).numpy()

    def load(self, model: nn.Module, vector: Vector) -> None:
        """Write a vector ``(size,)`` into the model, in place.

        Raises:
            ValueError: the vector has another shape.
        """
        if vector.shape != (self.size,):
            raise ValueError(f"a vector of {vector.shape} does not fit a layout of {self.size}")
        state = model.state_dict()
        with torch.no_grad():
            for name, part in self.split(vector).items():
                state[name].copy_(torch.from_numpy(part.copy()))


@dataclass(frozen=True)
class ModelUpdate:
    """What a site has to send after a round of training on ``cases`` training cases.

    ``vector`` ``(parts * shared,)`` begins with Δ_k = w_k − w on the shared values; a strategy may
    let more parts follow. ``scalars`` are numbers that are released with it and summed beside it,
    such as whether the update was at most as long as a clipping norm that follows a quantile.
    """

    site: str
    round_number: int
    cases: int
    vector: Vector
    scalars: Scalars = field(default_factory=dict)


@dataclass(frozen=True)
class CompressedUpdate:
    """An update as it is sent: ``numbers`` at the positions that the compression keeps.

    ``weight`` is n_k / Σn over the sites selected in this round, in (0, 1]; ``numbers`` and
    ``scalars`` are already multiplied by it. ``length`` is the length of the uncompressed vector.
    ``positions``, as long as ``numbers``, are there only if the site chose them.
    """

    site: str
    round_number: int
    cases: int
    weight: float
    length: int
    numbers: Numbers
    positions: Positions | None = None
    scalars: Scalars = field(default_factory=dict)


@dataclass(frozen=True)
class Payload:
    """The bytes that leave a site or, as the sum of those, the coordinator.

    The content is already weighted, so the coordinator only adds. Whoever reads the sum divides by
    its ``weight``: at a site that is n_k / Σn, and the weights are added up in the sum, as
    ``scalars`` are. ``scheme`` and ``encoding`` say how ``length`` numbers became the bytes
    ``body``; ``context`` is the fingerprint of the key, where there is one. Everything but ``body``
    is in the clear.
    """

    site: str
    round_number: int
    weight: float
    scheme: str
    encoding: str
    context: str
    length: int
    body: npt.NDArray[np.uint8]
    positions: Positions | None = None
    scalars: Scalars = field(default_factory=dict)


@dataclass(frozen=True)
class RoundState:
    """What sites start the next round from.

    Each site can make it from the last state and the round's sum. ``weights`` ``(size,)`` are the
    global model's. ``broadcast`` holds what a strategy needs beside the weights (control variates),
    ``compression`` what the compression needs, and ``clip`` the clipping norm, where all sites have
    the same one and it changes.
    """

    round_number: int
    weights: Vector
    layout: Layout
    broadcast: Arrays = field(default_factory=dict)
    compression: Arrays = field(default_factory=dict)
    clip: float | None = None
