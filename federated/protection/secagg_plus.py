"""SecAgg+: masked levels whose sum is exact, and of which the coordinator learns the sum alone.

The settings of ``protection.name=secagg_plus`` and what happens to numbers; ``secagg/`` has the
protocol, and who learns what under which assumptions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from federated.compression.quantize import largest_level
from federated.errors import ConsiliumError
from federated.protection.plain import decode_numbers
from federated.protection.protection import Onlooker, Protection, Sum, closed, count, refuse_other
from federated.protection.secagg.graph import draw_graph
from federated.protection.secagg.masks import WORDS, smallest_word
from federated.protection.secagg.protocol import Advertised, Round, Secrets, mask_levels
from federated.update import CompressedUpdate, Payload

# Without a setting. Shares take time and bytes with the square of it, masks with it.
MOST_NEIGHBOURS = 20


@dataclass(frozen=True)
class Masking:
    """What a site masks with in one round; ``sharing`` are the sites that exchanged keys."""

    secrets: Secrets
    advertised: Mapping[str, Advertised]
    sharing: Sequence[str]
    now: Round


class SecAggPlus(Protection):
    """``neighbours`` a site masks with, all others up to 20 if left out; ``threshold`` of those who
    hold its shares, the neighbours and itself, have to stay to the end, two thirds if left out.
    """

    name: Literal["secagg_plus"] = "secagg_plus"
    threshold: Annotated[int, Field(ge=1)] | None = None
    neighbours: Annotated[int, Field(ge=2)] | None = None

    hides_updates_from: ClassVar[frozenset[Onlooker] | None] = frozenset({"coordinator", "sites"})
    masked: ClassVar[bool] = True

    def check(self, sites: int, bits: int | None) -> None:
        """Refuse a graph or a threshold that ``sites`` cannot have, and values instead of levels.

        More than half of the holders have to be needed: else a coordinator could tell one half that
        a site had dropped out and the other half that it had not, and get both of its secrets.
        """
        if bits is None:
            raise ConsiliumError(
                "protection.name=secagg_plus adds integers, so it needs quantised updates: set "
                "compression.bits, for example to 8."
            )
        if sites < 2:
            raise ConsiliumError(
                "protection.name=secagg_plus hides an update in a sum, so at least 2 sites have to "
                "take part in a round. Raise sites.count or sites.participation."
            )
        if self.neighbours is not None and (
            self.neighbours >= sites or (self.neighbours % 2 and self.neighbours != sites - 1)
        ):
            raise ConsiliumError(
                f"protection.neighbours={self.neighbours} cannot be with {sites} sites in a round: "
                f"it is an even number below {sites}, or left out for all the others."
            )
        holders = self.holders(sites)
        if self.threshold is not None and not holders < 2 * self.threshold <= 2 * holders:
            raise ConsiliumError(
                f"protection.threshold={self.threshold} cannot be with {sites} sites in a round, "
                f"of which {holders} hold shares of each one's keys: it has to be from "
                f"{holders // 2 + 1}, more than half, to {holders}."
            )

    def holders(self, sites: int) -> int:
        """How many hold shares of a site's keys: its neighbours and itself."""
        return min(self.neighbours or MOST_NEIGHBOURS, sites - 1) + 1

    def needed(self, sites: int) -> int:
        """The threshold, where ``sites`` are asked."""
        holders = self.holders(sites)
        return self.threshold or max(holders // 2 + 1, -(-2 * holders // 3))

    def begin(
        self, run: str, number: int, advertised: Sequence[str], asked: int, seed: int, bits: int
    ) -> Round:
        """What all parties know of a round in which ``advertised`` of the sites ``asked`` are left.

        Words are as long as the sum of all levels needs, so that it never wraps round.
        """
        graph = draw_graph(advertised, self.holders(asked) - 1, seed, number)
        word = smallest_word(asked * largest_level(bits))
        return Round(run, number, graph, self.needed(asked), word)

    def protect(self, update: CompressedUpdate, key: Masking) -> Payload:
        """Mask the levels."""
        now, levels = key.now, update.numbers.astype(np.int32, copy=False)
        masked = mask_levels(levels, key.secrets, key.advertised, key.sharing, now)
        return Payload(
            update.site,
            update.round_number,
            update.weight,
            self.name,
            f"uint{now.bits}",
            now.fingerprint,
            len(masked),
            masked.view(np.uint8),
            below=update.below,
        )

    def open_sum(self, length: int, round_number: int, context: Round) -> Sum:
        """An empty sum modulo 2^b."""
        return Sum(round_number, length, (context, np.zeros(length, WORDS[context.bits])))

    def add(self, running: Sum, payload: Payload) -> None:
        """Add a payload's words modulo 2^b, in place."""
        now, words = running.content
        refuse_other(running, payload, self.name, now.fingerprint)
        if len(payload.body) != words.nbytes:
            raise ConsiliumError(
                f"The payload of {payload.site} in round {payload.round_number} is damaged: it has "
                f"{len(payload.body)} bytes, not {words.nbytes}. Resume the run to send it again."
            )
        words += payload.body.view(WORDS[now.bits])
        count(running, payload)

    def close(self, running: Sum) -> Payload:
        """The sum, still masked."""
        return closed(running, running.content[1].view(np.uint8))

    def reveal(self, total: Payload, key: Any = None) -> npt.NDArray[np.float64]:
        """The numbers of a sum that was unmasked."""
        return decode_numbers(total).astype(np.float64)
