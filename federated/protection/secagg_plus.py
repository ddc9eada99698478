"""SecAgg+: masked values whose sum is exact, and of which the coordinator learns the sum alone.

This module has the settings of every protection by masks, and of ``protection.name=secagg_plus``
what happens to numbers; ``secagg/`` has the protocol, and who learns what under which assumptions.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from federated.compression.quantize import largest_quantised
from federated.errors import ConsiliumError
from federated.protection.base import (
    Cohort,
    HiddenUpdates,
    Onlooker,
    Sum,
    closed,
)
from federated.protection.plain import decode_numbers, encode_numbers
from federated.protection.secagg.bounds import (
    SIGMA,
    Graph,
    Shares,
    broken,
    fit_graph,
    quorum,
    threshold_for,
)
from federated.protection.secagg.graph import draw_graph
from federated.protection.secagg.masks import WORDS, smallest_word
from federated.protection.secagg.protocol import mask_update
from federated.protection.secagg.round import Advertised, Round, Secrets
from federated.update import CompressedUpdate, Payload


@dataclass(frozen=True)
class Masking:
    """What a site masks with in one round; ``sharing`` are the sites that exchanged keys."""

    secrets: Secrets
    advertised: Mapping[str, Advertised]
    sharing: Sequence[str]
    round_: Round


class MaskedSums(HiddenUpdates):
    """What the protections have in common that sum integers by SecAgg+; they say which.

    At most the share ``dropout`` of the sites selected drops out of a round, and at most the share
    ``corrupted`` of them tell the coordinator what they get. Two numbers follow from these: with
    how many ``neighbours`` a site masks, and the ``threshold``, which is how many holders of its
    shares, the neighbours and itself, have to stay to the end. Either may be given, and is refused
    where it is too small for the shares.
    """

    dropout: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    corrupted: Annotated[float, Field(ge=0, lt=1)] = 0.1
    threshold: Annotated[int, Field(ge=1)] | None = None
    neighbours: Annotated[int, Field(ge=2)] | None = None

    masked: ClassVar[bool] = True

    def check(self, cohort: Cohort) -> None:
        """Refuse a graph that the cohort cannot have, and updates that are not quantised.

        Raises:
            ConsiliumError: the cohort cannot use the settings.
        """
        if cohort.bits is None:
            raise ConsiliumError(
                f"protection.name={self.name} adds integers, so it needs quantised updates: set "
                "compression.bits, for example to 8."
            )
        super().check(cohort)
        self.graph(cohort.selected)

    def report(self, cohort: Cohort, public: Any) -> dict[str, Any]:
        """What the summary says, with the graph and the shares of sites that it is made for."""
        graph = self.graph(cohort.selected)
        return super().report(cohort, public) | {
            "neighbours": graph.neighbours,
            "threshold": graph.threshold,
            "quorum": quorum(cohort.selected, Shares(self.dropout, self.corrupted)),
            "dropout": self.dropout,
            "corrupted": self.corrupted,
            "failure_log2": -SIGMA if graph.neighbours < cohort.selected - 1 else None,
        }

    def graph(self, sites: int) -> Graph:
        """The degree and the threshold where ``sites`` are selected.

        Raises:
            ConsiliumError: no graph does what it has to; the message says why, and what to change.
        """
        if sites < 2:
            raise ConsiliumError(
                f"protection.name={self.name} hides an update in a sum, and of one site there is "
                "none. Raise sites.count or sites.participation."
            )
        given = self.neighbours
        if given is not None and (given >= sites or (given % 2 and given != sites - 1)):
            raise ConsiliumError(
                f"protection.neighbours={given} cannot be with {sites} sites in a round: it is an "
                f"even number below {sites}, or left out."
            )
        shares = Shares(self.dropout, self.corrupted)
        found = fit_graph(sites, shares, given, self.threshold)
        if found is None:
            raise ConsiliumError(self._unfit(sites, shares))
        return found

    def _unfit(self, sites: int, shares: Shares) -> str:
        neighbours = self.neighbours or sites - 1
        threshold = self.threshold or threshold_for(sites, neighbours, shares)
        given = [
            f"protection.{name}={value}"
            for name, value in (("neighbours", self.neighbours), ("threshold", self.threshold))
            if value is not None
        ]
        tried = Graph(neighbours, threshold or (neighbours + 1) // 2 + 1)
        return (
            f"{' and '.join(given) or f'protection.name={self.name}'} cannot be with {sites} sites "
            f"in a round, of which at most the share protection.dropout={self.dropout:g} drops out "
            f"and protection.corrupted={self.corrupted:g} colludes: "
            f"{broken(sites, tried, shares)}. {'Leave it out, or lower' if given else 'Lower'} "
            "the two shares, which are what this protects against."
        )

    def holders(self, sites: int) -> int:
        """The number of those who hold shares of a site's keys: its neighbours and itself."""
        return self.graph(sites).neighbours + 1

    def needed(self, sites: int) -> int:
        """The threshold where ``sites`` are selected."""
        return self.graph(sites).threshold

    def begin(
        self,
        run: str,
        number: int,
        advertised: Sequence[str],
        selected: int,
        seed: int,
        bits: int,
        attempt: int = 0,
        state: str = "",
    ) -> Round:
        """What all parties know of a round, of whose sites those that ``advertised`` are left.

        Words are as long as the sum of all masked integers needs, so that it never wraps round.

        Args:
            run: the run's id.
            number: the number of the round.
            advertised: the sites that have advertised keys.
            selected: how many were selected.
            seed: what the graph is drawn from.
            bits: the bits of a quantised value.
            attempt: how often the run was begun or resumed.
            state: the SHA-256 of the state that the round starts from.
        """
        graph = draw_graph(advertised, self.holders(selected) - 1, seed, number)
        word = smallest_word(selected * self.largest_masked(bits))
        asked = quorum(selected, Shares(self.dropout, self.corrupted))
        begun = Round(run, number, graph, self.needed(selected), word, attempt, state, asked)
        return self.completed(begun, selected, bits)

    def completed(self, begun: Round, selected: int, bits: int) -> Round:
        """The round with what this protection's payloads need besides; here that is nothing."""
        return begun

    def largest_masked(self, bits: int) -> int:
        """The largest integer that a site masks, where its quantised values have ``bits`` bits."""
        return largest_quantised(bits)

    @abstractmethod
    def masked_words(self, total: Payload, round_: Round) -> npt.NDArray[np.unsignedinteger]:
        """The sum of the masked integers in the payload of a sum, ``(count,)`` modulo 2^b."""

    @abstractmethod
    def unmasked(self, total: Payload, sums: npt.NDArray[np.int64], round_: Round) -> Payload:
        """The payload of a sum in the clear.

        Args:
            total: the payload of the masked sum.
            sums: what its masked integers add up to, ``(count,)``.
            round_: what all parties know of the round.

        Raises:
            SumLostError: the sum cannot be what the sites sent.
        """

    def reveal(self, total: Payload, key: Any = None) -> npt.NDArray[np.float64]:
        """The numbers ``(length,)`` of a sum that was unmasked.

        Raises:
            ConsiliumError: the sum is damaged.
        """
        return decode_numbers(total).astype(np.float64)


