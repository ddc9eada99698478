"""Safetensors files of arrays with a JSON header that says which kind of value they are.

Nothing is ever unpickled. The files are open to their owner alone: among them are updates before
they are protected, and what a site keeps to itself.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import save, save_file

from federated.errors import ConsiliumError
from federated.files import PRIVATE, atomic_path
from federated.update import Arrays
from federated.weights.bounded_file import open_tensors, read_fields

# In bytes, for a file of a few arrays: the layout of a state is the longest part.
MOST_HEADER = 8 * 2**20


def packed(kind: str, arrays: Arrays, header: Mapping[str, Any]) -> bytes:
    """The bytes of a file with arrays of a kind, and its header."""
    content: bytes = save(_whole(arrays), metadata=_metadata(kind, header))
    return content


def write_tensors(path: Path, kind: str, arrays: Arrays, header: Mapping[str, Any]) -> None:
    """Write a file with arrays of a kind, and its header, atomically."""
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


def read_tensors(
    path: Path, kind: str, fields: Mapping[str, type]
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """The arrays of a file of a kind, and its header, which has exactly these ``fields``.

    Raises:
        ConsiliumError: the file is missing, damaged or of another kind.
    """
    try:
        with open_tensors(path, "numpy", MOST_HEADER) as file:
            metadata = file.metadata() or {}
            if metadata.get("kind") != kind:
                found = str(metadata.get("kind"))
                raise ConsiliumError(f"The file {path} holds a {found!r:.80}, not a {kind}.")
            header = read_fields(metadata.get("header"), fields)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ConsiliumError(
            f"The file {path} cannot be read as a {kind} ({error}). It is missing or damaged; "
            "remove the round's folder and resume the run."
        ) from error
    return arrays, header


def expect(
    path: Path, arrays: Arrays, kinds: Mapping[str, Sequence[str]], optional: Sequence[str] = ()
) -> None:
    """Refuse a file whose arrays are not those of ``kinds``, each ``(n,)`` with one of these types.

    Those that are ``optional`` may be missing.

    Raises:
        ConsiliumError: the arrays are others; the message says which.
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


def read_arrays(path: Path, what: str) -> Arrays:
    """The arrays of a safetensors file without a header of this project.

    Raises:
        ConsiliumError: the file is missing or damaged.
    """
    try:
        with open_tensors(path, "numpy", MOST_HEADER) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ConsiliumError(
            f"The file {path} cannot be read as {what} ({error}). It is missing or damaged; "
            "resume the run to write it again."
        ) from error
