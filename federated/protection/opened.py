"""A sum that was opened by a site that has the key: the numbers as they are, in the clear."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from federated.errors import ConsiliumError
from federated.update import Payload

SCHEME = "opened"
# The form of a number in a body, for each encoding. Sums of quantised values are whole numbers, and
# take the smallest integers that hold them.
FORMS = {"int8": "<i1", "int16": "<i2", "int32": "<i4", "float64": "<f8"}


def opened_payload(total: Payload, numbers: npt.NDArray[np.float64]) -> Payload:
    """The payload of the opened sum ``numbers`` ``(length,)`` of ``total``, without any loss."""
    with np.errstate(invalid="ignore"):  # what does not fit a form is another number there
        encoding = next(
            name for name, form in FORMS.items() if (numbers.astype(form) == numbers).all()
        )
    body = numbers.astype(FORMS[encoding]).view(np.uint8)
    return replace(
        total,
        scheme=SCHEME,
        encoding=encoding,
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
    none = opened_payload(total, np.zeros(total.length))
    form = np.dtype(FORMS.get(opened.encoding, "<f8"))
    known = opened.encoding in FORMS and len(opened.body) == total.length * form.itemsize
    plain = replace(opened, body=none.body, encoding=none.encoding, positions=None)
    same = opened.positions is None and plain == none
    if not known or not same:
        raise ConsiliumError(
            f"The opened sum of round {total.round_number} is refused: it is not of the sum that "
            "was to be opened. Resume the run; the round begins anew."
        )
    numbers = opened.body.view(form).astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ConsiliumError(
            f"The opened sum of round {total.round_number} is refused: it holds NaN or infinite "
            "values, which would spoil every site's model. Resume the run; the round begins anew."
        )
    return numbers
