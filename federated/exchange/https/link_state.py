"""What the client at a site remembers, so that it goes on where it was when it is started again.

It lies in a hidden folder of the mirror: how far the coordinator's journal was read, which of the
site's messages the coordinator has, and the files of which a part has arrived. If it is lost, the
same is asked and offered once more, and nothing else happens.
"""

import json
from contextlib import suppress
from pathlib import Path

from federated.exchange.journal import JournalledExchange, Position
from federated.files import PRIVATE, append_line, atomic_path, make_folders

FOLDER = ".link"
# From so many lines on, those of messages that are here no more are dropped at the start.
MANY = 1000


class LinkState:
    """The memory of a client in the folder of a mirror."""

    def __init__(self, mirror: JournalledExchange) -> None:
        self._mirror = mirror
        self._folder = mirror.root / FOLDER
        make_folders(self._folder / "incoming", private=True)
        self.position = self._read_position()
        self._uploaded = self._read_uploaded()
        # Also of messages that are here no more: they were, and are not wanted again.
        self._here = {entry.digest for entry in mirror.journal.read_all()[0]}

    @property
    def lock(self) -> Path:
        """The file whose lock the one client of a mirror holds."""
        return self._folder / "lock"

    def incoming(self, digest: str) -> Path:
        """The file of what has arrived of a message."""
        return self._folder / "incoming" / digest

    def moved_to(self, position: Position) -> None:
        """Remember how far the coordinator's journal was read."""
        if position == self.position:
            return
        self.position = position
        with atomic_path(self._folder / "position.json", PRIVATE, durable=False) as path:
            path.write_text(json.dumps(vars(position)), encoding="utf-8")

    def is_here(self, digest: str) -> bool:
        """Whether a message has arrived, or was refused."""
        return digest in self._here

    def has_come(self, digest: str) -> None:
        """Remember a message that has arrived or was refused."""
        self._here.add(digest)

    def is_uploaded(self, digest: str) -> bool:
        """Whether the coordinator has a message of the site, or has refused it."""
        return digest in self._uploaded

    def has_gone(self, digest: str) -> None:
        """Remember a message that the coordinator has, or has refused."""
        self._uploaded.add(digest)
        append_line(self._folder / "uploaded", digest)

    def _read_position(self) -> Position:
        with suppress(OSError, ValueError, TypeError):
            found = json.loads((self._folder / "position.json").read_text(encoding="utf-8"))
            position = Position(**found)
            if isinstance(position.epoch, str) and isinstance(position.offset, int):
                return position
        return Position()

    def _read_uploaded(self) -> set[str]:
        path = self._folder / "uploaded"
        if not path.exists():
            return set()
        found = set(path.read_text(encoding="utf-8", errors="replace").split())
        if len(found) < MANY:
            return found
        entries = self._mirror.journal.read_all()[0]
        found &= {entry.digest for entry in entries if self._mirror.is_there(entry)}
        with atomic_path(path, PRIVATE) as temporary:
            temporary.write_text("".join(f"{digest}\n" for digest in found), encoding="utf-8")
        return found
