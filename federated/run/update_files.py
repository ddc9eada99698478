"""The values that travel, as safetensors files with a JSON header; nothing is ever unpickled.

The files are open to their owner alone: among them are updates before they are protected, and what
a site keeps to itself. A ``pack_`` function makes the bytes of a value's file.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import save

from federated.errors import ConsiliumError, why_unreadable
from federated.files import PRIVATE, atomic_path
from federated.update import Arrays, CompressedUpdate, Layout, ModelUpdate, Payload, RoundState
from federated.weights.bounded_file import (
    LENGTH_BYTES,
    Content,
    Size,
    open_tensors,
    read_fields,
)

# Of a file of a few arrays: the layout of a state is the longest part.
MOST_HEADER = 8 * 2**20
# No protection needs more for a number, nor for a handful of them: CKKS in degree 4096 with two
# primes takes 64 bytes for each of 2048, and always a whole ciphertext.
BYTES_A_NUMBER = 128
SMALLEST_BODY = 2**20
# The weights of all sites are 1, but for rounding.
LARGEST_WEIGHT = 1 + 1e-6

# Where a value is read from: a file of one's own, or what came in a message.
Source = Path | Content

# Fields that are arrays in the file; all others are in its header.
ARRAYS = ("vector", "numbers", "positions", "body")
# In states that versions before 0.2.0 wrote.
FORMER_PARTS = {"agreed": "compression"}
STATE_FIELDS: Mapping[str, type] = {
    **{"round_number": int, "layout": list, "personal": list, "clip": object},
}


def _fields(kind: type) -> dict[str, type]:
    """The fields that stand in the header of a value's file, and their types there."""
    return {
        field.name: dict if field.name == "scalars" else cast(type, field.type)
        for field in fields(kind)
        if field.name not in ARRAYS
    }


def _header(value: ModelUpdate | CompressedUpdate | Payload) -> dict[str, Any]:
    return {name: getattr(value, name) for name in _fields(type(value))} | {
        "scalars": dict(value.scalars)
    }


def pack_update(update: ModelUpdate) -> bytes:
    """The bytes of an update's file."""
    return _packed("update", {"vector": update.vector}, _header(update))


def read_update(path: Source) -> ModelUpdate:
    """Read an update of :func:`pack_update`.

    Raises:
        ConsiliumError: the file is missing, damaged or something else.
    """
    arrays, header = _read(path, "update", _fields(ModelUpdate))
    _expect(path, arrays, {"vector": ["float32"]})
    return ModelUpdate(vector=arrays["vector"], **header)


def pack_compressed(update: CompressedUpdate) -> bytes:
    """The bytes of a compressed update's file."""
    return _packed("compressed", {"numbers": update.numbers} | _positions(update), _header(update))


def read_compressed(path: Source) -> CompressedUpdate:
    """Read a compressed update of :func:`pack_compressed`.

    Raises:
        ConsiliumError: the file is missing, damaged or something else, or its positions are not
            such as :func:`pack_compressed` writes them.
    """
    arrays, header = _read(path, "compressed", _fields(CompressedUpdate))
    kinds = {"numbers": ["float32", "int32"], "positions": ["uint32"]}
    _expect(path, arrays, kinds, optional=["positions"])
    positions = _read_positions(path, arrays, header["length"])
    return CompressedUpdate(numbers=arrays["numbers"], positions=positions, **header)


def pack_payload(payload: Payload) -> bytes:
    """The bytes of a payload's file, which is what travels."""
    return _packed("payload", {"body": payload.body} | _positions(payload), _header(payload))


def write_payload(path: Path, payload: Payload) -> None:
    """Write a payload, or a sum of several, atomically.

    After a power cut it is made again with its round, so it is not synced.
    """
    write_packed(path, pack_payload(payload), durable=False)


def most_payload(length: int) -> Size:
    """How many bytes a payload of ``length`` numbers may have, in any protection."""
    return Size(BYTES_A_NUMBER * length + SMALLEST_BODY, f"a payload of {length} numbers")


