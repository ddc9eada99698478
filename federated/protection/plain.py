"""No protection: the coordinator sees every site's update.

It guarantees nothing about privacy; it is the baseline that the other protections are held to.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from federated.errors import ConsiliumError
from federated.settings import Settings
from federated.update import CompressedUpdate, Payload, Vector


@dataclass
class Sum:
    """The running sum of weighted values, the only memory that aggregation needs."""

    total: npt.NDArray[np.float64]
    weight: float = 0.0


class Plain(Settings):
    """Weighted float32 values in the clear, four bytes each."""

    name: Literal["plain"] = "plain"

    def protect(self, update: CompressedUpdate, weight: float) -> Payload:
        """Apply the site's weight n_k / Σn and make the payload.

        Raises:
            ConsiliumError: the update holds NaN or infinity, which would spoil every site's model.
        """
        if not np.isfinite(update.values).all():
            raise ConsiliumError(
                f"The update of {update.site} in round {update.round_number} holds NaN or "
                "infinite values and was not sent. Lower training.lr, or look at the site's data."
            )
        weighted = (update.values.astype(np.float64) * weight).astype("<f4")
        return Payload(
            update.site,
            update.round_number,
            weight,
            self.name,
            len(weighted),
            weighted.view(np.uint8),
        )

    def open_sum(self, length: int) -> Sum:
        """An empty sum of ``length`` values."""
        return Sum(np.zeros(length, dtype=np.float64))

    def add(self, running: Sum, payload: Payload, round_number: int) -> None:
        """Add a payload to the running sum, in place.

        Raises:
            ConsiliumError: a payload of another scheme, round or length.
        """
        expected = (self.name, round_number, len(running.total))
        if (payload.scheme, payload.round_number, payload.length) != expected:
            raise ConsiliumError(
                f"The payload of {payload.site} is refused: it is {payload.scheme} of round "
                f"{payload.round_number} with {payload.length} values, expected {expected[0]} of "
                f"round {expected[1]} with {expected[2]} values."
            )
        running.total += payload.body.view("<f4")
        running.weight += payload.weight

    def mean(self, running: Sum) -> Vector:
        """The weighted mean over the sites that arrived, as float32."""
        if running.weight <= 0:
            raise ConsiliumError("No update arrived in this round, so there is no mean to apply.")
        return (running.total / running.weight).astype(np.float32)
