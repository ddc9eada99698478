"""Opening files that somebody else wrote: what they ask for is checked before memory is taken.

A safetensors file begins with the length of its header. The library refuses tensors that do not
fill the file exactly, so that after a header of bounded length no tensor is larger than its file.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.numpy import load

from federated.errors import ConsiliumError

# In bytes: enough for a model of a thousand sites with a hundred tensors each.
MOST_HEADER = 32 * 2**20
LENGTH_BYTES = 8
# The most numbers that travel beside an update.
MOST_SCALARS = 64
# Nothing here has a larger count, which would not fit an index.
LARGEST_INTEGER = 2**53


@dataclass(frozen=True)
class Size:
    """How many bytes a file of ``what`` may have, header and all."""

    most: int
    what: str


@dataclass(frozen=True)
class Content:
    """The bytes of a safetensors file that came in a message; ``where`` names it for a person."""

    content: bytes
    where: str

    def __str__(self) -> str:
        return self.where


class _InMemory:
    """What ``safe_open`` gives for a file, for bytes."""

    def __init__(self, content: bytes, header: bytes) -> None:
        self._arrays = load(content)
        self._metadata: dict[str, str] | None = json.loads(header).get("__metadata__")

    def keys(self) -> list[str]:
        return list(self._arrays)

    def get_tensor(self, name: str) -> Any:
        return self._arrays[name]

    def metadata(self) -> dict[str, str] | None:
        return self._metadata


@contextmanager
def open_tensors(
    path: Path | str | Content, framework: str, most: int = MOST_HEADER, size: Size | None = None
) -> Iterator[Any]:
    """Open a safetensors file of at most ``size``, with at most ``most`` bytes of header.

    Of bytes in memory, tensors are NumPy's whatever the ``framework``.

    Raises:
        ConsiliumError: the header or the file has more bytes.
        OSError, SafetensorError, ValueError: what safetensors raises; a ``ValueError`` for whatever
            it has no error of its own for.
    """
    held = path.content if isinstance(path, Content) else None
    there = len(held) if held is not None else Path(str(path)).stat().st_size
    if size is not None and there > size.most:
        raise ConsiliumError(
            f"The file {path} is refused: it has {there} bytes, and {size.what} has at most "
            f"{size.most}. It is damaged, or was not written by this project; have it sent again."
        )
    if held is not None:
        start = held[:LENGTH_BYTES]
    else:
        with Path(str(path)).open("rb") as file:
            start = file.read(LENGTH_BYTES)
    said = int.from_bytes(start, "little")
    if said > most:
        raise ConsiliumError(
            f"The file {path} is refused: of its {there} bytes it gives {said} to its header, and "
            f"at most {most} are read. It is damaged or no safetensors file."
        )
    try:
        if held is not None:
            yield _InMemory(held, held[LENGTH_BYTES : LENGTH_BYTES + said])
        else:
            with safe_open(str(path), framework=framework) as opened:
                yield opened
    except (TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"a tensor of a kind that is not known ({error!r})") from error


def read_fields(text: str | None, kinds: Mapping[str, type]) -> dict[str, Any]:
    """A JSON object with exactly the keys of ``kinds``, each with a value of that kind.

    ``float`` takes whole numbers too, and no number is infinite or NaN; ``dict`` is such numbers by
    name; ``int`` is from 0 to 2^53; ``object`` is anything, and ``None`` where it is missing.

    Raises:
        ValueError: the text is something else; the message says what is missing, not known or of
            another kind.
    """
    try:
        value = json.loads(text or "")
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("it is no object")
    value = {key: None for key, kind in kinds.items() if kind is object} | value
    missing, unknown = sorted(kinds.keys() - value.keys()), sorted(value.keys() - kinds.keys())
    if missing or unknown:
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"has {', '.join(unknown)[:200]}, which is not known"] if unknown else []
        raise ValueError(f"it {' and '.join(parts)}")
    for key, kind in kinds.items():
        if not _is(value[key], kind):
            raise ValueError(f"its {key} is {value[key]!r:.80}")
    return value


def _is(value: Any, kind: type) -> bool:
    if kind is dict:
        numbers = isinstance(value, dict) and len(value) <= MOST_SCALARS
        return numbers and all(_is(number, float) for number in value.values())
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind is int:
        return type(value) is int and 0 <= value <= LARGEST_INTEGER
    return kind is object or type(value) is kind