def read_payload(path: Source, length: int | None = None) -> Payload:
    """Read a payload of :func:`pack_payload`; of ``length`` numbers, where that is known.

    Raises:
        ConsiliumError: the file is damaged, far larger than so many numbers are in any protection,
            or its header or positions are not such as :func:`write_payload` writes them.
    """
    size = None
    if length is not None:
        size = most_payload(length)
    arrays, header = _read(path, "payload", _fields(Payload), size)
    _expect(path, arrays, {"body": ["uint8"], "positions": ["uint32"]}, optional=["positions"])
    if not 0 < header["weight"] <= LARGEST_WEIGHT:
        raise ConsiliumError(
            f"The payload {path} is refused: its weight is {header['weight']!r}, and the weights "
            "of all sites together are 1. Have it sent again; resuming the run does so."
        )
    positions = _read_positions(path, arrays, header["length"])
    return Payload(body=arrays["body"], positions=positions, **header)


def _positions(value: CompressedUpdate | Payload) -> dict[str, npt.NDArray[np.uint32]]:
    """The positions as uint32: a vector has fewer than 2^32 values."""
    if value.positions is None:
        return {}
    return {"positions": value.positions.astype("<u4")}


def _read_positions(path: Source, arrays: Arrays, length: int) -> npt.NDArray[np.intp] | None:
    """The positions of a file, if it has any.

    Raises:
        ConsiliumError: they are not ascending, or not below ``length``.
    """
    if "positions" not in arrays:
        return None
    positions: npt.NDArray[np.intp] = arrays["positions"].astype(np.intp)
    if len(positions) and (positions[-1] >= length or (np.diff(positions) <= 0).any()):
        raise ConsiliumError(
            f"The file {path} is refused: its positions do not ascend, or go beyond the {length} "
            "values that there are. Have it sent again; resuming the run does so."
        )
    return positions


def write_outcome(state_path: Path, state: RoundState, memory_path: Path, memory: Arrays) -> None:
    """Write what comes of a round: what the server keeps to itself, and then the state."""
    arrays, header = _parts(state)
    _write(memory_path, "memory", memory, {})
    _write(state_path, "state", arrays, header)


def write_state(path: Path, state: RoundState) -> None:
    """Write a round's state atomically."""
    _write(path, "state", *_parts(state))


def _parts(state: RoundState) -> tuple[Arrays, dict[str, Any]]:
    """The arrays and the header of a state's file."""
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
    return arrays, header


def read_state(path: Source, round_number: int | None = None) -> RoundState:
    """Read a round's state written by :func:`write_state`.

    Raises:
        ConsiliumError: the file is missing or damaged, or the state is not that after
            ``round_number``, where that is given.
    """
    arrays, header = _read(path, "state", STATE_FIELDS)
    layout = _layout(path, header, round_number)
    if "weights" not in arrays or arrays["weights"].shape != (layout.size,):
        raise ConsiliumError(
            f"The file {path} is refused: its weights do not have the {layout.size} values of its "
            "layout. Remove the round's folder and resume the run."
        )
    parts: dict[str, dict[str, npt.NDArray[Any]]] = {"broadcast": {}, "compression": {}}
    for name, array in arrays.items():
        part, dot, key = name.partition(".")
        part = FORMER_PARTS.get(part, part)
        if dot and key not in parts.get(part, {key}):
            parts[part][key] = array
        elif name != "weights":
            raise ConsiliumError(
                f"The file {path} is refused: it has {name!r:.80}, which is not known. Remove the "
                "round's folder and resume the run."
            )
    number, clip = header["round_number"], header["clip"]
    return RoundState(number, arrays["weights"], layout, **parts, clip=clip)


def read_layout(path: Source, round_number: int | None = None) -> Layout:
    """The layout of a round's state, without reading the weights.

    Raises:
        ConsiliumError: as :func:`read_state`, but for what is in the arrays.
    """
    with _opened(path, "state", STATE_FIELDS) as (_, header):
        return _layout(path, header, round_number)


def _layout(path: Source, header: Mapping[str, Any], round_number: int | None) -> Layout:
    """The layout that a state's header holds.

    Raises:
        ConsiliumError: it holds none, or is not that after ``round_number``, where that is given.
    """
    number = header["round_number"]
    if round_number is not None and number != round_number:
        raise ConsiliumError(
            f"The state {path} says that it is that of round {number}, and not of {round_number}. "
            "Put the file back, or remove the round's folder and resume the run."
        )
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
    return _packed("memory", arrays, {})


