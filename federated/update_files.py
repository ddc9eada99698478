"""The values that travel, as safetensors files with a JSON header; nothing is ever unpickled.

The files are open to their owner alone: among them are updates before they are protected, and what
a site keeps to itself. What ``pack_`` makes of a value are the bytes of its file.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save, save_file

from federated.errors import ConsiliumError
from federated.files import PRIVATE, atomic_path
from federated.update import Arrays, CompressedUpdate, Layout, ModelUpdate, Payload, RoundState


def _packed(kind: str, arrays: Arrays, header: Mapping[str, Any]) -> bytes:
    packed: bytes = save(_whole(arrays), metadata=_metadata(kind, header))
    return packed


def _write(path: Path, kind: str, arrays: Arrays, header: Mapping[str, Any]) -> None:
    with atomic_path(path, PRIVATE) as temporary:
        save_file(_whole(arrays), temporary, metadata=_metadata(kind, header))


def _whole(arrays: Arrays) -> dict[str, npt.NDArray[Any]]:
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _metadata(kind: str, header: Mapping[str, Any]) -> dict[str, str]:
    return {"kind": kind, "header": json.dumps(header)}


def write_packed(path: Path, content: bytes) -> None:
    """Write the bytes that a ``pack_`` function made, atomically."""
    with atomic_path(path, PRIVATE) as temporary:
        temporary.write_bytes(content)


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


def pack_update(update: ModelUpdate) -> bytes:
    """The file of an update."""
    header = {
        "site": update.site,
        "round_number": update.round_number,
        "cases": update.cases,
        "below": update.below,
    }
    return _packed("update", {"vector": update.vector}, header)


def read_update(path: Path) -> ModelUpdate:
    """Read an update of :func:`pack_update`."""
    arrays, header = _read(path, "update")
    return ModelUpdate(vector=arrays["vector"], **header)


def pack_compressed(update: CompressedUpdate) -> bytes:
    """The file of a compressed update."""
    header = {
        "site": update.site,
        "round_number": update.round_number,
        "cases": update.cases,
        "weight": update.weight,
        "length": update.length,
        "below": update.below,
    }
    return _packed("compressed", {"numbers": update.numbers} | _positions(update), header)


def read_compressed(path: Path) -> CompressedUpdate:
    """Read an update of :func:`pack_compressed`."""
    arrays, header = _read(path, "compressed")
    return CompressedUpdate(numbers=arrays["numbers"], positions=_read_positions(arrays), **header)


def write_payload(path: Path, payload: Payload) -> int:
    """Write a payload atomically and return the bytes that travel: the whole file's size."""
    header = {
        "site": payload.site,
        "round_number": payload.round_number,
        "weight": payload.weight,
        "scheme": payload.scheme,
        "encoding": payload.encoding,
        "context": payload.context,
        "length": payload.length,
        "below": payload.below,
    }
    _write(path, "payload", {"body": payload.body} | _positions(payload), header)
    return path.stat().st_size


def read_payload(path: Path) -> Payload:
    """Read a payload written by :func:`write_payload`."""
    arrays, header = _read(path, "payload")
    return Payload(body=arrays["body"], positions=_read_positions(arrays), **header)


def _positions(value: CompressedUpdate | Payload) -> dict[str, npt.NDArray[np.uint32]]:
    """Four bytes a position: a vector has fewer than 2^32 values."""
    if value.positions is None:
        return {}
    return {"positions": value.positions.astype("<u4")}


def _read_positions(arrays: Arrays) -> npt.NDArray[np.intp] | None:
    return arrays["positions"].astype(np.intp) if "positions" in arrays else None


def write_state(path: Path, state: RoundState) -> None:
    """Write a round's state atomically."""
    arrays = {
        "weights": state.weights,
        **{f"broadcast.{name}": array for name, array in state.broadcast.items()},
        **{f"agreed.{name}": array for name, array in state.agreed.items()},
    }
    header = {
        "round_number": state.round_number,
        "layout": state.layout.entries,
        "personal": sorted(state.layout.personal),
        "clip": state.clip,
    }
    _write(path, "state", arrays, header)


def read_state(path: Path) -> RoundState:
    """Read a round's state written by :func:`write_state`."""
    arrays, header = _read(path, "state")
    parts: dict[str, dict[str, npt.NDArray[Any]]] = {"broadcast": {}, "agreed": {}}
    for name, array in arrays.items():
        part, dot, key = name.partition(".")
        if dot:
            parts[part][key] = array
    number, clip = header["round_number"], header.get("clip")
    return RoundState(number, arrays["weights"], _layout(header), **parts, clip=clip)


def read_layout(path: Path) -> Layout:
    """The layout of a round's state, without reading the weights."""
    with safe_open(path, framework="numpy") as file:
        return _layout(json.loads(file.metadata()["header"]))


def _layout(header: Mapping[str, Any]) -> Layout:
    entries = tuple((name, tuple(shape)) for name, shape in header["layout"])
    return Layout(entries, frozenset(header["personal"]))


def pack_memory(arrays: Arrays) -> bytes:
    """The file of what a site keeps to itself between rounds."""
    return _packed("memory", arrays, {})


def write_memory(path: Path, arrays: Arrays) -> None:
    """Write what the server or a site keeps to itself between rounds, atomically."""
    write_packed(path, pack_memory(arrays))


def read_memory(path: Path) -> Arrays:
    """Read what :func:`write_memory` wrote."""
    return _read(path, "memory")[0]
