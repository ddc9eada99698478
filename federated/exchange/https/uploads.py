"""What sites send, until it is a message: pieces, in a folder of the site's that nobody reads.

Only what is whole, signed by the site that sends it, and addressed to somebody who is there gets
into the exchange, in one step. What is refused is removed, and the site is told why.
"""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from federated.errors import ConsiliumError, printable
from federated.exchange.enrolment import Member
from federated.exchange.folder import EVERYONE
from federated.exchange.https.authentication import RequestRefusedError
from federated.exchange.https.catalogue import Catalogue
from federated.exchange.https.office import Office
from federated.exchange.identity import COORDINATOR
from federated.exchange.message import MessageRefusedError, Signed, Unread, open_message
from federated.files import PRIVATE, make_folders

FOLDER = ".uploads"
PART = ".part"
# In seconds: an upload that nothing was added to for so long makes room for another one.
IDLE = 600


@dataclass(frozen=True)
class Chunk:
    """A piece of a message's file.

    Attributes:
        digest: of the message's header.
        kind: of the message.
        offset: where the piece begins.
        length: its bytes.
        total: the bytes of the whole file.
    """

    digest: str
    kind: str
    offset: int
    length: int
    total: int


class Uploads:
    """The unfinished uploads of all sites. Of one site one thread at a time may be in here."""

    def __init__(self, office: Office, catalogue: Catalogue) -> None:
        self._office, self._catalogue = office, catalogue

    def progress(self, site: str, digest: str) -> tuple[int, bool]:
        """How many bytes of a message are here, and whether it is in the exchange."""
        entry = self._catalogue.find(digest)
        if entry is not None and entry.sender == site:
            return entry.size, True
        for part in self._parts(site):
            if part.name.startswith(digest):
                return part.stat().st_size, False
        return 0, False

    def admit(self, site: str, chunk: Chunk) -> None:
        """Refuse a piece by what was said of it, before it is read.

        Raises:
            RequestRefusedError: it is too much.
        """
        limits = self._office.limits
        most = limits.most(chunk.kind)
        if most is None:
            raise _refused(
                422,
                "no kind",
                site,
                f"No site sends messages of the kind {printable(chunk.kind, 60)}.",
            )
        if chunk.total > most:
            self._drop(site, chunk.digest)
            raise _refused(
                413, "too large", site,
                f"A message of the kind {printable(chunk.kind, 60)} has {chunk.total} bytes, and "
                f"at most {most} are taken.",
            )  # fmt: skip
        if chunk.length > limits.chunk or chunk.offset + chunk.length > chunk.total:
            raise _refused(
                413, "bad piece", site,
                f"A piece of {chunk.length} bytes at {chunk.offset} is too long: pieces have at "
                f"most {limits.chunk}, and the message has {chunk.total}.",
            )  # fmt: skip
        parts = self._parts(site)
        name = f"{chunk.digest}.{chunk.total}{PART}"
        if any(part.name == name for part in parts):
            return
        if any(part.name.startswith(chunk.digest) for part in parts):
            self._drop(site, chunk.digest)
            raise _refused(
                422, "other total", site,
                "The message was said to have another length before. Send it from its beginning.",
            )  # fmt: skip
        self._admit_new(site, chunk, parts)

    def _admit_new(self, site: str, chunk: Chunk, parts: list[Path]) -> None:
        limits = self._office.limits
        if len(parts) >= limits.uploads:
            oldest = min(parts, key=lambda part: part.stat().st_mtime)
            if time.time() - oldest.stat().st_mtime < IDLE:
                raise _refused(
                    429, "too many uploads", site,
                    f"{len(parts)} uploads are not finished, and no more may be. Finish one first.",
                )  # fmt: skip
            oldest.unlink(missing_ok=True)
            parts.remove(oldest)
        opened = sum(int(part.name.split(".")[1]) for part in parts)
        count, stored = self._catalogue.of_sender(site)
        if count >= limits.site_messages or stored + opened + chunk.total > limits.site_bytes:
            count, stored = self._catalogue.recount(site)
        if opened + chunk.total > limits.upload_bytes:
            what = f"unfinished uploads of {opened + chunk.total} bytes"
        elif count >= limits.site_messages:
            what = f"{count} messages"
        elif stored + opened + chunk.total > limits.site_bytes:
            what = f"messages of {stored + opened + chunk.total} bytes"
        elif shutil.disk_usage(self._place(site)).free - chunk.total < limits.free:
            raise _refused(
                507, "disk full", site,
                "The coordinator's disk is nearly full. Tell those who run it.",
            )  # fmt: skip
        else:
            return
        raise _refused(
            429, "too much", site, f"{site} would have {what} here, which is too much. Wait, or "
            "tell those who run the coordinator.",
        )  # fmt: skip

    def add(self, member: Member, chunk: Chunk, content: bytes) -> tuple[int, bool]:
        """Add a piece, and say how many bytes are here, and whether the message is in the exchange.

        A piece that is here already is passed over, and one that others have to come before is not
        taken. With the last one the message is checked and put into the exchange.

        Raises:
            RequestRefusedError: the message is refused; nothing is left of it.
        """
        site = member.identity.name
        have, is_whole = self.progress(site, chunk.digest)
        if is_whole:
            return have, True
        self.admit(site, chunk)
        if chunk.offset > have:
            return have, False
        part = self._place(site) / f"{chunk.digest}.{chunk.total}{PART}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        with os.fdopen(os.open(part, flags, PRIVATE), "ab") as file:
            file.write(content[have - chunk.offset :])
        have = part.stat().st_size
        if have == chunk.total:
            self._finish(member, chunk, part)
        return have, have == chunk.total

    def take(self, member: Member, signed: Signed, content: bytes) -> None:
        """Put a whole message into the exchange; one that is there already stays as it is.

        Args:
            member: the site that sends it.
            signed: what stands at the beginning of ``content``.
            content: the message's file.

        Raises:
            RequestRefusedError: the message is refused; nothing is left of it.
        """
        # What an upload in pieces has left of it was perhaps damaged since.
        self._drop(member.identity.name, signed.digest)
        size = len(content)
        self.add(member, Chunk(signed.digest, signed.header.kind, 0, size, size), content)

    def _finish(self, member: Member, chunk: Chunk, part: Path) -> None:
        site = member.identity.name
        try:
            with open_message(part) as unread:
                self._check(member, chunk, unread)
        except MessageRefusedError as error:
            part.unlink(missing_ok=True)
            # What it says of a file of this machine is nothing for the site.
            text = str(error).replace(str(part), chunk.digest[:16])
            raise _refused(422, error.reason, site, text) from error
        try:
            self._office.exchange.adopt(part, unread.signed)
        except (ConsiliumError, OSError) as error:
            raise _refused(
                507, "cannot write", site, "The coordinator cannot write to its disk. Tell it."
            ) from error
        header = unread.header
        self._office.audit.add(
            "arrived", run=header.run, round=header.round, kind=header.kind, sender=site,
            to=header.recipient, bytes=chunk.total, digest=chunk.digest,
        )  # fmt: skip

    def _check(self, member: Member, chunk: Chunk, unread: Unread) -> None:
        """Refuse a message that its site may not send.

        Raises:
            MessageRefusedError: it may not.
        """
        header, members = unread.header, self._office.members()
        if header.sender != member.identity.name:
            raise MessageRefusedError("other sender", "A site sends its own messages alone.")
        if not unread.signed.is_from(member.identity):
            raise MessageRefusedError("bad signature", "The message is not signed by the site.")
        if (unread.signed.digest, header.kind) != (chunk.digest, chunk.kind):
            raise MessageRefusedError("other message", "It is another message than was announced.")
        if header.consortium != self._office.consortium:
            raise MessageRefusedError("other consortium", "The message is of another consortium.")
        known = header.recipient in (COORDINATOR, EVERYONE)
        if not known and members.standing(header.recipient) != "enrolled":
            raise MessageRefusedError("no recipient", "It is for a site that is not enrolled.")
        try:
            self._office.exchange.path(unread.signed)
        except ConsiliumError as error:
            raise MessageRefusedError(
                "no place", "A name in its header is none that a folder can have."
            ) from error
        if why := self._office.accepts(header):
            raise MessageRefusedError("not wanted", why)
        unread.check_body()

    def _place(self, site: str) -> Path:
        folder = self._office.exchange.root / FOLDER / site
        make_folders(folder, private=True)
        return folder

    def _parts(self, site: str) -> list[Path]:
        return [path for path in self._place(site).iterdir() if path.name.endswith(PART)]

    def _drop(self, site: str, digest: str) -> None:
        for part in self._parts(site):
            if part.name.startswith(digest):
                part.unlink(missing_ok=True)


def _refused(status: int, reason: str, site: str, sentence: str) -> RequestRefusedError:
    return RequestRefusedError(status, reason, site, reason=reason, refused=sentence)
