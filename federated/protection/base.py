"""How numbers are protected between a site and the sum: the interface, and what all refuse."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from federated.errors import ConsiliumError, TooFewSitesError
from federated.protection.parameters import Parameters
from federated.settings.base import Settings
from federated.update import CompressedUpdate, Payload

# Somebody who follows the protocol and all the same may not see a single site's update.
Onlooker = Literal["coordinator", "sites"]

# The name that stands for a site in the payload that holds the sum of the sites' payloads.
SUM = "sum"


@dataclass(frozen=True)
class Cohort:
    """What a protection has to hold: how many sites send, how often, and what.

    Attributes:
        selected: the number of sites selected in a round, which is the most that a sum has in it.
        sites: the number of all sites of the run, each of which may open a sum.
        rounds: the number of rounds of the run.
        bits: the bits of a quantised value, or ``None`` where nothing is quantised.
    """

    selected: int
    sites: int
    rounds: int
    bits: int | None


@dataclass
class Sum:
    """A running sum, which is the only memory that aggregation needs.

    ``content`` is the protection's own; ``header`` is the last payload that was added, for what all
    of them have in common. ``context`` is the fingerprint that payloads have to name, which is that
    of a key or of a masked round; it is empty where there is none.
    """

    round_number: int
    length: int
    content: Any
    context: str = ""
    header: Payload | None = None
    weight: float = 0.0
    scalars: dict[str, float] = field(default_factory=dict)


class Protection(Settings):
    """How a site's numbers are hidden in a sum.

    A protection object is the section ``protection`` of params.yaml. Sites call :meth:`protect`,
    the coordinator calls :meth:`open_sum`, :meth:`add` and :meth:`close`, and whoever may know the
    sum calls :meth:`reveal`.
    """

    # From whom a protection hides each site's update, as long as all follow the protocol; an empty
    # set is an answer too. One that says nothing is refused with privacy, and with keys or masks;
    # a subclass says it for itself.
    hides_updates_from: ClassVar[frozenset[Onlooker] | None] = None
    name: str
    # Whether sites hold a key that the coordinator must not have, so that a site opens the sum.
    keyed: ClassVar[bool] = False
    # Whether sites exchange keys before a round and unmask the sum after it.
    masked: ClassVar[bool] = False
    # Whether sums of quantised values are exact, and sites may open more of them than one a round;
    # a subclass says it for itself, and one that does not sums nothing but updates.
    sums_integers: ClassVar[bool] = False

    def check(self, cohort: Cohort) -> None:
        """Refuse settings that a cohort cannot use.

        Raises:
            ConsiliumError: it cannot use them; the message says which, and what to change.
        """

    def seen(self, payload: Payload) -> npt.NDArray[Any] | None:
        """What the coordinator can read of one site's payload ``(n,)``; ``None`` if it is hidden.

        Raises:
            ConsiliumError: it is damaged, or holds what is no finite number.
        """
        return None

    def parameters(self, length: int, cohort: Cohort) -> Parameters:
        """What a key has to be made for, to protect ``length`` numbers from each site of a cohort.

        Raises:
            ConsiliumError: there is no room for their sum, or the protection has no key.
        """
        raise ConsiliumError(f"protection.name={self.name} has no key.")

    def report(self, cohort: Cohort, public: Any) -> dict[str, Any]:
        """What a run's summary says of the protection, as plain values.

        ``public`` is the context of the sites' key, or ``None`` where there is no key.
        """
        return {"name": self.name}

    def refuse_too_few(
        self, site: str, round_number: int, selected: Sequence[str], responded: Sequence[str]
    ) -> frozenset[str]:
        """Check, at a site, that it may help to open a sum; where updates are in the clear it may.

        Args:
            site: the site that checks.
            round_number: the round.
            selected: the sites selected in it, as the site itself works them out.
            responded: the sites whose updates are said to be in the sum.

        Returns:
            The sites whose updates are in the sum, each once.

        Raises:
            ConsiliumError: the sum is not one that this protection lets a site help to open.
        """
        return frozenset(responded)

    @abstractmethod
    def protect(self, update: CompressedUpdate, key: Any) -> Payload:
        """The payload that travels, from numbers that are already weighted."""

    @abstractmethod
    def open_sum(self, length: int, round_number: int, context: Any) -> Sum:
        """An empty sum of ``length`` numbers; ``context`` is what the coordinator adds with."""

    def add(self, running: Sum, payload: Payload) -> None:
        """Add a payload to the running sum, in place.

        Raises:
            ConsiliumError: the payload is of another scheme, context, round or length, or is
                damaged; the sum is as it was.
        """
        refuse_other(running, payload, self.name)
        self.include(running, payload)
        count(running, payload)

    @abstractmethod
    def include(self, running: Sum, payload: Payload) -> None:
        """Add the body of a payload that belongs to the sum to its content, in place.

        Raises:
            ConsiliumError: the body is damaged; the content is as it was.
        """

    @abstractmethod
    def close(self, running: Sum) -> Payload:
        """The payload of the sum, as it goes back to the sites.

        Raises:
            ConsiliumError: no payload was added.
        """

    @abstractmethod
    def reveal(self, total: Payload, key: Any) -> npt.NDArray[np.float64]:
        """The numbers of the sum, ``(length,)`` float64.

        Raises:
            ConsiliumError: the sum is damaged, or cannot be opened with this key.
        """


class HiddenUpdates(Protection):
    """A protection that hides each update in a sum, and so must not open a "sum" of one site.

    ``min_sites`` is how many different sites have to be in a sum before a site helps to open it.
    Each of two sites knows the other's update once it knows their sum, so two have to be chosen by
    hand; of three sites, each learns the sum of the two others.
    """

    min_sites: Annotated[int, Field(ge=2)] = 3

    def check(self, cohort: Cohort) -> None:
        """Refuse rounds in which fewer sites than ``min_sites`` are selected.

        Raises:
            ConsiliumError: fewer are.
        """
        if cohort.selected < self.min_sites:
            raise ConsiliumError(
                f"protection.name={self.name} hides an update in a sum of at least "
                f"protection.min_sites={self.min_sites} sites, and {cohort.selected} are selected "
                "in a round. Raise sites.count or sites.participation; protection.min_sites may be "
                "2 where each of two sites may learn the other's update."
            )

    def report(self, cohort: Cohort, public: Any) -> dict[str, Any]:
        """What the summary says, with the number of sites that a sum has to have."""
        return super().report(cohort, public) | {"min_sites": self.min_sites}

    def refuse_too_few(
        self, site: str, round_number: int, selected: Sequence[str], responded: Sequence[str]
    ) -> frozenset[str]:
        """Check, at a site, that a sum is one of enough sites of this round.

        A site does so before it helps to open the sum. A name counts once, and only if it is one of
        those ``selected``, which the site works out for itself and does not take from the
        coordinator. Names are not signed here: a site cannot check whether a payload is that of the
        site whose name it carries.

        Args:
            site: the site that checks.
            round_number: the round.
            selected: the sites selected in it.
            responded: the names that are said to be in the sum.

        Returns:
            The different sites in the sum.

        Raises:
            ConsiliumError: a name is not one of those selected or is there twice, the site's own is
                missing, or there are fewer than ``min_sites``.
        """
        counted = frozenset(responded)
        unknown = sorted(counted - set(selected))
        reason = None
        if unknown:
            reason = f"has {', '.join(unknown)} in it, not selected in this round"
        elif len(responded) != len(counted):
            reason = "has a site in it more than once"
        elif site not in counted:
            reason = f"does not have {site} itself in it"
        if reason:
            raise ConsiliumError(
                f"{site} does not help to open the sum of round {round_number}: it {reason}. "
                "Resume the run; the round begins anew."
            )
        if len(counted) < self.min_sites:
            absent = ", ".join(name for name in selected if name not in counted) or "none"
            raise TooFewSitesError(
                f"The sum of round {round_number} is of {len(counted)} of {len(selected)} sites, "
                f"fewer than protection.min_sites={self.min_sites}, and would tell too much of "
                f"each update, so no site helps to open it; missing: {absent}. Resume when they "
                "are back, or start a run with more sites."
            )
        return counted


def refuse_other(running: Sum, payload: Payload, scheme: str) -> None:
    """Refuse a payload that does not belong to a sum.

    Raises:
        ConsiliumError: it does not; the message names every difference.
    """
    expected = {
        "scheme": scheme,
        "context": running.context,
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
    """Count a payload whose body was added: its weight, its scalars and its header."""
    running.weight += payload.weight
    for name, value in payload.scalars.items():
        running.scalars[name] = running.scalars.get(name, 0.0) + value
    running.header = payload


def closed(running: Sum, body: npt.NDArray[np.uint8], **changes: Any) -> Payload:
    """The payload of a sum with this ``body``; ``changes`` replace other fields of its header.

    Raises:
        ConsiliumError: no payload was added.
    """
    if running.header is None or running.weight <= 0:
        raise ConsiliumError("No update arrived in this round, so there is no mean to apply.")
    total = replace(running.header, site=SUM, weight=running.weight, scalars=running.scalars)
    return replace(total, body=body, **changes)
