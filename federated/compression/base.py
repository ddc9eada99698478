"""What of an update is sent: which positions, and how finely; the rest stays at the site for later.

A subclass chooses the positions. Error feedback (Seide et al. 2014; Karimireddy et al. 2019, Alg.
1) is the same for all: u = Δ + e, what is sent is taken from u, and e ← u − sent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from federated.compression.quantize import next_ranges, quantize, steps_at
from federated.errors import ConsiliumError
from federated.randomness import numpy_generator
from federated.settings.base import Settings
from federated.update import (
    Arrays,
    CompressedUpdate,
    Doubles,
    ModelUpdate,
    Numbers,
    Positions,
    Quantised,
    Vector,
)

RESIDUAL = "residual"
RANGES = "ranges"


@dataclass(frozen=True)
class CompressionContext:
    """What every site knows before a round, without a message about it.

    ``groups`` are the lengths of the tensors in the vector that is sent, in order. ``arrays`` is
    what a compression learned in the rounds before, from their aggregates alone. ``step`` is the
    width of a quantisation step where a privacy rounds the values to a grid that is the same in
    every round. ``next_scale`` is how large the updates of the next round are expected to be,
    relative to those of this one.
    """

    seed: int
    round_number: int
    groups: tuple[int, ...]
    arrays: Arrays
    step: float | None = None
    next_scale: float = 1.0

    @cached_property
    def length(self) -> int:
        """The length of the uncompressed vector."""
        return sum(self.groups)


class Compression(Settings):
    """Which values of an update are sent and with how many bits; by default all of them.

    A compression object is the section ``compression`` of params.yaml. ``bits`` quantises what is
    sent, with one range for each tensor or one for all of them. In what follows, ``length`` is that
    of the uncompressed vector, and ``count`` the number of values that are sent.
    """

    bits: Annotated[int, Field(ge=2, le=16)] | None = None
    scale: Literal["tensor", "global"] = "tensor"

    # Whether positions, order, scales and how many values a site sends follow from what everyone
    # knows before the round, so that they tell nothing of the site that privacy or a protection
    # would have to cover. A compression that says nothing is refused with both; a subclass says it
    # for itself.
    form_is_public: ClassVar[bool] = False
    # Whether all sites send the same positions, so that values add up where they stand.
    same_positions: ClassVar[bool] = True
    # Whether every value is sent, so that without ``bits`` nothing stays behind.
    sends_all: ClassVar[bool] = False

    @property
    def keeps_nothing(self) -> bool:
        """Whether a site keeps nothing of what it compresses for later rounds."""
        return self.sends_all and self.same_positions and self.bits is None

    def count(self, length: int) -> int:
        """How many of ``length`` values a site sends."""
        return length

    def positions(self, context: CompressionContext) -> Positions | None:
        """The positions ``(count,)`` that every site sends, ascending; ``None`` for all of them."""
        return None

    def trained(self, context: CompressionContext) -> Positions | None:
        """The positions that local training of the round may move; ``None`` for all of them."""
        return None

    def own_positions(self, vector: Vector, memory: Arrays) -> tuple[Positions, Arrays]:
        """The positions ``(count,)`` that a site chooses for itself, and its memory of the choice.

        Args:
            vector: the update plus the residual, ``(length,)``.
            memory: what the site kept of the last compression.
        """
        return np.arange(len(vector)), {}

    def learn(
        self, context: CompressionContext, mean: Vector, positions: Positions | None
    ) -> Arrays:
        """The arrays of the next round beside the ranges.

        Args:
            context: what everyone knew of this round.
            mean: the mean of what was sent, ``(count,)``, or ``(length,)`` where sites choose.
            positions: where these values are; ``None`` for all positions.
        """
        return {}

    def open(self, expected: Sequence[float]) -> Arrays:
        """The arrays of the first round.

        ``expected`` bounds the values of each tensor that is sent. Where a bound is too small, the
        range doubles from round to round, and error feedback sends later what was clipped.
        """
        if self.bits is None:
            return {}
        ranges = expected if self.scale == "tensor" else [max(expected, default=0.0)]
        return {RANGES: np.array(ranges, np.float32)}

    def compress(
        self,
        update: ModelUpdate,
        weight: float,
        context: CompressionContext,
        memory: Arrays,
        noised: Callable[[Doubles], Quantised] | None = None,
    ) -> tuple[CompressedUpdate, Arrays]:
        """What a site sends of its update, weighted by n_k / Σn, and what it keeps.

        Nothing is kept of what ``noised`` is given: a residual that knew the noise would take it
        back in the next round.

        Args:
            update: the site's, with a vector ``(length,)``.
            weight: n_k / Σn over the selected sites, in (0, 1].
            context: what everyone knows of the round.
            memory: what the site kept of the last compression.
            noised: quantises the weighted values ``(count,)`` with noise, where a privacy does so.

        Raises:
            ConsiliumError: the update holds NaN or infinity, which would spoil every site's model.
        """
        if not np.isfinite(update.vector).all():
            raise ConsiliumError(
                f"The update of {update.site} in round {update.round_number} holds NaN or "
                "infinite values and was not sent. Lower training.lr, or look at the site's data."
            )
        lossless = self.sends_all and (self.bits is None or noised is not None)
        vector = update.vector if lossless else update.vector + memory.get(RESIDUAL, 0)
        kept: dict[str, Vector] = {}
        if self.same_positions:
            positions = self.positions(context)
        else:
            positions, own = self.own_positions(vector, memory)
            kept |= own
        chosen = vector if positions is None else vector[positions]
        weighted = chosen.astype(np.float64) * weight
        numbers: Numbers = weighted.astype(np.float32)
        sent: Doubles = numbers.astype(np.float64)
        if noised is not None:
            numbers, sent = noised(weighted), weighted
        elif self.bits is not None:
            steps = self._steps(context, positions)
            rng = numpy_generator(
                context.seed,
                purpose="quantisation",
                round_number=update.round_number,
                site=update.site,
            )
            numbers = quantize(weighted, steps, self.bits, rng)
            sent = numbers * steps
        if not lossless:
            residual = vector.astype(np.float64)
            residual[slice(None) if positions is None else positions] -= sent / weight
            kept[RESIDUAL] = residual.astype(np.float32)
        compressed = CompressedUpdate(
            update.site,
            update.round_number,
            update.cases,
            weight,
            context.length,
            numbers,
            None if self.same_positions else positions,
            {name: weight * value for name, value in update.scalars.items()},
        )
        return compressed, kept

    def expand(
        self, total: Doubles, weight: float, context: CompressionContext
    ) -> tuple[Vector, Arrays]:
        """The dense mean ``(length,)`` from the sum of what was sent, and the next round's arrays.

        Args:
            total: Σ numbers over the sites that responded: ``(count,)`` at the round's positions
                or, where sites choose their own, ``(length,)``.
            weight: the sum of their n_k / Σn, in (0, 1].
            context: what everyone knows of the round.

        Raises:
            ValueError: the sum has another shape.
        """
        positions = self.positions(context) if self.same_positions else None
        expected = context.length if positions is None else len(positions)
        if total.shape != (expected,):
            raise ValueError(f"a sum of {total.shape} does not fit {expected} positions")
        arrays: dict[str, Vector] = {}
        if context.step is not None:
            total = total * context.step
        elif self.bits is not None:
            total = total * self._steps(context, positions)
            ranges = context.arrays[RANGES]
            arrays[RANGES] = next_ranges(
                ranges, self._groups(context.groups), total, positions, context.next_scale
            )
        at_positions = (total / weight).astype(np.float32)
        arrays |= self.learn(context, at_positions, positions)
        if positions is None:
            return at_positions, arrays
        mean = np.zeros(context.length, np.float32)
        mean[positions] = at_positions
        return mean, arrays

    def _groups(self, groups: Sequence[int]) -> tuple[int, ...]:
        return tuple(groups) if self.scale == "tensor" else (sum(groups),)

    def _steps(self, context: CompressionContext, positions: Positions | None) -> Doubles:
        assert self.bits is not None
        ranges = context.arrays[RANGES]
        return steps_at(ranges, self._groups(context.groups), self.bits, positions)


def sent_count(density: float, length: int) -> int:
    """How many of ``length`` values a density in (0, 1] sends: at least one, where there is any."""
    return min(length, max(1, round(density * length)))


def largest(values: Vector, count: int) -> Positions:
    """The positions ``(count,)`` of the largest of some values ``(n,)``, ascending.

    Among equal values the first ones are taken. The result is the same on every machine, as it has
    to be for positions that all sites must agree on.
    """
    if count <= 0:
        return np.zeros(0, np.intp)
    bound = np.partition(values, len(values) - count)[len(values) - count]
    above = np.flatnonzero(values > bound)
    equal = np.flatnonzero(values == bound)[: count - len(above)]
    return np.sort(np.concatenate([above, equal]))
