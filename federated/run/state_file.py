"""The state of a round, and what the server or a site keeps between rounds, as files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from safetensors import SafetensorError

from federated.errors import ConsiliumError
from federated.run.tensor_file import MOST_HEADER, packed, read_tensors, write_packed, write_tensors
from federated.update import Arrays, Layout, RoundState
from federated.weights.bounded_file import open_tensors, read_fields

STATE_FIELDS: Mapping[str, type] = {
    **{"round_number": int, "layout": list, "personal": list, "clip": object},
}


def write_state(path: Path, state: RoundState) -> None:
    """Write a round's state atomically."""
    arrays = {
        "weights": state.weights,
        **{f"broadcast.{name}": array for name, array in state.broadcast.items()},
        **{f"compression.{name}": array for name, array in state.compression.items()},
    }
    header = {
        "round_number": state.round_number,
        "layout": state.layout.entries,
        "personal": sorted(state.layout.personal),
        "clip": state.clip,
    }
    write_tensors(path, "state", arrays, header)


def read_state(path: Path) -> RoundState:
    """Read a round's state written by :func:`write_state`.

    Raises:
        ConsiliumError: the file is missing or damaged, or its parts do not fit each other.
    """
    arrays, header = read_tensors(path, "state", STATE_FIELDS)
    layout = _layout(path, header)
    if "weights" not in arrays or arrays["weights"].shape != (layout.size,):
        raise ConsiliumError(
            f"The file {path} is refused: its weights do not have the {layout.size} values of its "
            "layout. Remove the round's folder and resume the run."
        )
    parts: dict[str, dict[str, npt.NDArray[Any]]] = {"broadcast": {}, "compression": {}}
    for name, array in arrays.items():
        part, dot, key = name.partition(".")
        if dot and part in parts:
            parts[part][key] = array
    number, clip = header["round_number"], header["clip"]
    return RoundState(number, arrays["weights"], layout, **parts, clip=clip)


def read_layout(path: Path) -> Layout:
    """The layout of a round's state, without reading the weights.

    Raises:
        ConsiliumError: the file is missing or damaged.
    """
    try:
        with open_tensors(path, "numpy", MOST_HEADER) as file:
            return _layout(path, read_fields((file.metadata() or {}).get("header"), STATE_FIELDS))
    except (SafetensorError, OSError, ValueError) as error:
        raise ConsiliumError(
            f"The file {path} cannot be read as a state ({error}). It is missing or damaged; "
            "remove the round's folder and resume the run."
        ) from error


def _layout(path: Path, header: Mapping[str, Any]) -> Layout:
    """The layout that a header holds.

    Raises:
        ConsiliumError: it holds none.
    """
    try:
        entries = tuple((str(name), tuple(shape)) for name, shape in header["layout"])
        whole = all(type(side) is int and side >= 0 for _, shape in entries for side in shape)
        if not whole:
            raise ValueError("a shape is none")
        return Layout(entries, frozenset(map(str, header["personal"])))
    except (TypeError, ValueError) as error:
        raise ConsiliumError(
            f"The file {path} is refused: its layout is none ({error}). Remove the round's folder "
            "and resume the run."
        ) from error


def pack_memory(arrays: Arrays) -> bytes:
    """The bytes of the file of what a site keeps to itself between rounds."""
    return packed("memory", arrays, {})


def write_memory(path: Path, arrays: Arrays) -> None:
    """Write what the server or a site keeps to itself between rounds, atomically."""
    write_packed(path, pack_memory(arrays))


def read_memory(path: Path) -> Arrays:
    """Read what :func:`write_memory` wrote.

    Raises:
        ConsiliumError: the file is missing or damaged.
    """
    return read_tensors(path, "memory", {})[0]
