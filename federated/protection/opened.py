"""A sum that was opened by a site that has the key: the numbers as they are, in the clear."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from federated.errors import ConsiliumError
from federated.update import Payload

SCHEME, ENCODING = "opened", "float64"
FORM = "<f8"


def opened_payload(total: Payload, numbers: npt.NDArray[np.float64]) -> Payload:
    """The payload of the opened sum ``numbers`` ``(length,)`` of ``total``."""
    body = np.ascontiguousarray(numbers, FORM).view(np.uint8)
    return replace(
        total,
        scheme=SCHEME,
        encoding=ENCODING,
        context="",
        length=len(numbers),
        body=body,
        positions=None,
    )


def opened_numbers(total: Payload, opened: Payload) -> npt.NDArray[np.float64]:
    """The numbers ``(length,)`` of a sum that was opened; ``total`` is the sum that was to be.

    Raises:
        ConsiliumError: it is not that sum, or holds numbers that are not finite.
    """
    expected = opened_payload(total, np.zeros(total.length))
    same = replace(opened, body=expected.body) == expected
    if not same or len(opened.body) != len(expected.body):
        raise ConsiliumError(
            f"The opened sum of round {total.round_number} is refused: it is not of the sum that "
            "was to be opened. Resume the run; the round begins anew."
        )
    numbers: npt.NDArray[np.float64] = opened.body.view(FORM)
    if not np.isfinite(numbers).all():
        raise ConsiliumError(
            f"The opened sum of round {total.round_number} is refused: it holds NaN or infinite "
            "values, which would spoil every site's model. Resume the run; the round begins anew."
        )
    return numbers
