"""A folder exchange that also writes down, in order, what was put into it.

Whoever carries messages on, as the server and the client of ``https/`` do, reads this journal from
where it has come to, and has no need to look through the folder. Many processes write to it at
once. A message's file is there, as durable as its kind asks for, before its line is: a process that
is killed in between leaves a file without a line, which gets its line when the message is posted
again, or when whoever carries messages opens the exchange (:meth:`JournalledExchange.recover`).
"""

import fcntl
import json
import os
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, get_type_hints

import psutil

from federated.errors import ConsiliumError
from federated.exchange.folder import SUFFIX, FolderExchange, Place
from federated.exchange.kinds import is_durable
from federated.exchange.message import Message, Signed, open_message
from federated.files import PRIVATE, atomic_path, cannot_write, make_folders

JOURNAL = "journal.jsonl"
# In bytes: how much of the journal is read at once, and from which length on it is compacted.
MOST_READ = 2**20
COMPACT_FROM = 2**18
MOST_HEAD = 200


@dataclass(frozen=True)
class Entry:
    """A message of which the journal tells.

    Attributes:
        path: its file, below the exchange's root.
        recipient: the name of who it is for, or ``all``.
        sender: the name of who has signed it.
        kind: what the body is.
        run: the run's id.
        size: the bytes of the file.
        digest: the SHA-256 of the header.
    """

    path: str
    recipient: str
    sender: str
    kind: str
    run: str
    size: int
    digest: str


@dataclass(frozen=True)
class Position:
    """How far a reader has come: an offset in bytes, in a journal of one epoch.

    Compaction begins a new epoch, and so does a machine that was started anew, after which a line
    may be missing that a reader has seen. A position in another epoch is the beginning.
    """

    epoch: str = ""
    offset: int = 0


_FIELDS = get_type_hints(Entry)


def _entry(line: bytes) -> Entry | None:
    """The entry in a line; none where a writer was killed within it."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    if not isinstance(value, dict) or value.keys() != _FIELDS.keys():
        return None
    if any(type(value[name]) is not kind for name, kind in _FIELDS.items()):
        return None
    return Entry(**value)


def _boot() -> str:
    """What tells one start of this machine from another."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return str(int(psutil.boot_time()))


