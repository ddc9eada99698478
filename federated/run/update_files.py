"""The values of a round that travel, as files: updates, compressed updates, payloads.

A ``pack_`` function makes the bytes of a value's file.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from federated.errors import ConsiliumError
from federated.run.tensor_file import expect, packed, read_tensors, write_tensors
from federated.update import Arrays, CompressedUpdate, ModelUpdate, Payload
from federated.weights.bounded_file import refuse_large_file

# No protection needs more for a number, nor for a handful of them: CKKS in degree 4096 with two
# primes takes 64 bytes for each of 2048, and always a whole ciphertext.
BYTES_A_NUMBER = 128
SMALLEST_BODY = 2**20
# The weights of all sites are 1, but for rounding.
LARGEST_WEIGHT = 1 + 1e-6

# Fields that are arrays in the file; all others are in its header.
ARRAYS = ("vector", "numbers", "positions", "body")


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
    return packed("update", {"vector": update.vector}, _header(update))


def read_update(path: Path) -> ModelUpdate:
    """Read an update of :func:`pack_update`.

    Raises:
        ConsiliumError: the file is missing, damaged or something else.
    """
    arrays, header = read_tensors(path, "update", _fields(ModelUpdate))
    expect(path, arrays, {"vector": ["float32"]})
    return ModelUpdate(vector=arrays["vector"], **header)


def pack_compressed(update: CompressedUpdate) -> bytes:
    """The bytes of a compressed update's file."""
    return packed("compressed", {"numbers": update.numbers} | _positions(update), _header(update))


def read_compressed(path: Path) -> CompressedUpdate:
    """Read a compressed update of :func:`pack_compressed`.

    Raises:
        ConsiliumError: the file is missing, damaged or something else, or its positions are not
            such as :func:`pack_compressed` writes them.
    """
    arrays, header = read_tensors(path, "compressed", _fields(CompressedUpdate))
    kinds = {"numbers": ["float32", "int32"], "positions": ["uint32"]}
    expect(path, arrays, kinds, optional=["positions"])
    positions = _read_positions(path, arrays, header["length"])
    return CompressedUpdate(numbers=arrays["numbers"], positions=positions, **header)


def write_payload(path: Path, payload: Payload) -> int:
    """Write a payload atomically and return the bytes that travel: the whole file's size."""
    write_tensors(path, "payload", {"body": payload.body} | _positions(payload), _header(payload))
    return path.stat().st_size


def read_payload(path: Path, length: int | None = None) -> Payload:
    """Read a payload written by :func:`write_payload`; of ``length`` numbers, where that is known.

    Raises:
        ConsiliumError: the file is damaged, far larger than so many numbers are in any protection,
            or its header or positions are not such as :func:`write_payload` writes them.
    """
    if length is not None:
        most = BYTES_A_NUMBER * length + SMALLEST_BODY
        refuse_large_file(path, most, f"a payload of {length} numbers")
    arrays, header = read_tensors(path, "payload", _fields(Payload))
    expect(path, arrays, {"body": ["uint8"], "positions": ["uint32"]}, optional=["positions"])
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


def _read_positions(path: Path, arrays: Arrays, length: int) -> npt.NDArray[np.intp] | None:
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
