"""Which messages lie in the exchange, as the server looks them up: what its journal tells."""

import os
import stat
from collections import Counter
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
        self._counted: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._lock = Lock()

    def find(self, digest: str) -> Entry | None:
        """The message with a digest, if it is in the exchange."""
        with self._lock:
            self._refresh()
            entry = self._by_digest.get(digest)
        return entry if entry and self._exchange.is_there(entry) else None

    def of_sender(self, site: str) -> tuple[int, int]:
        """How many messages of a site lie here at most, and how many bytes they have together.

        Those that were forgotten since :meth:`recount` are counted as well; no file is looked at.
        """
        with self._lock:
            self._refresh()
            return self._counted[site], self._bytes[site]

    def recount(self, site: str) -> tuple[int, int]:
        """What :meth:`of_sender` tells, once every message of the site was looked for.

        That takes a moment for each, in which others may ask.
        """
        with self._lock:
            self._refresh()
            own = [entry for entry in self._by_digest.values() if entry.sender == site]
        gone = [entry for entry in own if not self._exchange.is_there(entry)]
        with self._lock:
            for entry in gone:
                self._drop(entry.digest)
        return self.of_sender(site)

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
                self._counted.clear()
                self._bytes.clear()
            for entry in found:
                self._drop(entry.digest)
                self._by_digest[entry.digest] = entry
                self._counted[entry.sender] += 1
                self._bytes[entry.sender] += entry.size
            if position == self._position:
                return
            self._position = position

    def _drop(self, digest: str) -> None:
        if entry := self._by_digest.pop(digest, None):
            self._counted[entry.sender] -= 1
            self._bytes[entry.sender] -= entry.size
