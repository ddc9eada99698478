"""Shared mask: all sites send the same positions, which are known to all without a message.

This is chosen where MedHE (arXiv 2511.09043) lets every site choose: the positions come from the
last *aggregated* updates and from the experiment's seed, so that they say nothing about one site,
cost no bytes, and ciphertexts of different sites add up slot by slot. A share ``explore`` of the
positions is taken in turn: it passes through all positions in a seeded order, and in a new order
each time it has passed through them. So every position is sent at least once in ⌈d / (explore · k)⌉
rounds, and can then stay for its size.

Since error feedback keeps what is not sent, a position that was passed over arrives with all that
it gathered.
"""

from math import ceil, gcd
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from federated.compression.base import Compression, CompressionContext, largest, sent_count
from federated.randomness import numpy_generator
from federated.update import Arrays, Positions, Vector

SCORE = "score"
# The name of the number of positions that were explored since the first round.
EXPLORED = "explored"


class SharedMask(Compression):
    """The share ``density`` of the positions: some in turn, the others by their score.

    The share ``explore`` of these is taken in turn. The score of a position is an exponential
    average, with share ``ema`` of the past, of the magnitude of its aggregated update in the rounds
    in which it was sent. With ``train: sent``, local training moves the positions that are sent and
    no others.
    """

    name: Literal["shared_mask"] = "shared_mask"
    density: float = Field(gt=0, le=1)
    explore: float = Field(default=0.2, gt=0, le=1)
    ema: float = Field(default=0.5, ge=0, lt=1)
    train: Literal["all", "sent"] = "all"

    form_is_public: ClassVar[bool] = True

    def count(self, length: int) -> int:
        """How many of ``length`` values are sent: the share ``density``."""
        return sent_count(self.density, length)

    def positions(self, context: CompressionContext) -> Positions:
        """The positions ``(count,)``: the explored ones, and those with the highest scores."""
        count = self.count(context.length)
        if count == context.length:
            return np.arange(context.length)
        explored = self._explored(context)
        score = _score(context)
        score[explored] = -1
        return np.sort(np.concatenate([explored, largest(score, count - len(explored))]))

    def trained(self, context: CompressionContext) -> Positions | None:
        """The positions that are sent, if ``train`` is ``sent``; otherwise ``None``."""
        return self.positions(context) if self.train == "sent" else None

    def learn(
        self, context: CompressionContext, mean: Vector, positions: Positions | None
    ) -> Arrays:
        """The scores ``(length,)`` with the magnitudes of what was sent averaged in."""
        score = _score(context)
        where = slice(None) if positions is None else positions
        before, now = score[where], np.abs(mean)
        score[where] = np.where(before > 0, self.ema * before + (1 - self.ema) * now, now)
        explored = _explored_before(context) + self._explored_count(context)
        return {SCORE: score, EXPLORED: np.array([explored], np.int64)}

    def _explored_count(self, context: CompressionContext) -> int:
        """How many positions are explored; fewer are when a pass through all of them ends.

        Before any score is known, these are all that are sent.
        """
        count = self.count(context.length)
        known = int(np.count_nonzero(_score(context)))
        wanted = max(ceil(self.explore * count), count - known)
        return min(wanted, context.length - _explored_before(context) % context.length)

    def _explored(self, context: CompressionContext) -> Positions:
        """The next positions of this pass through all of them.

        A random stride that shares no factor with d visits every position once.
        """
        length = context.length
        turn, begun = divmod(_explored_before(context), length)
        rng = numpy_generator(context.seed, purpose="exploration", round_number=turn)
        start = int(rng.integers(length))
        stride = int(rng.integers(1, length + 1))
        while gcd(stride, length) != 1:
            stride = int(rng.integers(1, length + 1))
        # Python's integers for the one product that may pass 63 bits.
        first = (start + begun * stride) % length
        steps = np.arange(self._explored_count(context), dtype=np.int64)
        return (first + steps * stride) % length


def _score(context: CompressionContext) -> Vector:
    """A copy of the scores ``(length,)``, which are 0 and not sent before the first round."""
    if SCORE not in context.arrays:
        return np.zeros(context.length, np.float32)
    return context.arrays[SCORE].copy()


def _explored_before(context: CompressionContext) -> int:
    return int(context.arrays[EXPLORED][0]) if EXPLORED in context.arrays else 0
