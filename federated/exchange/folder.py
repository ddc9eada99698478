"""How messages get from one party to another: the interface, and an exchange that is a folder.

An exchange keeps messages and hands them out; it is trusted with nothing but that they arrive. Who
a message is from, and whether it is the one that is expected, is for its receiver to check
(``mailbox.py``).
"""

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from federated.exchange.kinds import is_durable
from federated.exchange.message import Header, Message, Signed
from federated.files import PRIVATE, atomic_path
from federated.settings.names import refuse_name

# Who a message is for that every party may read.
EVERYONE = "all"
SUFFIX = ".message"


@dataclass(frozen=True)
class Place:
    """Where a message lies: in which attempt at which round, what it is, and from whom to whom."""

    run: str
    round: int
    attempt: int
    recipient: str
    kind: str
    sender: str

    @staticmethod
    def of(header: Header) -> "Place":
        """The place of a message, by its own header."""
        return Place(
            header.run, header.round, header.attempt, header.recipient, header.kind, header.sender
        )


def file_name(signed: Signed) -> str:
    """The name of a message's file, by its own header."""
    return f"{signed.digest[:32]}{SUFFIX}"


class Exchange(ABC):
    """Where parties put messages, and find those that are for them."""

    @abstractmethod
    def post(self, message: Message) -> None:
        """Put a message where its recipient finds it.

        A message that is there already stays as it is. The recipient sees the whole of it or
        nothing.
        """

    @abstractmethod
    def find(self, place: Place) -> Sequence[Path]:
        """The files of the messages in a place, by name.

        They are what anybody has put there: nothing about them is checked.
        """

    @abstractmethod
    def forget(self, run: str, round_number: int, keep: Collection[str] = ()) -> None:
        """Remove the messages of a round of a run, but for those of the kinds in ``keep``."""


class FolderExchange(Exchange):
    """An exchange in a folder that all parties can read and write: one machine, and tests."""

    # Whether the parties are processes of one run, which end together when the machine does.
    alone: ClassVar[bool] = True

    def __init__(self, root: Path) -> None:
        self.root = root

    def post(self, message: Message) -> None:
        """Write the message's file; see :meth:`Exchange.post`."""
        path = self.path(message.signed)
        if not path.exists():
            durable = is_durable(message.header.kind, self.alone)
            with atomic_path(path, PRIVATE, durable=durable) as temporary:
                temporary.write_bytes(message.to_bytes())

    def find(self, place: Place) -> Sequence[Path]:
        """See :meth:`Exchange.find`."""
        folder = self.folder(place)
        try:
            names = sorted(e.name for e in os.scandir(folder) if e.is_file(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [folder / name for name in names if name.endswith(SUFFIX)]

    def forget(self, run: str, round_number: int, keep: Collection[str] = ()) -> None:
        """See :meth:`Exchange.forget`."""
        place = self._round(run, round_number)
        if not keep:
            shutil.rmtree(place, ignore_errors=True)
        for attempt in _folders(place):
            for recipient in _folders(attempt):
                for kind in _folders(recipient):
                    if kind.name not in keep:
                        shutil.rmtree(kind, ignore_errors=True)

    def rounds(self, run: str) -> list[int]:
        """The rounds of a run of which there are messages, in order."""
        names = [folder.name for folder in _folders(self.root / refuse_name(run, "a run's id"))]
        found = [name.removeprefix("round-") for name in names if name.startswith("round-")]
        return sorted(int(number) for number in found if number.isdecimal())

    def attempts(self, run: str, round_number: int) -> list[int]:
        """The attempts at a round of which there are messages, in order."""
        names = [folder.name for folder in _folders(self._round(run, round_number))]
        found = [name.removeprefix("attempt-") for name in names if name.startswith("attempt-")]
        return sorted(int(number) for number in found if number.isdecimal())

    def has_of(self, run: str, round_number: int, attempt: int, sender: str) -> bool:
        """Whether there is a message of a sender in an attempt at a round."""
        place = self._round(run, round_number) / f"attempt-{attempt}"
        return any(
            self.find(Place(run, round_number, attempt, to.name, kind.name, sender))
            for to in _folders(place)
            for kind in _folders(to)
        )

    def path(self, signed: Signed) -> Path:
        """The file of a message, by its own header.

        Raises:
            ConsiliumError: a name in the header is none that a folder can have.
        """
        return self.folder(Place.of(signed.header)) / file_name(signed)

    def _round(self, run: str, round_number: int) -> Path:
        return self.root / refuse_name(run, "a run's id") / f"round-{round_number:03d}"

    def folder(self, place: Place) -> Path:
        """The folder of a place.

        Raises:
            ConsiliumError: a name in it is none that a folder can have.
        """
        to = refuse_name(place.recipient, "a recipient's name")
        sender = refuse_name(place.sender, "a sender's name")
        kind = refuse_name(place.kind, "a kind of message")
        attempt = f"attempt-{place.attempt}"
        return self._round(place.run, place.round) / attempt / to / kind / sender


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, none of which is a link that leads out of the exchange."""
    try:
        return [Path(e.path) for e in os.scandir(folder) if e.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
