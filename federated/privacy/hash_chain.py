"""A file of entries that is only ever appended to, in which every change is noticed.

It has one JSON object in a line. The last key of an entry is the SHA-256 of everything before it,
and each entry names the hash of the one before. ``head.json`` beside the file has the number of
lines and the last hash, so that a cut off end is noticed too. Whoever can rewrite both can forge
both; a copy of the head that is kept elsewhere shows that.

A process reads and checks the whole file once, and from then on only what was added to it.
"""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from federated.errors import ConsiliumError, RefusalError
from federated.files import locked, read_json, write_json
from federated.secrets.home import private_folder

FIRST = "0" * 64
_SEAM, _END = b', "hash": "', b'"}\n'
Entry = dict[str, Any]


@dataclass(frozen=True)
class Head:
    """The number of entries in a chain, and the hash of the last one in hexadecimal digits."""

    count: int = 0
    hash: str = FIRST


@dataclass
class Checked:
    """How much of a file was read and found whole; ``size`` is in bytes."""

    head: Head = Head()
    # The hash before the last one, which the head's file may still have after a crash.
    before: str = FIRST
    size: int = 0
    # Device, inode and time of the last change, when it was last looked at.
    state: tuple[int, int, int] | None = None


class HashChain:
    """The chain in the file at ``path``; messages say ``what`` it is."""

    def __init__(self, path: Path, what: str) -> None:
        self.path, self.what = path, what

    @property
    def head_path(self) -> Path:
        """The file that the head is in."""
        return self.path.with_suffix(".head.json")

    @contextmanager
    def locked(self, writing: bool) -> Iterator[None]:
        """Hold the file's lock; for reading, go on without it where no lock can be made.

        Raises:
            ConsiliumError: the file is to be written to, and cannot be.
        """
        with ExitStack() as held:
            try:
                if writing:
                    private_folder(self.path.parent)
                held.enter_context(locked(self.path.with_suffix(".lock")))
            except OSError as error:
                raise ConsiliumError(
                    f"The {self.what} {self.path} cannot be written to: {error.strerror}. Nothing "
                    "is released without an entry. Make its folder writable, or name another with "
                    "CONSILIUM_LEDGER."
                ) from error
            except ConsiliumError:
                if writing:
                    raise
            yield

    def extends(self, checked: Checked) -> bool:
        """Whether the file is what was checked, perhaps with more at its end."""
        found = self._stat()
        if found is None or checked.state is None:
            return False
        if found.st_size == checked.size:
            return _state(found) == checked.state
        return found.st_size > checked.size and _state(found)[:2] == checked.state[:2]

    def read(self, checked: Checked, heads: Mapping[int, str]) -> Iterator[Entry]:
        """The entries after what was checked, in order; ``checked`` is moved on.

        ``heads`` has the hashes that entries of some numbers are known to have.

        Raises:
            ConsiliumError: the chain is broken, or ends before its head does; the message says
                where.
        """
        # Before the entries: their file may only be ahead of it.
        known = self._head()
        count = checked.head.count
        # The hash of the entry that the head is of.
        own = {count: checked.head.hash, count - 1: checked.before}.get(known.count)
        for line in self._lines(checked):
            number = checked.head.count + 1
            entry = _parsed(line, checked.head.hash)
            if entry is None:
                raise self.changed(f"entry {number} was changed, or one before it removed")
            found = str(entry.pop("hash"))
            if heads.get(number, found) != found:
                raise self.changed(f"entry {number} is not the one that was kept on record of it")
            checked.before, checked.head = checked.head.hash, Head(number, found)
            checked.size += len(line)
            own = found if number == known.count else own
            yield entry
        self._fits(checked.head.count, known, own, heads)

    def _fits(self, count: int, known: Head, own: str | None, heads: Mapping[int, str]) -> None:
        # The head follows the entry, so that a crash between the two leaves it one behind.
        if known.count > count:
            raise self.changed(f"{known.count - count} entries at its end are missing")
        if known.count and own not in (None, known.hash):
            raise self.changed("its entries are not those that its head was written for")
        if count > known.count + 1:
            raise self.changed("its head is older than its last entry by more than a crash allows")
        last = max(heads, default=0)
        if last > count:
            raise self.changed(
                f"{last - count} entries at its end are missing, which are on record elsewhere: "
                "the ledger and its head were put back to an older copy, or removed"
            )

    def append(self, checked: Checked, content: Mapping[str, Any]) -> Head:
        """Append an entry and sync it to the disk; return the new head. The lock has to be held.

        It is written after what was checked, so that a line that a crash cut off is overwritten.
        """
        line, found = chained(content, checked.head.hash)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # What a crash left of an entry was never followed by its release.
            os.ftruncate(handle, checked.size)
            os.lseek(handle, checked.size, os.SEEK_SET)
            written = 0
            while written < len(line):
                written += os.write(handle, line[written:])
            os.fsync(handle)
            state = _state(os.fstat(handle))
        finally:
            os.close(handle)
        checked.before, checked.head = checked.head.hash, Head(checked.head.count + 1, found)
        checked.size, checked.state = checked.size + len(line), state
        # Synced with its folder, so the chain's own name is durable by then too.
        write_json(self.head_path, asdict(checked.head), 0o600)
        return checked.head

    def changed(self, how: str) -> ConsiliumError:
        """The error for a file that is not whole, which the caller raises."""
        return RefusalError(
            f"The {self.what} {self.path} is not whole: {how}. Nothing more is released from "
            "this data. Put back the ledger and its head from a copy, or find out who changed it."
        )

    def _head(self) -> Head:
        if not self.head_path.is_file():
            return Head()
        try:
            return Head(**read_json(self.head_path))
        except (ValueError, TypeError) as error:
            raise self.changed(f"its head {self.head_path.name} cannot be read") from error

    def _stat(self) -> os.stat_result | None:
        try:
            return self.path.stat()
        except OSError:
            return None

    def _lines(self, checked: Checked) -> list[bytes]:
        """The complete lines after what was checked; a crash may have left a part of one more."""
        if not self.path.is_file():
            return []
        with self.path.open("rb") as file:
            checked.state = _state(os.fstat(file.fileno()))
            file.seek(checked.size)
            rest = file.read()
        return [line for line in rest.splitlines(True) if line.endswith(b"\n")]


def chained(content: Mapping[str, Any], previous: str) -> tuple[bytes, str]:
    """The line of an entry that follows the hash ``previous``, and the entry's own hash.

    The hash leaves the site, in the heads that runs keep. The salt hides what it is a hash of:
    whoever guesses the records of an entry cannot find out by hashing whether the guess is right.
    """
    now, salt = datetime.now(UTC).isoformat(), secrets.token_hex(16)
    text = json.dumps({"time": now, "salt": salt, **content, "previous": previous})
    found = sha256(text.encode()).hexdigest()
    return text[:-1].encode() + _SEAM + found.encode() + _END, found


def _state(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_dev, found.st_ino, found.st_ctime_ns


def _parsed(line: bytes, previous: str) -> Entry | None:
    """An entry with its hash, if that is right and the entry follows ``previous``."""
    body, seam, end = line.rpartition(_SEAM)
    if not seam or end[64:] != _END or sha256(body + b"}").hexdigest().encode() != end[:64]:
        return None
    try:
        entry = json.loads((body + b"}").decode())
    except ValueError:
        return None
    if not isinstance(entry, dict) or entry.get("previous") != previous:
        return None
    return {**entry, "hash": end[:64].decode()}