def write_memory(path: Path, arrays: Arrays) -> None:
    """Write what the server or a site keeps to itself between rounds, atomically."""
    _write(path, "memory", arrays, {})


def read_memory(path: Source) -> Arrays:
    """Read what :func:`write_memory` wrote.

    Raises:
        ConsiliumError: the file is missing or damaged.
    """
    return _read(path, "memory", {})[0]


def read_arrays(path: Source, what: str) -> Arrays:
    """The arrays of a safetensors file without a header of ours.

    Raises:
        ConsiliumError: it is missing or damaged.
    """
    try:
        with open_tensors(path, "numpy", MOST_HEADER) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ConsiliumError(
            f"The file {path} cannot be read as {what} ({why_unreadable(error)}). It is missing or "
            "damaged; resume the run to write it again."
        ) from error


def _packed(kind: str, arrays: Arrays, header: Mapping[str, Any]) -> bytes:
    """The bytes of a file of a kind."""
    content: bytes = save(_whole(arrays), metadata=_metadata(kind, header))
    # The library writes what is in the header in any order; the same value has the same bytes.
    start = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")
    text = json.dumps(json.loads(content[LENGTH_BYTES:start]), sort_keys=True).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)
    return b"".join((len(text).to_bytes(LENGTH_BYTES, "little"), text, content[start:]))


def _write(path: Path, kind: str, arrays: Arrays, header: Mapping[str, Any]) -> None:
    """Write a file of a kind, atomically."""
    write_packed(path, _packed(kind, arrays, header))


def _whole(arrays: Arrays) -> dict[str, npt.NDArray[Any]]:
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _metadata(kind: str, header: Mapping[str, Any]) -> dict[str, str]:
    return {"kind": kind, "header": json.dumps(header)}


def write_packed(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write the bytes that a ``pack_`` function made, atomically.

    What nobody reads after a power cut need not be ``durable``, and is not synced.
    """
    with atomic_path(path, PRIVATE, durable=durable) as temporary:
        temporary.write_bytes(content)


def _read(
    path: Source, kind: str, fields: Mapping[str, type], size: Size | None = None
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """The arrays of a file of a kind, and its header; see :func:`_opened`."""
    with _opened(path, kind, fields, size) as (file, header):
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118


@contextmanager
def _opened(
    path: Source, kind: str, fields: Mapping[str, type], size: Size | None = None
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A file of a kind, and its header, which has exactly these ``fields``.

    Raises:
        ConsiliumError: the file is missing, damaged, of another kind, or larger than ``size``.
    """
    try:
        with open_tensors(path, "numpy", MOST_HEADER, size) as file:
            metadata = file.metadata() or {}
            if metadata.get("kind") != kind:
                found = str(metadata.get("kind"))
                raise ConsiliumError(f"The file {path} holds a {found!r:.80}, not a {kind}.")
            yield file, read_fields(metadata.get("header"), fields)
    except (SafetensorError, OSError, ValueError) as error:
        raise ConsiliumError(
            f"The file {path} cannot be read as a {kind} ({why_unreadable(error)}). It is missing "
            "or damaged; remove the round's folder and resume the run."
        ) from error


def _expect(
    path: Source, arrays: Arrays, kinds: Mapping[str, Sequence[str]], optional: Sequence[str] = ()
) -> None:
    """Refuse other arrays than those of ``kinds``, flat ones of one of these types.

    Raises:
        ConsiliumError: says which.
    """
    wrong = [f"has no {name}" for name in kinds if name not in arrays and name not in optional]
    for name, array in arrays.items():
        if name not in kinds:
            wrong.append(f"has {name!r:.80}, which is not known")
        elif array.ndim != 1 or array.dtype.name not in kinds[name]:
            wrong.append(f"has {name} as {array.ndim}-dimensional {array.dtype.name}")
    if wrong:
        raise ConsiliumError(
            f"The file {path} is refused: it {' and it '.join(wrong[:3])}. Remove the round's "
            "folder and resume the run, so that it is written again."
        )
