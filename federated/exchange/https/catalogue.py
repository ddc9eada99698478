"""Which messages lie in the exchange, as the server looks them up: what its journal tells."""

import os
import stat
from pathlib import Path
from threading import Lock
from typing import BinaryIO, cast

from federated.exchange.folder import EVERYONE
from federated.exchange.journal import Entry, JournalledExchange, Position


def is_for(entry: Entry, site: str) -> bool:
    """Whether a site is told of a message: it is for the site or for all, and of somebody else."""
    return entry.recipient in (site, EVERYONE) and entry.sender != site


class Catalogue:
    """The messages in an exchange, by their digests; several threads may ask."""

    def __init__(self, exchange: JournalledExchange) -> None:
        self._exchange = exchange
        self._position = Position()
        self._by_digest: dict[str, Entry] = {}
        self._lock = Lock()

    def find(self, digest: str) -> Entry | None:
        """The message with a digest, if it is in the exchange."""
        with self._lock:
            self._refresh()
            entry = self._by_digest.get(digest)
        return entry if entry and self._exchange.is_there(entry) else None

    def of_sender(self, site: str) -> tuple[int, int]:
        """How many messages of a site lie here, and how many bytes they have together."""
        with self._lock:
            self._refresh()
            own = [entry for entry in self._by_digest.values() if entry.sender == site]
            gone = [entry for entry in own if not self._exchange.is_there(entry)]
            for entry in gone:
                del self._by_digest[entry.digest]
        there = len(own) - len(gone)
        return there, sum(e.size for e in own) - sum(e.size for e in gone)

    def open(self, entry: Entry) -> BinaryIO | None:
        """A message's file, opened to read; none where a link or another file lies there."""
        path = self._exchange.root / entry.path
        if path.parent.resolve() != self._exchange.root.resolve() / Path(entry.path).parent:
            return None
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        found = os.fstat(handle)
        if stat.S_ISREG(found.st_mode) and found.st_size == entry.size:
            return cast(BinaryIO, os.fdopen(handle, "rb", buffering=0))
        os.close(handle)
        return None

    def _refresh(self) -> None:
        while True:
            found, position = self._exchange.journal.read(self._position)
            if position.epoch != self._position.epoch:
                self._by_digest = {}
            self._by_digest.update((entry.digest, entry) for entry in found)
            if position == self._position:
                return
            self._position = position