class Journal:
    """A file of JSON lines that many processes add to, and which can be compacted meanwhile.

    Every entry is written in one piece, with a line break before it as well: where a writer was
    killed in the middle of a line, that line is lost and not the next one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries, each in a line.

        Raises:
            ConsiliumError: the file cannot be written.
        """
        content = "".join(f"\n{json.dumps(asdict(entry))}\n" for entry in entries).encode()
        with self._locked(fcntl.LOCK_SH) as handle:
            if os.write(handle, content) != len(content):
                raise cannot_write(self.path.parent, OSError(28, "no space is left"))

    def read(self, after: Position) -> tuple[list[Entry], Position]:
        """Entries after a position, and the position after them; some megabytes at most.

        A last line that is not complete is left for the next time.
        """
        try:
            with self.path.open("rb") as file:
                epoch = _head(file.read(MOST_HEAD)).get("epoch", "")
                offset = after.offset if after.epoch == epoch else 0
                file.seek(offset)
                content = file.read(MOST_READ)
        except FileNotFoundError:
            return [], Position()
        content = content[: content.rfind(b"\n") + 1]
        found = (_entry(line) for line in content.split(b"\n"))
        return [entry for entry in found if entry], Position(epoch, offset + len(content))

    def read_all(self) -> tuple[list[Entry], Position]:
        """All entries, and the position after them."""
        entries, position = self.read(Position())
        while True:
            more, further = self.read(position)
            if further == position:
                return entries, position
            if further.epoch != position.epoch:
                entries = []
            entries += more
            position = further

    def mark(self) -> tuple[int, int]:
        """What changes as soon as somebody has added something: the file, and its length."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return 0, 0
        return found.st_ino, found.st_size

    def of_this_boot(self) -> bool:
        """Whether the journal was begun since the machine was started."""
        try:
            with self.path.open("rb") as file:
                return _head(file.read(MOST_HEAD)).get("boot") == _boot()
        except FileNotFoundError:
            return False

    def rewrite(self, keep: Callable[[Entry], bool]) -> None:
        """Begin a new epoch with those entries alone that are to be kept, each once."""
        with self._locked(fcntl.LOCK_EX):
            kept = {entry.path: entry for entry in self.read_all()[0] if keep(entry)}
            lines = "".join(f"\n{json.dumps(asdict(entry))}\n" for entry in kept.values())
            with atomic_path(self.path, PRIVATE) as temporary:
                temporary.write_text(_new_head() + lines, encoding="utf-8")

    @contextmanager
    def _locked(self, how: int) -> Iterator[int]:
        """The journal, opened to add to it; nobody puts another file in its place meanwhile."""
        while True:
            handle = self._open()
            try:
                fcntl.flock(handle, how)
                if os.fstat(handle).st_ino == self.mark()[0]:
                    yield handle
                    return
            finally:
                os.close(handle)

    def _open(self) -> int:
        while True:
            try:
                return os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW)
            except FileNotFoundError:
                self._begin()
            except OSError as error:
                raise cannot_write(self.path.parent, error) from error

    def _begin(self) -> None:
        """Make the file, whole from the first moment, if nobody else has."""
        temporary = self.path.with_name(f".{JOURNAL}.{secrets.token_hex(8)}")
        try:
            make_folders(self.path.parent, private=True)
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT, PRIVATE), "w") as file:
                file.write(_new_head())
            with suppress(FileExistsError):
                os.link(temporary, self.path)
        except OSError as error:
            raise cannot_write(self.path.parent, error) from error
        finally:
            temporary.unlink(missing_ok=True)


def _new_head() -> str:
    return json.dumps({"epoch": secrets.token_hex(8), "boot": _boot()}) + "\n"


def _head(content: bytes) -> dict[str, str]:
    try:
        head = json.loads(content.split(b"\n", 1)[0])
    except ValueError:
        return {}
    return head if isinstance(head, dict) else {}


class JournalledExchange(FolderExchange):
    """A :class:`FolderExchange` whose messages are also told of in ``journal.jsonl``."""

    alone: ClassVar[bool] = False

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.journal = Journal(root / JOURNAL)

    def post(self, message: Message) -> None:
        """Write the message's file, then its line; see :meth:`Exchange.post`."""
        super().post(message)
        # Also of a message that was there: whoever has written it may have been killed after that.
        self.journal.append([self._told(message.signed, message.size)])

    def adopt(self, file: Path, signed: Signed) -> None:
        """Put a file that holds a message into its place, as :meth:`post` does a message.

        Args:
            file: on the same file system as the exchange; it is there no more afterwards.
            signed: what :func:`open_message` has read in it; whoever calls has checked the rest.

        Raises:
            ConsiliumError: a name in the header is none that a folder can have, or it cannot be
                written.
        """
        path, size = self.path(signed), file.stat().st_size
        if path.exists():
            file.unlink()
        else:
            with atomic_path(path, PRIVATE, durable=is_durable(signed.header.kind)) as temporary:
                file.replace(temporary)
        self.journal.append([self._told(signed, size)])

    def entries(self, after: Position) -> tuple[list[Entry], Position]:
        """What was put here after a position and is still here, and the position after it.

        A message may be told of more than once. Some thousands are told of at most; whoever wants
        all goes on until the position stays the same.
        """
        found, position = self.journal.read(after)
        return [entry for entry in found if self.is_there(entry)], position

    def is_there(self, entry: Entry) -> bool:
        """Whether a message's file is still here."""
        return (self.root / entry.path).is_file()

    def forget(self, run: str, round_number: int, keep: Collection[str] = ()) -> None:
        """See :meth:`Exchange.forget`; the journal is compacted when most of it is of no use."""
        super().forget(run, round_number, keep)
        if self.journal.mark()[1] >= COMPACT_FROM:
            told = {entry.path: entry for entry in self.journal.read_all()[0]}
            if 2 * sum(map(self.is_there, told.values())) < len(told):
                self.journal.rewrite(self.is_there)

    def recover(self) -> None:
        """Tell of the files that have no line; for whoever carries messages, when it begins.

        After a start of the machine, which may have lost lines, a new epoch begins.
        """
        if not self.journal.of_this_boot():
            self.journal.rewrite(self.is_there)
        told = {entry.path for entry in self.journal.read_all()[0]}
        untold = []
        for path in self._files():
            if str(path.relative_to(self.root)) in told:
                continue
            with suppress(ConsiliumError, FileNotFoundError), open_message(path) as unread:
                if self.path(unread.signed) == path:
                    untold.append(self._told(unread.signed, path.stat().st_size))
        self.journal.append(untold)

    def folder(self, place: Place) -> Path:
        """See :meth:`FolderExchange.folder`.

        Raises:
            ConsiliumError: a name in the place is none that a folder can have, or the journal's.
        """
        if place.run == JOURNAL:
            raise ConsiliumError(
                f"{JOURNAL!r} cannot be a run's id: the exchange's journal has it."
            )
        return super().folder(place)

    def _files(self) -> Iterator[Path]:
        """All files of messages; links are not followed, nor hidden folders looked into."""
        for folder, names, files in os.walk(self.root):
            names[:] = [name for name in names if not name.startswith(".")]
            yield from (Path(folder, n) for n in files if n.endswith(SUFFIX) and n[0] != ".")

    def _told(self, signed: Signed, size: int) -> Entry:
        header, path = signed.header, self.path(signed).relative_to(self.root)
        return Entry(
            str(path), header.recipient, header.sender, header.kind, header.run, size, signed.digest
        )