class SecAggPlus(MaskedSums):
    """Masking of the quantised values themselves."""

    name: Literal["secagg_plus"] = "secagg_plus"

    hides_updates_from: ClassVar[frozenset[Onlooker] | None] = frozenset({"coordinator", "sites"})
    sums_integers: ClassVar[bool] = True

    def protect(self, update: CompressedUpdate, key: Masking) -> Payload:
        """The payload with the quantised values masked.

        Raises:
            ConsiliumError: fewer of the site's holders than the threshold have exchanged keys.
        """
        round_, quantised = key.round_, update.numbers.astype(np.int32, copy=False)
        masked = mask_update(quantised, key.secrets, key.advertised, key.sharing, round_)
        return Payload(
            update.site,
            update.round_number,
            update.weight,
            self.name,
            f"uint{round_.bits}",
            round_.fingerprint,
            len(masked),
            masked.view(np.uint8),
            scalars=update.scalars,
        )

    def open_sum(self, length: int, round_number: int, context: Round) -> Sum:
        """An empty sum of ``length`` words modulo 2^b."""
        content = (context, np.zeros(length, WORDS[context.bits]))
        return Sum(round_number, length, content, context.fingerprint)

    def include(self, running: Sum, payload: Payload) -> None:
        """Add a payload's words modulo 2^b, in place.

        Raises:
            ConsiliumError: the payload is damaged.
        """
        round_, words = running.content
        if len(payload.body) != words.nbytes:
            raise ConsiliumError(
                f"The payload of {payload.site} in round {payload.round_number} is damaged: it has "
                f"{len(payload.body)} bytes, not {words.nbytes}. Resume the run to send it again."
            )
        words += payload.body.view(WORDS[round_.bits])

    def close(self, running: Sum) -> Payload:
        """The payload of the sum, still masked.

        Raises:
            ConsiliumError: no payload was added.
        """
        return closed(running, running.content[1].view(np.uint8))

    def masked_words(self, total: Payload, round_: Round) -> npt.NDArray[np.unsignedinteger]:
        """The sum of the masked values ``(length,)``."""
        words: npt.NDArray[np.unsignedinteger] = total.body.view(WORDS[round_.bits])
        return words

    def unmasked(self, total: Payload, sums: npt.NDArray[np.int64], round_: Round) -> Payload:
        """The payload of the sum, whose values are what was masked."""
        encoding, body = encode_numbers(sums)
        return replace(total, encoding=encoding, body=body)
