"""How numbers are protected between a site and the sum: the interface, and what all refuse."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from federated.configuration.settings import Settings
from federated.errors import ConsiliumError
from federated.update import CompressedUpdate, Payload

# Who follows the protocol and may not see a single site's update all the same.
Onlooker = Literal["coordinator", "sites"]

# Who a payload is from that holds the sum of the sites' payloads.
SUM = "sum"


@dataclass
class Sum:
    """A running sum: the only memory that aggregation needs.

    ``content`` is the protection's own, ``header`` that of the payloads added so far.
    """

    round_number: int
    length: int
    content: Any
    header: Payload | None = None
    weight: float = 0.0
    below: float = 0.0


class Protection(Settings):
    """A protection is its own section of params.yaml.

    Sites call :meth:`protect`, the coordinator :meth:`open_sum`, :meth:`add` and :meth:`close`, and
    whoever may know the sum calls :meth:`reveal`.
    """

    # From whom a protection hides each site's update, as long as all follow the protocol; nobody is
    # an answer too. One that says nothing is refused with privacy, and with keys or masks; a
    # subclass says it for itself.
    hides_updates_from: ClassVar[frozenset[Onlooker] | None] = None
    # Whether sites hold a key that the coordinator must not have, so that a site opens the sum.
    keyed: ClassVar[bool] = False
    # Whether sites exchange keys before a round and unmask the sum after it.
    masked: ClassVar[bool] = False

    def check(self, sites: int, bits: int | None) -> None:
        """Refuse settings that ``sites`` in a round with levels of ``bits`` bits cannot use.

        Raises:
            ConsiliumError: says which, and what to change.
        """

    @abstractmethod
    def protect(self, update: CompressedUpdate, key: Any) -> Payload:
        """The payload that travels, from numbers that are weighted already."""

    @abstractmethod
    def open_sum(self, length: int, round_number: int, context: Any) -> Sum:
        """An empty sum of ``length`` numbers."""

    @abstractmethod
    def add(self, running: Sum, payload: Payload) -> None:
        """Add a payload to the running sum, in place.

        Raises:
            ConsiliumError: a payload of another scheme, context, round or length, or a damaged one.
        """

    @abstractmethod
    def close(self, running: Sum) -> Payload:
        """The sum as it goes back to the sites.

        Raises:
            ConsiliumError: no payload was added.
        """

    @abstractmethod
    def reveal(self, total: Payload, key: Any) -> npt.NDArray[np.float64]:
        """The sum's numbers."""


def refuse_other(running: Sum, payload: Payload, scheme: str, context: str) -> None:
    """Refuse a payload that does not belong to a sum.

    Raises:
        ConsiliumError: names every difference.
    """
    expected = {
        "scheme": scheme,
        "context": context,
        "round_number": running.round_number,
        "length": running.length,
    }
    differing = [
        f"its {key.replace('_number', '')} is {getattr(payload, key)}, expected {value}"
        for key, value in expected.items()
        if getattr(payload, key) != value
    ]
    if differing:
        raise ConsiliumError(f"The payload of {payload.site} is refused: {'; '.join(differing)}.")


def count(running: Sum, payload: Payload) -> None:
    """Count a payload whose body was added, with what it has in the clear."""
    running.weight += payload.weight
    running.below += payload.below
    running.header = payload


def closed(running: Sum, body: npt.NDArray[np.uint8], **changes: Any) -> Payload:
    """The payload of a sum.

    Raises:
        ConsiliumError: no payload was added.
    """
    if running.header is None or running.weight <= 0:
        raise ConsiliumError("No update arrived in this round, so there is no mean to apply.")
    total = replace(running.header, site=SUM, weight=running.weight, below=running.below)
    return replace(total, body=body, **changes)
