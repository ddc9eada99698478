"""Temperature scaling: one number that makes a classifier's probabilities neither too sure nor shy.

Guo et al. 2017, "On Calibration of Modern Neural Networks", Section 4.2: logits are divided by a
temperature T before the softmax, and T is that of the least negative log likelihood on cases that
were not trained on. Logits are known from probabilities but for a number that all classes of a case
share, which a softmax does not see: softmax(log p / T).

T is one of :data:`TEMPERATURES`. So what a site tells of its cases, sums at each of these, is known
in form before anything is predicted, and adds up over sites: T is that of all their cases together,
and what follows from it is exact. The true minimum is at most half a step away, 4.4 % of T.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.float64]

# From 1/8 to 8, each 2^(1/8) times the one before.
TEMPERATURES: Final = tuple(2.0 ** (step / 8) for step in range(-24, 25))
# The place of 1, which changes nothing.
UNCHANGED: Final = TEMPERATURES.index(1.0)
# As everywhere, no likelihood is taken to be nearer to 0 or 1 than float64's rounding of 1.
NEAREST: Final = float(np.finfo(np.float64).eps)
# The largest loss of a case, in nats.
MOST_LOSS: Final = float(-np.log(NEAREST))


def tempered(probabilities: Probabilities, temperature: float) -> Probabilities:
    """The probabilities ``(n, classes)`` at a temperature: closer to each other above 1.

    Which class is the likeliest does not change. At 1 they are the very same numbers.
    """
    if temperature == 1:
        return probabilities
    # A probability that float64 knows no logarithm of is the smallest that it has one of.
    scaled = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)) / temperature
    scaled -= scaled.max(axis=1, keepdims=True, initial=-np.inf)
    found = np.exp(scaled)
    result: Probabilities = found / found.sum(axis=1, keepdims=True)
    return result


def least_loss(losses: npt.NDArray[np.float64]) -> int:
    """The place in :data:`TEMPERATURES` of the least of summed losses ``(temperatures,)``.

    Of several that are equal it is that nearest to 1.
    """
    least = np.flatnonzero(losses <= losses.min() + 1e-12 * abs(losses.min()))
    return int(min(least, key=lambda place: (abs(int(place) - UNCHANGED), int(place))))


@dataclass(frozen=True)
class Tempered:
    """A fitted temperature, and what it makes of cases that it was not fitted on.

    Attributes:
        temperature: one of :data:`TEMPERATURES`.
        fitted_on: on how many validation cases, of all sites together.
        losses: the mean negative log likelihood of test cases without it and with it, in nats;
            ``None`` without a test case.
        ece: the expected calibration error of test cases, the same.
    """

    temperature: float
    fitted_on: int
    losses: tuple[float, float] | None
    ece: tuple[float, float] | None

    @property
    def at_end(self) -> bool:
        """Whether it is the smallest or the largest there is, so that the best may lie beyond."""
        return self.temperature in (TEMPERATURES[0], TEMPERATURES[-1])

    def to_json(self) -> dict[str, Any]:
        """As plain values, for a record."""
        return {
            "temperature": self.temperature,
            "at_end": self.at_end,
            "validation_cases": self.fitted_on,
            "loss": _pair(self.losses),
            "ece": _pair(self.ece),
        }


def _pair(values: tuple[float, float] | None) -> dict[str, float | None]:
    before, after = values or (None, None)
    return {"before": before, "after": after}
