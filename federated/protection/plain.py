"""No protection: the coordinator sees every site's update.

It guarantees nothing about privacy; it is the baseline that the other protections are compared
with.
"""

from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from federated.errors import ConsiliumError
from federated.protection.base import Onlooker, Protection, Sum, closed
from federated.update import CompressedUpdate, Numbers, Payload

# The form of a number in a body, for each encoding. Quantised values take the smallest integers
# that hold them.
FORMS = {"float32": "<f4", "int8": "<i1", "int16": "<i2", "int32": "<i4"}


class Plain(Protection):
    """Numbers in the clear: four bytes for a value, or one or two where it is quantised."""

    name: Literal["plain"] = "plain"

    hides_updates_from: ClassVar[frozenset[Onlooker] | None] = frozenset()
    sums_integers: ClassVar[bool] = True

    def protect(self, update: CompressedUpdate, key: Any = None) -> Payload:
        """The payload with the numbers as they are."""
        encoding, body = encode_numbers(update.numbers)
        return Payload(
            update.site,
            update.round_number,
            update.weight,
            self.name,
            encoding,
            "",
            update.length if update.positions is not None else len(update.numbers),
            body,
            update.positions,
            update.scalars,
        )

    def seen(self, payload: Payload) -> npt.NDArray[Any]:
        """The numbers of a payload ``(n,)``.

        Raises:
            ConsiliumError: it is damaged, or holds what is no finite number.
        """
        return decode_numbers(payload)

    def open_sum(self, length: int, round_number: int, context: Any = None) -> Sum:
        """An empty sum ``(length,)``."""
        return Sum(round_number, length, np.zeros(length, dtype=np.float64))

    def include(self, running: Sum, payload: Payload) -> None:
        """Add a payload's numbers at their positions, in place.

        Raises:
            ConsiliumError: the payload is damaged.
        """
        numbers = decode_numbers(payload)
        if payload.positions is None:
            running.content += numbers
        else:
            running.content[payload.positions] += numbers

    def close(self, running: Sum) -> Payload:
        """The payload of the sum; where sites chose positions, only what at least one of them sent.

        Raises:
            ConsiliumError: no payload was added.
        """
        whole, first, positions = running.content, running.header, None
        if first is not None and first.positions is not None:
            positions = np.flatnonzero(whole)
            whole = whole[positions]
        quantised = first is not None and first.encoding != "float32"
        encoding, body = encode_numbers(whole.astype(np.int64 if quantised else np.float32))
        return closed(running, body, encoding=encoding, positions=positions)

    def reveal(self, total: Payload, key: Any = None) -> npt.NDArray[np.float64]:
        """The numbers of the sum ``(length,)``, zero where nobody sent one.

        Raises:
            ConsiliumError: the sum is damaged.
        """
        numbers = decode_numbers(total).astype(np.float64)
        if total.positions is None:
            return numbers
        dense = np.zeros(total.length)
        dense[total.positions] = numbers
        return dense


def encode_numbers(numbers: Numbers | npt.NDArray[np.int64]) -> tuple[str, npt.NDArray[np.uint8]]:
    """The encoding of numbers ``(n,)`` in a body, and the body as uint8."""
    encoding = "float32"
    if np.issubdtype(numbers.dtype, np.integer):
        most = int(np.abs(numbers).max(initial=0))
        encoding = next(f"int{b}" for b in (8, 16, 32) if most < 2 ** (b - 1))
    return encoding, numbers.astype(FORMS[encoding]).view(np.uint8)


def decode_numbers(payload: Payload) -> npt.NDArray[Any]:
    """The numbers ``(n,)`` of a payload in the clear.

    Raises:
        ConsiliumError: the encoding is not known, or the body does not hold as many finite numbers
            as the header and the positions say.
    """
    if payload.encoding not in FORMS:
        raise ConsiliumError(
            f"The payload of {payload.site} in round {payload.round_number} is refused: its "
            f"encoding is {payload.encoding!r:.80}, and known are {', '.join(FORMS)}."
        )
    form = np.dtype(FORMS[payload.encoding])
    count = payload.length if payload.positions is None else len(payload.positions)
    if len(payload.body) != count * form.itemsize:
        raise ConsiliumError(
            f"The payload of {payload.site} in round {payload.round_number} is damaged: it has "
            f"{len(payload.body)} bytes for {count} numbers of {form.itemsize}. Resume the run to "
            "send it again."
        )
    numbers = payload.body.view(form)
    if not np.isfinite(numbers).all():
        raise ConsiliumError(
            f"The payload of {payload.site} in round {payload.round_number} is refused: it holds "
            "NaN or infinite values, which would spoil every site's model."
        )
    return numbers
