"""What the server at the coordinator is given: whom it serves, from where, and what is too much."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from federated.exchange.audit import AuditLog
from federated.exchange.enrolment import Enrolment
from federated.exchange.journal import JournalledExchange
from federated.exchange.message import MOST_HEADER, Header
from federated.exchange.sent_kinds import sent_kind

# In bytes: what a message's file has beside its body, at most.
MOST_FRAME = MOST_HEADER + 100


@dataclass(frozen=True)
class Limits:
    """What is too much, in bytes, seconds and numbers.

    Attributes:
        chunk: bytes of a piece of an upload.
        message: bytes of a message's file; ``sent_kinds.py`` has those of most kinds' bodies.
        uploads: how many uploads of a site may be unfinished, and ``upload_bytes`` how large they
            may be together.
        upload_bytes: see ``uploads``.
        site_bytes: bytes of all messages of a site that lie in the exchange.
        site_messages: how many they may be.
        free: bytes of the disk that stay free.
        polls: how many long polls of a site may wait at once.
        poll: seconds that one waits.
        body: seconds in which a request's body has to have arrived.
        clock: seconds by which a request's time may be off.
        nonces: how many requests of a site are remembered, for twice ``clock``.
        audit_lines: how many refusals of a party are written down in a minute.
    """

    chunk: int = 2**20
    message: int = 2 * 2**30
    uploads: int = 4
    upload_bytes: int = 4 * 2**30
    site_bytes: int = 32 * 2**30
    site_messages: int = 100_000
    free: int = 2**29
    polls: int = 8
    poll: float = 25
    body: float = 120
    clock: float = 60
    nonces: int = 2**16
    audit_lines: int = 30

    def most(self, kind: str) -> int | None:
        """Bytes of a message's file of a kind, at most; ``None`` where no site sends such a one."""
        known = sent_kind(kind)
        if known is None:
            return None
        return self.message if known.most is None else min(self.message, known.most + MOST_FRAME)


def _anything(_: Header) -> str:
    return ""


@dataclass(frozen=True)
class Office:
    """What the application serves.

    Attributes:
        consortium: the consortium's id.
        members: gives whom the coordinator knows at the moment, as :class:`MembersFile` does.
        exchange: where messages lie.
        audit: where uploads are written down, and what was refused.
        seen: the folder in which each site's last greeting lies.
        limits: what is too much.
        versions: what a site that says hello is told of the programs here.
        accepts: says of the header of a message that a site sends, signed by the site, why it is
            not wanted, in one sentence for the site; nothing where it is.
        clock: gives the time, in seconds since 1970.
    """

    consortium: str
    members: Callable[[], Enrolment]
    exchange: JournalledExchange
    audit: AuditLog
    seen: Path
    limits: Limits = field(default_factory=Limits)
    versions: Mapping[str, str] = field(default_factory=dict)
    accepts: Callable[[Header], str] = _anything
    clock: Callable[[], float] = time.time


class MembersFile:
    """The list of members in a file, read again when somebody has written it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: tuple[tuple[int, int, int], Enrolment] | None = None

    def __call__(self) -> Enrolment:
        """The members at the moment; nobody, where there is no file.

        Raises:
            ConsiliumError: the file is something else.
        """
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return Enrolment()
        mark = (found.st_ino, found.st_mtime_ns, found.st_size)
        if self._read is None or self._read[0] != mark:
            self._read = (mark, Enrolment.read(self.path))
        return self._read[1]


class RefusalLog:
    """What was refused, in the audit log: so many lines a minute of a party, and how many more.

    ``what`` is what was refused, of which one is a ``request`` and several are ``requests``.
    """

    def __init__(
        self, audit: AuditLog, most: int, clock: Callable[[], float], what: str = "request"
    ) -> None:
        self._audit, self._most, self._clock, self._what = audit, most, clock, what
        self._counted: dict[str, int] = {}
        self._minute = 0

    def add(self, party: str, reason: str, **what: object) -> None:
        """Write down a refusal; ``party`` is empty for everybody who is not known."""
        minute = int(self._clock() // 60)
        if minute != self._minute:
            self._tell_rest()
            self._minute, self._counted = minute, {}
        self._counted[party] = self._counted.get(party, 0) + 1
        if self._counted[party] <= self._most:
            event = f"{self._what} refused"
            self._audit.add(event, sender=party or "unknown", reason=reason, **what)

    def _tell_rest(self) -> None:
        for party, count in self._counted.items():
            if count > self._most:
                self._audit.add(
                    f"{self._what}s refused", sender=party or "unknown", count=count - self._most
                )
