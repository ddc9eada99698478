"""What the numbers of a site's payload, and of a sum of payloads, can be.

The coordinator looks at them where it sees them. A wrong number within the limits is not seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from federated.compression.quantize import largest_quantised
from federated.errors import RefusalError
from federated.protection.ckks import largest_sum
from federated.protection.keys import PublicContext
from federated.rounds.context import RunContext
from federated.rounds.plausible import Plausible, plausible
from federated.update import Payload

Numbers = npt.NDArray[Any]


class ImpossibleSumError(RefusalError):
    """An opened sum that no sites that follow the protocol can have: of numbers beyond bounds."""


@dataclass(frozen=True)
class SumLimits:
    """What is known of the numbers of one sum before any has arrived.

    Attributes:
        round_number: the round.
        weights: of each site's payload.
        bits: of each number, where numbers are whole; ``None`` where they are real.
        counts: whether numbers are digits of counts, of which none is negative.
        room: the largest real number that the key has room for; ``None`` without a key.
        bounds: of what training gives; ``None`` where the sum is not one of updates.
    """

    round_number: int
    weights: Mapping[str, float]
    bits: int | None
    counts: bool
    room: float | None
    bounds: Plausible | None

    def refuse_impossible(self, numbers: Numbers, responded: Sequence[str]) -> None:
        """Refuse numbers that cannot be the sum of the payloads of ``responded``.

        Sums of quantised values are whole numbers, each at most as many times the largest of them
        as there are sites in it; those of a named sum are of digits, and none is negative. Sums of
        other values are no larger than what their key has room for, and what training gives.

        Raises:
            ImpossibleSumError: they cannot.
        """
        whole = self.bits is not None
        if self.bits is not None:
            most = float(len(responded) * largest_quantised(self.bits))
        elif self.room is not None and self.bounds is not None:
            weight = sum(self.weights[site] for site in responded)
            most = min(self.room, self.bounds.change * weight)
        else:
            return
        least = 0.0 if self.counts else -most
        if ((numbers < least) | (numbers > most)).any():
            why = f"a number is not from {least:.6g} to {most:.6g}, as such sums of theirs are"
        elif whole and numbers.dtype.kind == "f" and (np.rint(numbers) != numbers).any():
            why = "it holds what is no whole number"
        else:
            return
        raise ImpossibleSumError(
            f"The opened sum of round {self.round_number} is none of what {len(responded)} sites "
            f"send: {why}."
        )

    def refuse_payload(self, payload: Payload, numbers: Numbers) -> None:
        """Refuse a payload, of which the coordinator reads the ``numbers``, that no training gives.

        Raises:
            ConsiliumError: it is not of whole numbers within the range of what is quantised, or
                beyond what training gives.
        """
        self.refuse_impossible(numbers, [payload.site])
        if self.bounds is not None:
            # Of quantised values the range is the bound.
            values = numbers[:0] if self.bits is not None else numbers
            what = f"The update of {payload.site} in round {self.round_number}"
            self.bounds.refuse(values, payload.weight, payload.scalars, what)


def limits_of_updates(
    run: RunContext, round_number: int, key: PublicContext | None, largest_weight: float
) -> SumLimits:
    """The limits of the sum of a round's updates.

    Args:
        run: the run.
        round_number: the round.
        key: the public half of the sites' key; ``None`` where there is none.
        largest_weight: the largest value of the run's first model.
    """
    return SumLimits(
        round_number,
        run.weights(round_number),
        run.experiment.compression.bits,
        counts=False,
        room=None if key is None else largest_sum(key.parameters),
        bounds=plausible(run, largest_weight),
    )


def limits_of_counts(run: RunContext, round_number: int, bits: int) -> SumLimits:
    """The limits of a named sum, of digits of ``bits`` bits of all sites of a run."""
    weights = dict.fromkeys(run.sites, 1 / len(run.sites))
    return SumLimits(round_number, weights, bits, counts=True, room=None, bounds=None)
