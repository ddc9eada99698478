"""A sum that a site has opened: its numbers come back as they were, and nothing else is taken."""

from dataclasses import replace

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.protection.opened import opened_numbers, opened_payload
from federated.update import Payload

TOTAL = Payload("sum", 3, 1.0, "packed_bfv", "x", "key", 5, np.zeros(9, np.uint8))
SUMS = {
    "int8": [0, -127, 127, 3, 4],
    "int16": [0, -128 - 1, 1270, 3, 4],
    "int32": [0, 2**31 - 1, 1270, 3, 4],
    "float64": [0.5, 1e-30, -3, 2.0**40, 7],
}


@pytest.mark.parametrize("encoding", SUMS)
def test_numbers_come_back_bit_for_bit_in_as_few_bytes_as_hold_them(encoding: str) -> None:
    numbers = np.array(SUMS[encoding], np.float64)
    opened = opened_payload(TOTAL, numbers)
    assert opened.encoding == encoding
    assert opened_numbers(TOTAL, opened).tobytes() == numbers.tobytes()


CHANGES = {
    "another round": {"round_number": 4},
    "another length": {"length": 4},
    "another weight": {"weight": 0.5},
    "another scheme": {"scheme": "plain"},
    "another form": {"encoding": "int64"},
    "too few bytes": {"body": np.zeros(39, np.uint8)},
    "positions": {"positions": np.array([0, 1])},
    "scalars": {"scalars": {"x": 1.0}},
    "infinity": {"body": np.full(5, np.inf).view(np.uint8)},
    "no number": {"body": np.full(5, np.nan).view(np.uint8)},
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_not_the_opened_sum_is_refused(what: str) -> None:
    opened = opened_payload(TOTAL, np.array(SUMS["float64"]))
    with pytest.raises(ConsiliumError, match="The opened sum of round 3 is refused"):
        opened_numbers(TOTAL, replace(opened, **CHANGES[what]))
