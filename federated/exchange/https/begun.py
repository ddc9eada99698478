"""Which of the messages that sites send belong to a run that the coordinator has begun.

Whoever is enrolled could otherwise have the coordinator keep anything, and have each other site
fetch it: what is for all is carried to all.
"""

import json
from collections import OrderedDict
from collections.abc import Set
from dataclasses import replace
from pathlib import Path
from threading import Lock

from federated.errors import printable
from federated.exchange import kinds
from federated.exchange.folder import EVERYONE, FolderExchange, Place
from federated.exchange.identity import COORDINATOR, PublicIdentity
from federated.exchange.message import Header, MessageRefusedError, open_message
from federated.exchange.sent_kinds import sent_kind

# How many attempts at runs are remembered.
REMEMBERED = 64
# A place is for one message. A second one shows that its sender lies; more show nothing.
MOST_IN_PLACE = 2


class BegunRuns:
    """Says why a message of a site is not wanted, by what the coordinator itself has sent.

    It is wanted if the coordinator has proposed the run, in the attempt that the message is of, to
    its sender and, where it is for one site, to that; if that attempt has neither ended nor been
    followed by another; if the coordinator has sent something in the round that it is of, and
    nothing in a later one, which it begins once that round is done; and if sites send such a kind
    to such recipients. A word on what a site was asked is wanted if it was asked that, also of a
    round that is done and of an attempt that has ended: of each there is one. Several threads may
    ask.

    Args:
        exchange: where messages lie.
        coordinator: whose signature a proposal has to have.
    """

    def __init__(self, exchange: FolderExchange, coordinator: PublicIdentity) -> None:
        self._exchange, self._coordinator = exchange, coordinator
        self._proposed: OrderedDict[Path, Set[str]] = OrderedDict()
        self._reached: dict[Path, int] = {}
        self._lock = Lock()

    def __call__(self, header: Header) -> str:
        """One sentence for the site; nothing where the message is wanted."""
        with self._lock:
            return self._unwanted(header)

    def _unwanted(self, header: Header) -> str:
        what, run = _shown(header.kind), _shown(header.run)
        known = sent_kind(header.kind)
        if known is None or not _is_for(header, known.to):
            return f"No site sends a message {what} to {_shown(header.recipient)}."
        proposal, sites = self._participants(header)
        if proposal is None:
            return f"The coordinator has begun no attempt {header.attempt} at a run {run}."
        if not {header.sender, header.recipient} - {COORDINATOR, EVERYONE} <= sites:
            return (
                f"Not all that the message {what} is of and for take part in {_shown(header.run)}."
            )
        if header.kind.startswith(kinds.DONE):
            if not self._has_asked(header):
                return (
                    f"The coordinator has not asked {_shown(header.sender)} what {what} is said of."
                )
        elif why := self._over(header) or self._late(header):
            return why
        if header.round > (0 if known.before_rounds else self._last_round(proposal, header)):
            return f"The coordinator has not begun round {header.round} of run {run}."
        if len(self._exchange.find(Place.of(header))) >= MOST_IN_PLACE:
            return f"Different messages {what} have been sent already, of which none counts."
        return ""

    def _has_asked(self, header: Header) -> bool:
        """Whether the coordinator has asked the sender what its word is said of."""
        number = header.kind.removeprefix(kinds.DONE)
        place = Place(
            header.run, header.round, header.attempt, header.sender, f"{kinds.ASK}{number}",
            COORDINATOR,
        )  # fmt: skip
        return any(self._is_of_coordinator(path, place) for path in self._exchange.find(place))

    def _over(self, header: Header) -> str:
        """Why nothing more of an attempt at a run is wanted; nothing where it goes on."""
        place = Place(header.run, 0, header.attempt, EVERYONE, kinds.ENDED, COORDINATOR)
        if any(self._is_of_coordinator(path, place) for path in self._exchange.find(place)):
            return f"Attempt {header.attempt} at run {_shown(header.run)} has ended."
        for attempt in reversed(self._exchange.attempts(header.run, 0)):
            if attempt <= header.attempt:
                return ""
            if self._participants(replace(header, attempt=attempt))[0] is not None:
                return f"Attempt {attempt} at run {_shown(header.run)} has begun since."
        return ""

    def _late(self, header: Header) -> str:
        """Why nothing more of a round is wanted; nothing before the coordinator begins another."""
        for number in self._exchange.rounds(header.run):
            if number > header.round > 0 and self._has_begun(header, number):
                return f"Round {header.round} of run {_shown(header.run)} is done."
        return ""

    def _has_begun(self, header: Header, number: int) -> bool:
        """Whether the coordinator has signed a plan of a round in the attempt of a message."""
        place = Place(header.run, number, header.attempt, EVERYONE, kinds.ROUND_PLAN, COORDINATOR)
        paths = self._exchange.find(place)
        return any(self._is_of_coordinator(path, place, kinds.MOST_SMALL) for path in paths)

    def _is_of_coordinator(self, path: Path, place: Place, most: int = kinds.MOST_ASK) -> bool:
        try:
            self._read(path, place, most)
        except (MessageRefusedError, FileNotFoundError):
            return False
        return True

    def _participants(self, header: Header) -> tuple[Path | None, Set[str]]:
        """The file of the coordinator's proposal, and to whom it has proposed the run."""
        place = Place(header.run, 0, header.attempt, EVERYONE, kinds.PROPOSAL, COORDINATOR)
        for path in self._exchange.find(place):
            if path not in self._proposed:
                try:
                    body = self._read(path, place, kinds.MOST_PLAN)
                    # Of the coordinator's own plan nothing else is of interest here.
                    self._proposed[path] = frozenset(json.loads(body)["participants"])
                except (MessageRefusedError, FileNotFoundError):
                    continue
                if len(self._proposed) > REMEMBERED:
                    self._reached.pop(self._proposed.popitem(last=False)[0], None)
            return path, self._proposed[path]
        return None, frozenset()

    def _read(self, path: Path, place: Place, most: int) -> bytes:
        """The body of a message of the coordinator's in a place.

        Raises:
            MessageRefusedError: it is another message, or not signed by the coordinator.
            FileNotFoundError: it is not there any more.
        """
        with open_message(path) as unread:
            header = unread.header
            if Place.of(header) != place or header.consortium != self._coordinator.consortium:
                raise MessageRefusedError("other message", "It is not what is looked for here.")
            return unread.read(self._coordinator, most).body

    def _last_round(self, proposal: Path, header: Header) -> int:
        """The last round of which the coordinator is known to have sent something.

        It is looked for only where the message is of a later one than the last that was seen.
        """
        if header.round > self._reached.get(proposal, 0):
            for number in self._exchange.rounds(header.run):
                if number >= header.round and self._exchange.has_of(
                    header.run, number, header.attempt, COORDINATOR
                ):
                    self._reached[proposal] = number
        return self._reached.get(proposal, 0)


def _is_for(header: Header, recipients: tuple[str, ...]) -> bool:
    named = {COORDINATOR: "coordinator", EVERYONE: "all"}.get(header.recipient, "site")
    return named in recipients and header.recipient != header.sender


def _shown(text: str) -> str:
    return printable(text, 60)
